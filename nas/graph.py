"""Hole, Node, Graph: a network as a straight-line program with holes. Plain Python, no torch.

The whole semantics of filling: a node whose hole asks a row that is not kept, whose `when` does not hold, or
whose op is ``none``, is absent. ``sum``, ``mean`` and ``concat`` ignore absent inputs and are absent if none
is left; any other node with an absent input is absent. Nodes that reach neither the output nor an auxiliary
output are removed, unless the graph keeps them (`keep_dead`: NAS-Bench-201 builds and counts what no output
needs).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import networkx as nx

Option = str | int | float
Scalar = str | int | float | bool
Value = tuple[tuple[int, Option], ...]  # the kept rows, ascending, each with its option
Shape = tuple[int, int, int]  # channels, height, width

JOINS = frozenset({"sum", "mean", "concat"})
IDENTITIES = frozenset({"identity", "skip_connect"})
ZEROS = frozenset({"zero"})


class Hole(NamedTuple):
    """A place that a decision fills: the option picked in `row` of `decision`.

    `option` is used in `Node.when` alone: the node exists if the row is kept with exactly that option.
    """

    decision: str
    row: int = 0
    option: Option | None = None


class Node(NamedTuple):
    """One operation.

    `inputs` are names of earlier nodes; `out` is the number of channels, None for as many as come in.

    `attrs` are further keyword arguments of the primitive, as sorted pairs.
    """

    name: str
    op: str | Hole
    inputs: tuple[str, ...]
    out: int | Hole | None = None
    stride: int = 1
    attrs: tuple[tuple[str, Scalar | Hole], ...] = ()
    when: Hole | None = None

    def holes(self) -> list[Hole]:
        """Every hole of the node."""
        candidates = (self.op, self.out, self.when, *(value for _, value in self.attrs))
        return [hole for hole in candidates if isinstance(hole, Hole)]


class Graph:
    """Nodes in an order in which each reads earlier ones; the first is the input, the last the output.

    Args:
        nodes: the program. The first node has op ``input``.
        input: shape of one example (channels, height, width in pixels).
        auxiliary: names of nodes that give further outputs in training (auxiliary classifiers).
        keep_dead: keep nodes that no output needs when holes are filled.

    Raises ValueError if a node reads a node that is not earlier, or a name is used twice.
    """

    def __init__(
        self, nodes: Iterable[Node], *, input: Shape, auxiliary: tuple[str, ...] = (), keep_dead: bool = False
    ) -> None:
        self.nodes = tuple(nodes)
        self.input = input
        self.auxiliary = auxiliary
        self.keep_dead = keep_dead
        self.output = self.nodes[-1].name
        self._filled: dict[tuple[object, ...], Node] = {}
        seen: set[str] = set()
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in seen]
            if missing:
                raise ValueError(f"node {node.name!r} reads {missing[0]!r}, which is not an earlier node")
            if node.name in seen:
                raise ValueError(f"two nodes are called {node.name!r}: names are unique")
            seen.add(node.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return (self.nodes, self.input, self.auxiliary, self.keep_dead)

    def decisions(self) -> frozenset[str]:
        """Names of the decisions that some hole asks."""
        return frozenset(hole.decision for node in self.nodes for hole in node.holes())

    def fill(self, choices: Mapping[str, Value]) -> Graph:
        """The graph without holes that `choices` (decision -> value) describe.

        Raises KeyError if one is missing.
        """
        picked = {name: dict(value) for name, value in choices.items()}
        interned = self._filled
        kept: list[Node] = []
        present: set[str] = set()
        for node in self.nodes:
            name, op, inputs, out, stride, attrs, when = node
            if when is not None and picked[when.decision].get(when.row) != when.option:
                continue
            if type(op) is Hole:
                op = str(picked[op.decision].get(op.row, "none"))
            if op == "none":
                continue
            if op in JOINS:
                inputs = tuple([source for source in inputs if source in present])
                if not inputs:
                    continue
            elif not present.issuperset(inputs):
                continue
            if type(out) is Hole or attrs:
                out, attrs, known = _fill_scalars(out, attrs, picked)
                if not known:
                    continue
            key = (name, op, inputs, out, attrs)
            filled = interned.get(key)
            if filled is None:
                filled = interned[key] = Node(name, str(op), inputs, out, stride, attrs)
            kept.append(filled)
            present.add(name)
        return self._finish(kept, present)

    def _finish(self, nodes: list[Node], present: set[str]) -> Graph:
        if self.output not in present:
            raise ValueError("these choices leave no path from the input to the output")
        auxiliary = tuple(name for name in self.auxiliary if name in present)
        if not self.keep_dead:
            alive = {self.output, self.nodes[0].name, *auxiliary}
            for node in reversed(nodes):
                if node.name in alive:
                    alive.update(node.inputs)
            nodes = [node for node in nodes if node.name in alive]
        return Graph._trusted(nodes, self.input, auxiliary, self.keep_dead)

    @classmethod
    def _trusted(
        cls, nodes: Iterable[Node], input: Shape, auxiliary: tuple[str, ...], keep_dead: bool
    ) -> Graph:
        """A graph from nodes that are known to be in order: the constructor without its checks."""
        graph = cls.__new__(cls)
        graph.nodes, graph.input, graph.auxiliary, graph.keep_dead = tuple(nodes), input, auxiliary, keep_dead
        graph.output = graph.nodes[-1].name
        graph._filled = {}
        return graph

    def active(self, choices: Mapping[str, Value]) -> frozenset[tuple[str, int]]:
        """The (decision, row) pairs that matter: changing any other one leaves the filled graph as it is.

        A node's holes matter if its inputs are there and nodes that are not closed by their own choice lead
        from it to an output. (With `keep_dead`, every node whose inputs are there matters.)
        """
        picked = {name: dict(value) for name, value in choices.items()}
        closed = {node.name for node in self.nodes if _closed(node, picked)}
        present: set[str] = set()
        able: list[Node] = []  # the nodes whose inputs are there
        for node in self.nodes:
            gather = any if node.op in JOINS else all
            if not node.inputs or gather(name in present for name in node.inputs):
                able.append(node)
                if node.name not in closed:
                    present.add(node.name)
        needed = {self.output, *self.auxiliary}
        for node in reversed(self.nodes):
            if node.name in needed and node.name not in closed:
                needed.update(node.inputs)
        return frozenset(
            (hole.decision, hole.row)
            for node in able
            if self.keep_dead or node.name in needed
            for hole in _asked(node, picked)
            if hole.row in picked[hole.decision]
        )

    def digest(self) -> str:
        """A digest of a filled graph, equal for graphs that are the same network up to isomorphism.

        What is computed only from zero is dropped, identities are contracted, sums are spliced into their
        readers, dead nodes removed; then every node is hashed forward over its inputs and backward over its
        readers.
        """
        return _digest(_simplified(self))

    def to_networkx(self) -> nx.DiGraph:
        """Nodes with their fields as attributes, edges from producer to consumer."""
        import networkx as nx

        graph = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(node.name, op=node.op, out=node.out, stride=node.stride, attrs=dict(node.attrs))
            graph.add_edges_from((source, node.name) for source in node.inputs)
        return graph


class Builder:
    """Writes a graph call by call: ``b("name", op, *inputs, out=..., stride=...)`` returns the name.

    Op and `out`, and further keywords (the primitive's attributes), may be holes.
    """

    def __init__(self, input: Shape) -> None:
        self.input = input
        self.nodes: list[Node] = [Node("input", "input", (), out=input[0])]

    def __call__(
        self,
        name: str,
        op: str | Hole,
        *inputs: str,
        out: int | Hole | None = None,
        stride: int = 1,
        when: Hole | None = None,
        **attrs: Scalar | Hole,
    ) -> str:
        self.nodes.append(Node(name, op, inputs, out, stride, tuple(sorted(attrs.items())), when))
        return name

    def graph(self, *, auxiliary: tuple[str, ...] = (), keep_dead: bool = False) -> Graph:
        """The graph written so far. Its output is the last node written."""
        return Graph(self.nodes, input=self.input, auxiliary=auxiliary, keep_dead=keep_dead)


def _fill_scalars(
    out: int | Hole | None,
    attrs: tuple[tuple[str, Scalar | Hole], ...],
    picked: Mapping[str, Mapping[int, Option]],
) -> tuple[int | None, tuple[tuple[str, Scalar | Hole], ...], bool]:
    """`out` and `attrs` with their holes filled, and whether every row asked is kept."""
    filled = tuple((k, picked[v.decision].get(v.row)) if type(v) is Hole else (k, v) for k, v in attrs)
    width = picked[out.decision].get(out.row) if type(out) is Hole else out
    known = all(value is not None for _, value in filled) and (width is not None or out is None)
    return width, filled, known  # type: ignore[return-value]


def _asked(node: Node, picked: Mapping[str, Mapping[int, Option]]) -> list[Hole]:
    """The holes that decide about the node: where `when` does not hold, nothing else is asked."""
    when = node.when
    absent = when is not None and picked[when.decision].get(when.row) != when.option
    return [when] if absent and when is not None else node.holes()


def _closed(node: Node, picked: Mapping[str, Mapping[int, Option]]) -> bool:
    """Whether the node is absent by its own choice, whatever its inputs."""
    if node.when is not None and picked[node.when.decision].get(node.when.row) != node.when.option:
        return True
    if any(picked[hole.decision].get(hole.row) is None for hole in node.holes()):
        return True
    op = picked[node.op.decision][node.op.row] if isinstance(node.op, Hole) else node.op
    return op == "none"


def _simplified(graph: Graph) -> list[tuple[str, tuple[object, ...], list[str]]]:
    """(name, label, inputs) of the nodes that compute: zeros, identities and inner sums taken out."""
    inputs: dict[str, list[str]] = {}
    labels: dict[str, tuple[object, ...]] = {}
    stands_for: dict[str, list[str]] = {}  # a node -> the nodes whose sum it is; empty for zero
    widths: dict[str, int] = {}
    for node in graph.nodes:
        terms = [stands_for[name] for name in node.inputs]
        width = node.out if isinstance(node.out, int) else sum(widths[name] for name in node.inputs[:1])
        widths[node.name] = sum(widths[n] for n in node.inputs) if node.op == "concat" else width
        same = node.op in IDENTITIES and node.stride == 1 and widths[node.name] == widths[node.inputs[0]]
        nothing = node.op in ZEROS or (bool(node.inputs) and not any(terms))
        if node.op in JOINS and node.op != "sum":  # there a zero counts: in the mean, and as channels
            terms = [
                term or [_zero(widths[n], inputs, labels)] for term, n in zip(terms, node.inputs, strict=True)
            ]
        if nothing:
            stands_for[node.name] = []
            continue
        if same or node.op == "sum":
            stands_for[node.name] = [name for term in terms for name in term]
            continue
        # A reader of several terms reads their sum: one node a multiset, whatever its order and grouping.
        reads = [_joined(sorted(term), inputs, labels) for term in terms if term]
        inputs[node.name] = reads
        labels[node.name] = (node.op, node.out, node.stride, node.attrs)
        stands_for[node.name] = [node.name]
    outputs = [graph.output, *graph.auxiliary]
    roots = [_joined(sorted(stands_for[name]), inputs, labels) for name in outputs if stands_for[name]]
    inputs["<outputs>"], labels["<outputs>"] = roots, ("outputs",)
    alive, todo = set[str](), ["<outputs>"]
    while todo:
        name = todo.pop()
        if name not in alive:
            alive.add(name)
            todo.extend(inputs[name])
    return [(name, labels[name], inputs[name]) for name in inputs if name in alive]


def _zero(width: int, inputs: dict[str, list[str]], labels: dict[str, tuple[object, ...]]) -> str:
    """The node that is zero on `width` channels."""
    name = f"<zero>{width}"
    inputs.setdefault(name, [])
    labels.setdefault(name, ("zero", width))
    return name


def _joined(terms: list[str], inputs: dict[str, list[str]], labels: dict[str, tuple[object, ...]]) -> str:
    """The node that sums `terms`, made if it is not there yet; a single term stands for itself."""
    if len(terms) == 1:
        return terms[0]
    name = "<sum>" + "+".join(terms)
    inputs.setdefault(name, terms)
    labels.setdefault(name, ("sum",))
    return name


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _digest(nodes: list[tuple[str, tuple[object, ...], list[str]]]) -> str:
    forward: dict[str, str] = {}
    readers: dict[str, list[tuple[str, int]]] = {name: [] for name, _, _ in nodes}
    for name, label, inputs in nodes:
        # Sums and means are multisets; a concat in another order is the same network, up to a permutation of
        # the weights that read it: inputs are compared sorted throughout.
        forward[name] = _hash(label, sorted(forward[source] for source in inputs))
        for source in inputs:
            readers[source].append((name, 0))
    backward: dict[str, str] = {}
    for name, _, _ in reversed(nodes):
        backward[name] = _hash(forward[name], sorted(backward[reader] for reader, _ in readers[name]))
    return _hash(sorted(backward.values()))
