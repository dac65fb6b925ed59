"""Group and Cell: the parts of a space that repeat, and the name that a reader gives them.

Nodes are grouped by dotted prefix (``cells.3``); groups that read the same decisions in the same way are one
kind of cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from string import ascii_uppercase
from typing import TYPE_CHECKING

from nas.graph import Graph, Node
from nas.isomorphism import IDENTITIES
from nas.search_space.decision import Decision
from nas.search_space.space import SearchSpace

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Cell:
    """A cell as a picture shows it.

    `graph` is a directed multigraph of states. A node has ``label``, ``ref`` (how text names it), ``role``
    (``input``, ``join``, ``op`` or ``output``), ``op``, ``kind`` (a key of `nas.report.kinds.KINDS`, or ""),
    ``detail`` (attributes, or a preprocessing that it stands for) and ``nodes``, the names in the network's
    graph of all that it stands for. An edge has ``label`` ("" for plain data flow), ``detail``, ``op``,
    ``kind`` and ``nodes``. `count`: how often it is in the network. `note`: what else to know of the picture.
    """

    name: str
    graph: nx.MultiDiGraph[str]
    count: int
    note: str = ""


@dataclass(frozen=True)
class Group:
    """The nodes of one dotted prefix, names relative to it."""

    prefix: str
    nodes: tuple[Node, ...]

    def inside(self, name: str) -> bool:
        """Whether the name has the prefix."""
        return name.startswith(self.prefix + ".")

    def relative(self, name: str) -> str:
        """The name behind the prefix."""
        return name[len(self.prefix) + 1 :]

    def externals(self) -> list[str]:
        """What the group reads from outside, in the order of first use."""
        return list(dict.fromkeys(s for node in self.nodes for s in node.inputs if not self.inside(s)))

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


def owners(names: Sequence[str], prefixes: Iterable[str]) -> list[str]:
    """The prefix that each name has, "" for none."""
    known = set(prefixes)
    chains = [[name[:i] for i, letter in enumerate(name) if letter == "."] for name in names]
    return [next((prefix for prefix in chain if prefix in known), "") for chain in chains]


def kinds_of(graph: Graph) -> tuple[list[str], list[list[Group]]]:
    """The prefixes at the depth with repeated groups, and its groups with decisions by kind.

    It is the shallowest such depth, unless a group there only repeats a deeper one (a stage of equal cells).
    Both are empty if no group repeats, or if some decision is asked outside the groups: then a picture of
    cells would hide a choice.
    """
    split = [(node, node.name.split(".")) for node in graph.nodes]
    found: tuple[list[str], list[list[Group]]] = [], []
    for depth in range(1, max(len(parts) for _, parts in split)):
        members: dict[str, list[Node]] = {}
        for node, parts in split:
            if len(parts) > depth:
                members.setdefault(".".join(parts[:depth]), []).append(node)
        grouped = {node.name for nodes in members.values() for node in nodes}
        if any(node.holes() and node.name not in grouped for node in graph.nodes):
            break
        kinds: dict[object, list[Group]] = {}
        for prefix, nodes in members.items():
            if any(node.holes() for node in nodes):
                group = Group(prefix, tuple(nodes))
                kinds.setdefault(group.signature(), []).append(group)
        within = any(_repeats_within(groups, found[0]) for groups in kinds.values())
        repeated = any(len(groups) > 1 for groups in kinds.values())
        if within or (repeated and not found[0]):
            found = list(members), list(kinds.values())
    return found


def _repeats_within(groups: Sequence[Group], prefixes: Sequence[str]) -> bool:
    """Whether two of the groups are in one of those with these prefixes."""
    around = [owner for owner in owners([group.prefix for group in groups], prefixes) if owner]
    return len(set(around)) < len(around)


def decision_groups(space: SearchSpace) -> dict[str, list[Decision]]:
    """The decisions by the cell that asks them and by their options, so that their tables can be stacked."""
    _, kinds = kinds_of(space.graph)
    names = numbered([kind_name(groups[0]) for groups in kinds]) if kinds else ["network"]
    holes = [{hole.decision for node in groups[0].nodes for hole in node.holes()} for groups in kinds]
    members: dict[tuple[str, object], list[Decision]] = {}
    for decision in space.decisions:
        owner = next(
            (name for name, asked in zip(names, holes, strict=False) if decision.name in asked), names[0]
        )
        members.setdefault((owner, decision.options), []).append(decision)
    return dict(zip(numbered([owner for owner, _ in members]), members.values(), strict=True))


# --- names -------------------------------------------------------------------------------------------------


def numbered(names: Sequence[str]) -> list[str]:
    """The names, those that are there already with a number behind them."""
    return [f"{n} {names[: i + 1].count(n)}" if names[:i].count(n) else n for i, n in enumerate(names)]


def lettered(names: Sequence[str]) -> list[str]:
    """The names, those that are there more than once with a letter behind them."""
    many = [names[:i].count(n) if names.count(n) > 1 else None for i, n in enumerate(names)]
    return [
        n if i is None else f"{n} {ascii_uppercase[i] if i < 26 else i + 1}"
        for n, i in zip(names, many, strict=True)
    ]


def kind_name(group: Group) -> str:
    """What the names of the decisions that a group asks share up to a dot, else what its prefix says."""
    asked = {hole.decision for node in group.nodes for hole in node.holes()}
    paths = [name.split(".")[:-1] for name in sorted(asked)]
    shared = [a[0] for a in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]
    return ".".join(shared) or prefix_name(group.prefix)


def prefix_name(prefix: str) -> str:
    """``cell`` for ``cells.3``, ``block`` for ``stage2.block0``, ``pool`` for ``pool``."""
    words = [part for part in prefix.split(".") if not part.isdigit()]
    word = re.sub(r"[\d_]+$", "", words[-1]) if words else ""
    several = prefix.rpartition(".")[2].isdigit() and word.endswith("s") and not word.endswith("ss")
    return (word[:-1] if several else word) or "block"


# --- words -------------------------------------------------------------------------------------------------


def operation(node: Node) -> str:
    """The operation of a filled node, in a word: own modules without their file."""
    return "skip" if node.op in IDENTITIES else str(node.op).rpartition(":")[2]
