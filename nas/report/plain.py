"""Plain: a filled graph as it is drawn: without wires, with the attributes that tell something."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from nas.graph import JOINS, Graph, Hole, Node, Scalar

WIRES = frozenset({"identity", "truncate"})  # operations that only lead on
OFF = (0, False, "none", "")


class Plain:
    """A filled graph with its wires contracted, beside the unfilled one that it came from.

    Wires are the identities that the space writes itself, and joins of one input where another could be.
    """

    def __init__(self, filled: Graph, unfilled: Graph) -> None:
        self.filled = filled
        self.graph = unfilled
        self.unfilled = {node.name: node for node in unfilled.nodes}
        self.nodes: list[Node] = []
        stands: dict[str, str] = {}
        for node in filled.nodes:
            inputs = tuple(stands[source] for source in node.inputs)
            stands[node.name] = inputs[0] if self._is_wire(node) else node.name
            if not self._is_wire(node):
                self.nodes.append(node._replace(inputs=inputs))
        self.output = stands[filled.output]

    def _is_wire(self, node: Node) -> bool:
        if len(node.inputs) != 1:
            return False
        if node.op in JOINS:
            return self.optional(node)
        return node.op in WIRES and not isinstance(self.before(node).op, Hole)

    def optional(self, join: Node) -> bool:
        """Whether some input of a join is there by choice."""
        written = self.before(join)
        return any(self.unfilled[s].when for s in written.inputs if s in self.unfilled)

    def before(self, node: Node) -> Node:
        """The node as the space writes it, with its holes."""
        return self.unfilled.get(node.name, node)

    @cached_property
    def order(self) -> Mapping[str, int]:
        """The place of each node."""
        return {node.name: place for place, node in enumerate(self.nodes)}

    @cached_property
    def readers(self) -> Mapping[str, list[Node]]:
        """The nodes that read each node."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for source in node.inputs:
                found.setdefault(source, []).append(node)
        return found

    def beside_choice(self, node: Node) -> bool:
        """Whether a node is fixed, in a group in which others are chosen."""
        prefix = node.name.rpartition(".")[0]
        return prefix in self._choosing and not self.before(node).holes()

    @cached_property
    def _choosing(self) -> set[str]:
        return {node.name.rpartition(".")[0] for node in self.graph.nodes if node.holes()} - {""}

    def detail(self, node: Node) -> str:
        """The attributes of a node that were chosen, or differ between nodes of one operation, in words."""
        asked = {name for name, value in self.before(node).attrs if isinstance(value, Hole)}
        given = {**self._usual[str(node.op)], **dict(node.attrs)} if node.attrs else {}
        differ = {name for name in given if len(self._values.get((str(node.op), name), ())) > 1}
        shown = [name for name in given if name in asked or name in differ]
        return ", ".join(_words(name, given[name]) for name in shown if given[name] not in OFF)

    @cached_property
    def _usual(self) -> dict[str, dict[str, Scalar]]:
        """The attributes of each operation as they are where a node does not say, in their order."""
        from nas.primitives import resolve

        ops = {str(node.op) for node in self.nodes if node.inputs and node.op not in JOINS}
        return {op: {**resolve(op).accepts, **resolve(op).fixed} for op in ops}

    @cached_property
    def _values(self) -> dict[tuple[str, str], set[object]]:
        found: dict[tuple[str, str], set[object]] = {}
        for node in self.nodes:
            for name, value in {**self._usual.get(str(node.op), {}), **dict(node.attrs)}.items():
                if name != "affine":
                    found.setdefault((str(node.op), name), set()).add(value)
        return found


def _words(name: str, value: object) -> str:
    words = name.replace("_", " ")
    if value is True or isinstance(value, str):
        return words if value is True else str(value)
    return f"{words} {value:g}" if isinstance(value, float) else f"{words} {value}"
