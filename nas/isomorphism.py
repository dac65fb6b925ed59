"""digest(): when are two filled graphs the same network?

What is computed only from zero is dropped, identities are contracted, sums are spliced into their readers as
multisets, dead nodes are removed; then nodes are coloured by what they read and who reads them, ties are told
apart by marking each tied node in turn, and the sorted colours are hashed. Checked: NAS-Bench-201's 15,625
strings give 5,425 digests and NAS-Bench-101 423,624 cells, as comparing under all permutations does.

Two things are true of some operations only, so they are named here; of any other the safe side is taken (two
digests for one network cost an evaluation, one digest for two would falsify a result): that zero in is zero
out, and that the order of a concatenation is only an order of weights.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from nas.graph import JOINS, ZEROS, Graph

IDENTITIES = frozenset({"identity", "skip_connect"})
# Keep channels apart: each output channel is made of the input channel of the same place.
APART = frozenset(
    {
        *("relu", "relu6", "leaky_relu", "gelu", "silu", "hard_swish", "tanh", "dropout", "drop_path"),
        *("max_pool", "avg_pool", "max_pool_3x3", "max_pool_5x5", "max_pool_7x7", "avg_pool_3x3"),
        *("avg_pool_2x2", "max_pool_2x2", "maxpool3x3", "global_avg_pool", "identity", "skip_connect"),
        "truncate",  # of NAS-Bench-101, which counts its cells without regard to the order of channels
        *("bn_relu", "batch_norm", "depthwise_conv_3x3", "depthwise_conv_5x5", "depthwise_conv_7x7"),
    }
)
# Mix all channels by weights without a bias (a norm may follow): the order of channels is one of weights.
MIXED = frozenset(
    {
        *("conv_1x1", "conv_3x3", "conv_5x5", "conv_7x7", "nor_conv_1x1", "nor_conv_3x3", "relu_conv_bn"),
        *("dilated_conv_3x3", "dilated_conv_5x5", "conv_bn_3x3", "conv_bn_relu_3x3", "linear_conv_1x1"),
        *("conv1x1-bn-relu", "conv3x3-bn-relu", "preprocess", "skip_connect"),
        *(f"{kind}_conv_{k}x{k}" for kind in ("sep", "dil", "separable") for k in (3, 5, 7)),
        *("conv_1x7_7x1", "conv_7x1_1x7", "conv_1x3_3x1"),
    }
)
READS_ALL = MIXED | {"linear"}
PASSES_ZERO = MIXED | APART
Colours = dict[str, str]


class Simple(NamedTuple):
    """A node that computes, after simplification. `ordered`: its inputs have places."""

    name: str
    label: tuple[object, ...]
    inputs: tuple[str, ...]
    ordered: bool = False


def digest(graph: Graph) -> str:
    """Equal for filled graphs that are the same network up to isomorphism."""
    nodes = _Simplifier(graph).nodes()
    colours = _refined(nodes, {node.name: _hash(node.label) for node in nodes})
    tied = _tied(nodes, colours)
    if tied:
        marked = {name: _marked(nodes, colours, name) for name in tied}
        colours = _refined(nodes, {n: _hash(c, marked.get(n)) for n, c in colours.items()})
    return _hash(sorted(colours.values()))


class _Simplifier:
    """Zeros, identities and inner sums taken out."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found: dict[str, Simple] = {}
        self.stands_for: dict[str, list[str]] = {}  # a node -> the nodes whose sum it is; empty for zero
        self.widths: dict[str, int] = {}
        self.readers: dict[str, list[tuple[str, str]]] = defaultdict(list)  # names and ops
        self.ops = {node.name: str(node.op) for node in graph.nodes}
        self.sources = {node.name: node.inputs for node in graph.nodes}
        for node in graph.nodes:
            for source in node.inputs:
                self.readers[source].append((node.name, str(node.op)))

    def nodes(self) -> list[Simple]:
        """The nodes that the outputs need, each after those that it reads."""
        for node in self.graph.nodes:
            width = node.out if isinstance(node.out, int) else sum(self.widths[n] for n in node.inputs[:1])
            self.widths[node.name] = (
                sum(self.widths[n] for n in node.inputs) if node.op == "concat" else width
            )
            self._take(node.name, str(node.op), node.inputs, (node.stride, node.attrs))
        outputs = [self.graph.output, *self.graph.auxiliary]
        roots = tuple(self._joined(self.stands_for[name]) for name in outputs if self.stands_for[name])
        self.found["<outputs>"] = Simple("<outputs>", ("outputs",), roots, ordered=True)
        alive, todo = set[str](), ["<outputs>"]
        while todo:
            name = todo.pop()
            if name not in alive:
                alive.add(name)
                todo.extend(self.found[name].inputs)
        return [node for name, node in self.found.items() if name in alive]

    def _take(self, name: str, op: str, inputs: tuple[str, ...], rest: tuple[int, object]) -> None:
        terms = [self.stands_for[source] for source in inputs]
        width = self.widths[name]
        same = op in IDENTITIES and rest[0] == 1 and width == self.widths[inputs[0]]
        if op in ZEROS or (inputs and not any(terms) and (op in JOINS or same or op in PASSES_ZERO)):
            self.stands_for[name] = []
            return
        if same or op == "sum":
            self.stands_for[name] = [each for term in terms for each in term]
            return
        # Elsewhere a zero counts: in the mean, as channels, and where an operation makes something of it.
        terms = [term or [self._zero(self.widths[n])] for term, n in zip(terms, inputs, strict=True)]
        reads = tuple(self._joined(term) for term in terms)
        ordered = op == "concat" and not self._order_is_of_weights(name)
        self.found[name] = Simple(name, (op, width, *rest), reads, ordered)
        self.stands_for[name] = [name]

    def _order_is_of_weights(self, name: str) -> bool:
        """Whether all that is made of a concatenation mixes its channels by weights, on its own."""
        if name == self.graph.output:
            return True
        return all(
            op in READS_ALL - APART
            or (op == "skip_connect" and self.widths[reader] != self.widths[name])
            or (op in APART and self._order_is_of_weights(reader))
            or (op == "sum" and self._others_follow(reader, name) and self._order_is_of_weights(reader))
            for reader, op in self.readers[name]
        )

    def _others_follow(self, total: str, name: str) -> bool:
        """Whether all else that a sum adds comes from weights which it alone reads: any order suits them."""
        return all(
            source == name or (self.ops[source] in MIXED - APART and len(self.readers[source]) == 1)
            for source in self.sources[total]
        )

    def _zero(self, width: int) -> str:
        """The node that is zero on `width` channels."""
        name = f"<zero>{width}"
        self.found.setdefault(name, Simple(name, ("zero", width), ()))
        return name

    def _joined(self, terms: list[str]) -> str:
        """The node that sums `terms`, in any order and grouping; a single term stands for itself."""
        if len(terms) == 1:
            return terms[0]
        terms = sorted(terms)
        name = "<sum>" + "+".join(terms)
        self.found.setdefault(name, Simple(name, ("sum",), tuple(terms)))
        return name


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _refined(nodes: list[Simple], start: Colours) -> Colours:
    """Colours forward over inputs and backward over readers, again until no class is split any more."""
    colours, classes = start, 0
    while len(set(colours.values())) > classes:
        classes = len(set(colours.values()))
        colours = _pass(nodes, colours)
    return colours


def _pass(nodes: list[Simple], colours: Colours) -> Colours:
    forward: Colours = {}
    readers: dict[str, list[tuple[str, int]]] = {node.name: [] for node in nodes}
    for node in nodes:
        inputs = [forward[source] for source in node.inputs]
        forward[node.name] = _hash(colours[node.name], inputs if node.ordered else sorted(inputs))
        for place, source in enumerate(node.inputs):
            readers[source].append((node.name, place if node.ordered else 0))
    backward: Colours = {}
    for node in reversed(nodes):
        seen = sorted((backward[reader], place) for reader, place in readers[node.name])
        backward[node.name] = _hash(forward[node.name], seen)
    return backward


def _tied(nodes: list[Simple], colours: Colours) -> list[str]:
    """Nodes of one colour that are no twins: not interchangeable by what they read and who reads them."""
    readers: dict[str, list[str]] = {node.name: [] for node in nodes}
    for node in nodes:
        for source in node.inputs:
            readers[source].append(node.name)
    classes: dict[str, list[Simple]] = defaultdict(list)
    for node in nodes:
        classes[colours[node.name]].append(node)
    return [
        node.name
        for alike in classes.values()
        if len({(tuple(sorted(n.inputs)), tuple(sorted(readers[n.name]))) for n in alike}) > 1
        for node in alike
    ]


def _marked(nodes: list[Simple], colours: Mapping[str, str], name: str) -> str:
    """What the graph looks like from one node: all colours after that one is marked."""
    return _hash(sorted(_refined(nodes, {**colours, name: _hash("marked", colours[name])}).values()))
