"""units(): which nodes of a network become one item of its outline, and what reads what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from nas.graph import JOINS, ZEROS, Node
from nas.report.cell import Group, kind_name, kinds_of, owners, prefix_name
from nas.report.plain import Plain

if TYPE_CHECKING:
    import networkx as nx

Flow = "nx.DiGraph[str]"


@dataclass
class Unit:
    """One node, a few in a row, or the nodes of a `group`, which has a picture of its own.

    Attributes:
        base: the name of its picture, before those of one name are told apart.
        kind: which of the cells that the space repeats.
        states: how many states go through it side by side, each by a node of its own.
        residual: what it reads is added to its output.
        sources: names of the units that it reads.
        picture: the name of its picture.
        lines: its states, as `nas.report.painter.formulas` tells them.
    """

    name: str
    nodes: list[Node]
    group: Group | None = None
    base: str = ""
    kind: int | None = None
    states: int = 1
    residual: bool = False
    sources: list[str] = field(default_factory=list)
    picture: str = ""
    lines: list[tuple[str, tuple[str, ...], str]] = field(default_factory=list)

    @property
    def is_join(self) -> bool:
        """Whether it is a sum, mean or concatenation between items."""
        return self.group is None and self.nodes[0].op in JOINS


def units(network: Plain) -> list[Unit]:
    """The units in the order of the data flow, with their sources.

    The cells that the space repeats are units; of the other nodes, groups that branch inside, and every node
    that is in none.
    """
    _, kinds = kinds_of(network.graph)
    named = {
        group.prefix: (kind_name(groups[0]), number)
        for number, groups in enumerate(kinds)
        for group in groups
    }
    members: dict[str, list[Node]] = {}
    rest: list[Node] = []
    for node, owner in zip(network.nodes, owners([n.name for n in network.nodes], named), strict=True):
        if owner:
            members.setdefault(owner, []).append(node)
        elif node.op not in ZEROS:
            rest.append(node)
    found = _split("", rest, network)
    for prefix, nodes in members.items():
        base, number = named[prefix]
        if len(nodes) == 1:
            found.append(Unit(nodes[0].name, nodes))
        else:
            found.append(Unit(prefix, nodes, Group(prefix, tuple(nodes)), base, number))
    return _wired(found, network) or _wired(
        [Unit(node.name, [node]) for node in network.nodes if node.op not in ZEROS], network
    )


def _split(prefix: str, nodes: Sequence[Node], network: Plain) -> list[Unit]:
    """The nodes below a prefix as one unit, or as the units of what is in it."""
    children: dict[str, list[Node]] = {}
    for node in nodes:
        behind = node.name[len(prefix) + 1 if prefix else 0 :] if node.name != prefix else ""
        child, dot, _ = behind.partition(".")
        children.setdefault(child + dot, []).append(node)
    order = network.order
    together = bool(nodes) and order[nodes[-1].name] - order[nodes[0].name] == len(nodes) - 1
    if prefix and together and _branches(prefix, list(children.values()), network):
        return [Unit(prefix, list(nodes), Group(prefix, tuple(nodes)), prefix_name(prefix))]
    found = []
    for child, inside in children.items():
        whole = f"{prefix}.{child}" if prefix else child
        if child.endswith("."):
            found += _split(whole[:-1], inside, network)
        else:
            found += [Unit(node.name, [node]) for node in inside]
    return found


def _branches(prefix: str, children: Sequence[Sequence[Node]], network: Plain) -> bool:
    """Whether a picture of its own tells more of a group than its parts in a row would.

    So it is if some part does not read the part before it; or if it reads one place outside alone and has a
    join among several operations, of which no input is optional.
    """
    for before, after in pairwise(children):
        given = {node.name for node in before}
        if not any(given.intersection(node.inputs) for node in after):
            return True
    nodes = [node for child in children for node in child]
    joined = any(
        len(child) == 1 and child[0].op in JOINS and not network.optional(child[0]) for child in children
    )
    several = sum(node.op not in JOINS for node in nodes) > 1
    return joined and several and len(Group(prefix, tuple(nodes)).externals()) == 1


# --- what reads what ---------------------------------------------------------------------------------------


def _wired(found: Iterable[Unit], network: Plain) -> list[Unit]:
    """The units in order, with their sources; empty if groups read each other.

    Joins that say nothing are left out, and chains of what one group writes around a choice are one unit.
    """
    import networkx as nx

    by_name = {unit.name: unit for unit in found}
    through: dict[str, str] = {}  # a node beside others -> what it stands for
    for unit in by_name.values():
        through |= _side_by_side(unit, network)
    owner = {node.name: unit.name for unit in by_name.values() for node in unit.nodes}
    flow: nx.DiGraph[str] = nx.DiGraph()
    flow.add_nodes_from(by_name)
    for unit in by_name.values():
        for source in (source for node in unit.nodes if node.name not in through for source in node.inputs):
            while source in through:
                source = through[source]
            if owner.get(source, unit.name) != unit.name:
                flow.add_edge(owner[source], unit.name)
    if not nx.is_directed_acyclic_graph(flow):
        return []
    for unit in [unit for unit in by_name.values() if unit.is_join]:
        _absorb_join(unit, flow, by_name)
    for unit in list(by_name.values()):
        _absorb_fixed(unit, flow, by_name, network)
    leading = nx.ancestors(flow, owner[network.output]) if owner[network.output] in flow else set(flow)
    beside = {name: name not in leading for name in flow}  # auxiliary heads stand behind the output
    beside[owner[network.output]] = False
    first = {name: (beside[name], network.order[by_name[name].nodes[0].name]) for name in flow}
    names = list(nx.lexicographical_topological_sort(flow, key=first.__getitem__))
    place = {name: i for i, name in enumerate(names)}
    for name in names:
        by_name[name].sources = sorted(flow.predecessors(name), key=place.__getitem__)
    return [by_name[name] for name in names]


def _side_by_side(unit: Unit, network: Plain) -> dict[str, str]:
    """Make a group of equal operations on different states one operation; its nodes -> what they read.

    The last state goes through the operation; the others are led past it, so that skip connections are seen
    to lead from where they start.
    """
    nodes = unit.nodes
    inside = {node.name for node in nodes}
    alike = len({(node.op, node.attrs, node.out, node.stride) for node in nodes}) == 1
    apart = len({node.inputs for node in nodes}) == len(nodes) > 1 and nodes[0].op not in JOINS
    if unit.group is None or not alike or not apart:
        return {}
    if any(len(node.inputs) != 1 or node.inputs[0] in inside for node in nodes):
        return {}
    nodes.sort(key=lambda node: -network.order[node.inputs[0]])
    unit.group, unit.states = None, len(nodes)
    return {node.name: node.inputs[0] for node in nodes[1:]}


def _absorb_join(join: Unit, flow: nx.DiGraph[str], by_name: Mapping[str, Unit]) -> None:
    """Leave out a join of one path, and the sum of an item and what it reads: the item is residual."""
    sources = list(flow.predecessors(join.name))
    if len(sources) == 1 and len(join.nodes[0].inputs) == 1:
        (stays,) = sources
    else:
        stays = next((s for s in sources if _is_residual(s, join, flow, by_name)), "")
        if not stays:
            return
        by_name[stays].residual = True
        by_name[stays].nodes.append(join.nodes[0])
    flow.add_edges_from((stays, reader) for reader in list(flow.successors(join.name)))
    flow.remove_node(join.name)


def _is_residual(name: str, join: Unit, flow: nx.DiGraph[str], by_name: Mapping[str, Unit]) -> bool:
    """Whether the join adds nothing but this unit's output and its only input."""
    unit = by_name[name]
    around = {name, *flow.predecessors(name)} == set(flow.predecessors(join.name))
    alone = list(flow.successors(name)) == [join.name] and len(join.nodes[0].inputs) == 2
    added = join.nodes[0].op == "sum" and flow.in_degree(name) == 1
    return around and alone and added and not unit.is_join and not unit.residual


def _absorb_fixed(unit: Unit, flow: nx.DiGraph[str], by_name: Mapping[str, Unit], network: Plain) -> None:
    """Make what a group fixes right before a choice, and nothing else reads, one unit with the choice."""
    node = unit.nodes[0]
    prefix = node.name.rpartition(".")[0]
    readers = list(flow.successors(unit.name)) if unit.name in flow else []
    single = unit.group is None and len(unit.nodes) == 1 and not unit.is_join and bool(node.inputs)
    if not prefix or not single or len(readers) != 1 or network.before(node).holes():
        return
    behind = by_name[readers[0]]
    near = behind.nodes[0].name.rpartition(".")[0] == prefix and flow.in_degree(behind.name) == 1
    chosen = any(network.before(each).holes() for each in behind.nodes)
    if near and chosen and behind.group is None and not behind.is_join and not behind.residual:
        behind.nodes.insert(0, node)
        flow.add_edges_from((source, behind.name) for source in list(flow.predecessors(unit.name)))
        flow.remove_node(unit.name)
