"""Cell: the picture behind an architecture, found in its graph without knowing the space; and its plain text.

Nodes are grouped by dotted prefix (``cells.3``); groups that read the same decisions in the same way are one
cell. A space without repeated groups is one picture: the whole network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.graph import JOINS, ZEROS, Graph, Hole, Node
from nas.isomorphism import IDENTITIES
from nas.search_space.architecture import Architecture
from nas.search_space.decision import Decision
from nas.search_space.space import SearchSpace

if TYPE_CHECKING:
    import networkx as nx

SYMBOLS = {"sum": "+"}  # joins that have no number


@dataclass(frozen=True)
class Cell:
    """A cell as a picture shows it.

    `graph` is a directed multigraph of states. A node has ``label``, ``ref`` (how text names it), ``role``
    (``input``, ``join``, ``op`` or ``output``), ``op`` and ``detail`` (a preprocessing that it stands for, or
    ""). An edge has ``label`` ("" for plain data flow) and ``op``. `count`: how often it is in the network.
    """

    name: str
    graph: nx.MultiDiGraph[str]
    count: int


@dataclass(frozen=True)
class _Group:
    """The nodes of one dotted prefix in the unfilled graph, names relative to it."""

    prefix: str
    nodes: tuple[Node, ...]

    def inside(self, name: str) -> bool:
        return name.startswith(self.prefix + ".") if self.prefix else True

    def relative(self, name: str) -> str:
        return name[len(self.prefix) + 1 :] if self.prefix else name

    def externals(self) -> list[str]:
        """What the group reads from outside, in the order of first use."""
        return list(dict.fromkeys(s for node in self.nodes for s in node.inputs if not self.inside(s)))

    def owners(self, names: Sequence[str], siblings: Sequence[str]) -> list[str]:
        """The sibling group that each name belongs to, "" for none."""
        known = set(siblings)
        chains = [[name[:i] for i, letter in enumerate(name) if letter == "."] for name in names]
        return [next((prefix for prefix in chain if prefix in known), "") for chain in chains]

    def signature(self) -> tuple[object, ...]:
        """Equal for groups that are one picture: same structure and decisions, any strides and widths."""
        return tuple(
            (
                self.relative(node.name),
                node.op,
                tuple(self.relative(s) if self.inside(s) else None for s in node.inputs),
                tuple(node.holes()),
            )
            for node in self.nodes
        )


def cells(space: SearchSpace, architecture: Architecture) -> list[Cell]:
    """The pictures of `architecture`: one for each kind of repeated cell, or one of the whole network."""
    filled = space.fill(architecture)
    by_name = {node.name: node for node in filled.nodes}
    siblings, kinds = _kinds(space.graph)
    if not kinds:
        return [Cell("network", _Painter(filled, _Group("", space.graph.nodes), siblings).picture(), 1)]
    names = _names(kinds)
    found = []
    for name, groups in zip(names, kinds, strict=True):
        present = [group for group in groups if any(node.name in by_name for node in group.nodes)]
        if present:
            # The first cells of a network read the stem: the one that reads most of its fellows shows most.
            shown = max(present, key=lambda group: len(set(group.owners(group.externals(), siblings)) - {""}))
            found.append(Cell(name, _Painter(filled, shown, siblings).picture(), len(present)))
    return found


def decision_groups(space: SearchSpace) -> dict[str, list[Decision]]:
    """The decisions by the cell that asks them and by their options, so that their tables can be stacked."""
    _, kinds = _kinds(space.graph)
    names = _names(kinds) if kinds else ["network"]
    holes = [{hole.decision for node in groups[0].nodes for hole in node.holes()} for groups in kinds]
    members: dict[tuple[str, object], list[Decision]] = {}
    for decision in space.decisions:
        owner = next(
            (name for name, asked in zip(names, holes, strict=False) if decision.name in asked), names[0]
        )
        members.setdefault((owner, decision.options), []).append(decision)
    owners = [owner for owner, _ in members]
    titles = [f"{o} {owners[: i + 1].count(o)}" if owners.count(o) > 1 else o for i, o in enumerate(owners)]
    return dict(zip(titles, members.values(), strict=True))


def _kinds(graph: Graph) -> tuple[list[str], list[list[_Group]]]:
    """The prefixes at the shallowest depth with a repeated group, and its groups with decisions by kind.

    Both are empty if no group repeats, or if some decision is asked outside the groups: then a picture of
    cells would hide a choice.
    """
    split = [(node, node.name.split(".")) for node in graph.nodes]
    for depth in range(1, max(len(parts) for _, parts in split)):
        members: dict[str, list[Node]] = {}
        for node, parts in split:
            if len(parts) > depth:
                members.setdefault(".".join(parts[:depth]), []).append(node)
        grouped = {node.name for nodes in members.values() for node in nodes}
        if any(node.holes() and node.name not in grouped for node in graph.nodes):
            break
        kinds: dict[object, list[_Group]] = {}
        for prefix, nodes in members.items():
            if any(node.holes() for node in nodes):
                group = _Group(prefix, tuple(nodes))
                kinds.setdefault(group.signature(), []).append(group)
        if any(len(groups) > 1 for groups in kinds.values()):
            return list(members), list(kinds.values())
    return [], []


def _names(kinds: Sequence[Sequence[_Group]]) -> list[str]:
    """A name for each kind: what its decisions' names share up to a dot, else ``cell``; all different."""
    names = [
        common_prefix({hole.decision for node in groups[0].nodes for hole in node.holes()}) or "cell"
        for groups in kinds
    ]
    return [f"{n} {names[: i + 1].count(n)}" if names.count(n) > 1 else n for i, n in enumerate(names)]


def common_prefix(names: Iterable[str]) -> str:
    """The dotted prefix that all `names` share, "" if none: ``normal`` for ``normal.0``, ``normal.1``."""
    paths = [name.split(".")[:-1] for name in names]
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


# --- from a group to a picture -----------------------------------------------------------------------------


def describe(node: Node, unfilled: Node) -> str:
    """What a filled node computes, for a label: its op and whatever else was chosen for it."""
    base = "skip" if node.op in IDENTITIES else str(node.op)
    asked = {name for name, value in unfilled.attrs if isinstance(value, Hole)}
    chosen = [f"{name}={value}" for name, value in node.attrs if name in asked]
    if isinstance(unfilled.out, Hole):
        chosen.append(f"out={node.out}")
    return " ".join([base, *chosen])


class _Painter:
    """Draws the filled nodes of one group as a graph of states."""

    def __init__(self, filled: Graph, group: _Group, siblings: Sequence[str]) -> None:
        self.group = group
        self.siblings = siblings
        self.unfilled = {node.name: node for node in group.nodes}
        self.nodes = [n for n in filled.nodes if n.name in self.unfilled and n.op not in ZEROS]
        self.readers: dict[str, list[Node]] = {}
        for node in filled.nodes:
            for source in node.inputs:
                self.readers.setdefault(source, []).append(node)
        self.results = {
            node.name
            for node in self.nodes
            if node.name == filled.output
            or any(not group.inside(reader.name) for reader in self.readers.get(node.name, []))
        }
        self.entries = self._entries()
        self.edges = {n.name: n for n in self.nodes if n.name not in self.entries and self._is_edge(n)}

    def picture(self) -> nx.MultiDiGraph[str]:
        """The graph that `Cell` describes."""
        import networkx as nx

        picture: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        for (name, (_, detail)), label in zip(self.entries.items(), self._input_labels(), strict=True):
            picture.add_node(name, label=label, ref=label, role="input", op="input", detail=detail)
        states = [n for n in self.nodes if n.name not in self.entries and n.name not in self.edges]
        numbers = self._numbers([node.name for node in states if node.op in JOINS])
        for node in states:
            label, ref, role = self._state(node, numbers)
            picture.add_node(node.name, label=label, ref=ref, role=role, op=node.op, detail="")
            for source in node.inputs:
                edge = self.edges.get(source)
                start = edge.inputs[0] if edge else source
                if start not in picture:
                    continue  # a zero
                text = describe(edge, self.unfilled[source]) if edge else ""
                picture.add_edge(start, node.name, label=text, op=edge.op if edge else "")
        return picture

    def _entries(self) -> dict[str, tuple[str, str]]:
        """The input states: name -> (the outside node that it is, the preprocessing that it went through).

        An outside node that is read by fixed one-input operations alone stands for what these make of it.
        """
        found: dict[str, tuple[str, str]] = {}
        for source in self.group.externals() if self.group.prefix else [self.nodes[0].name]:
            inner = [node for node in self.nodes if source in node.inputs]
            plain = self.group.prefix and inner and all(self._is_plain(node) for node in inner)
            if plain:
                found.update({node.name: (source, str(node.op)) for node in inner})
            elif inner or not self.group.prefix:
                found[source] = (source, "")
        return found

    def _is_plain(self, node: Node) -> bool:
        fixed = not self.unfilled[node.name].holes() and len(node.inputs) == 1
        return fixed and node.op not in JOINS and node.name not in self.results

    def _is_edge(self, node: Node) -> bool:
        """Whether the node is drawn as an edge: one input, and read by one join of the cell alone."""
        readers = self.readers.get(node.name, [])
        read_once = len(readers) == 1 and readers[0].op in JOINS and node.name not in self.results
        return read_once and node.op not in JOINS and len(node.inputs) == 1 and not self._chained(node)

    def _chained(self, node: Node) -> bool:
        """Whether the node reads what would itself be an edge of nothing: a zero."""
        return node.inputs[0] in self.unfilled and all(n.name != node.inputs[0] for n in self.nodes)

    def _input_labels(self) -> list[str]:
        """``c[k-2]`` for what the cell before the last gives; ``in0``, ``in1`` where that says nothing."""
        sources = [source for source, _ in self.entries.values()]
        if len(sources) == 1:
            return ["in"]
        order = {prefix: place for place, prefix in enumerate(self.siblings)}
        owners = self.group.owners(sources, self.siblings)
        if len(set(owners)) < len(owners) or "" in owners:
            return [f"in{place}" for place in range(len(sources))]
        here = order[self.group.prefix]
        return [f"c[k-{here - order[owner]}]" for owner in owners]

    def _numbers(self, joins: Sequence[str]) -> dict[str, str]:
        """The number at the end of each join's name, which literals count by, if these tell joins apart."""
        found = {name: match[0] for name in joins if (match := re.search(r"\d+$", self.group.relative(name)))}
        return found if self.group.prefix and len(set(found.values())) == len(found) else {}

    def _state(self, node: Node, numbers: dict[str, str]) -> tuple[str, str, str]:
        """(label, ref, role) of a state that is no input."""
        last = node.name in self.results
        relative = self.group.relative(node.name)
        if node.op not in JOINS:
            return describe(node, self.unfilled[node.name]), relative, "output" if last else "op"
        if last and len(self.results) == 1:
            return "out", "out", "output"
        label = numbers.get(node.name)
        role = "output" if last else "join"
        return label or SYMBOLS.get(str(node.op), str(node.op)), label or relative, role


# --- text --------------------------------------------------------------------------------------------------


def text(space: SearchSpace, architecture: Architecture) -> str:
    """A drawing for a terminal: a line a state, with what it sums."""
    return "\n\n".join(_cell_text(cell) for cell in cells(space, architecture))


def _cell_text(cell: Cell) -> str:
    graph = cell.graph
    refs = {name: str(ref) for name, ref in graph.nodes(data="ref")}
    width = max(len(ref) for ref in refs.values())
    lines = [f"{cell.name} ({cell.count} times in the network)" if cell.count > 1 else cell.name]
    for name, fields in graph.nodes(data=True):
        if fields["role"] == "input":
            formula = f"input, {fields['detail']}" if fields["detail"] else "input"
        else:
            terms = [
                f"{data['label']}({refs[source]})" if data["label"] else refs[source]
                for source, _, data in graph.in_edges(name, data=True)
            ]
            formula = _formula(fields, terms)
        lines.append(f"  {refs[name]:<{width}} = {formula}")
    return "\n".join(lines)


def _formula(fields: dict[str, str], terms: list[str]) -> str:
    if fields["op"] == "sum":
        return " + ".join(terms) or "0"
    name = fields["op"] if fields["op"] in JOINS else fields["label"]
    return f"{name}({', '.join(terms) or '0'})"
