"""digest(): when are two filled graphs the same network?

What is computed only from zero is dropped, identities are contracted, sums are spliced into their readers as
multisets, dead nodes are removed; then nodes are coloured by what they read, those of one colour also by who
reads them, what is still tied is told apart by marking each tied node in turn, and the sorted colours are
hashed. Checked: NAS-Bench-201's 15,625 strings give 5,425 digests and NAS-Bench-101 423,624 cells, as
comparing under all permutations does.

Two things are true of some operations only, so they are named here; of any other the safe side is taken (two
digests for one network cost an evaluation, one digest for two would falsify a result): that zero in is zero
out, and that the order of a concatenation is only an order of weights.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

from nas.graph import JOINS, ZEROS, Graph, Node

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
ONLY_MIXED = MIXED - APART
PASSES_ZERO = MIXED | APART | JOINS


class Simple(NamedTuple):
    """A node that computes, after simplification. `ordered`: its inputs have places."""

    label: bytes  # ends with the only byte 0 in it
    inputs: tuple[int, ...]  # their numbers
    ordered: bool = False


SUM, OUTPUTS = b"sum\0", b"outputs\0"
Nodes = dict[int, Simple]  # by number, each after those that it reads
Colours = dict[int, bytes]  # of 32 bytes each
Readers = dict[
    int, list[tuple[int, bytes]]
]  # of a node: the numbers of its readers, and in which place of each


def digest(graph: Graph) -> str:
    """Equal for filled graphs that are the same network up to isomorphism."""
    nodes = _Simplifier(graph).nodes()
    colours: Colours = {}
    for number, (label, inputs, ordered) in nodes.items():
        colours[number] = _by_inputs(label, inputs, ordered, colours)
    if len(set(colours.values())) < len(nodes):
        colours = _told_apart(nodes, colours)
    return _hash(sorted(colours.values())).hex()


class _Simplifier:
    """Zeros, identities and inner sums taken out."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found: list[Simple] = []
        self.stands_for: dict[str, tuple[int, ...]] = {}  # a node -> whose sum it is; empty for zero
        self.widths: dict[str, int] = {}
        self._numbers: dict[Simple, int] = {}  # of sums and zeros, which are the same wherever they stand
        self._labels: dict[tuple[object, ...], bytes] = {}

    def nodes(self) -> Nodes:
        """The nodes that the outputs need."""
        widths, stands_for, found, labels = self.widths, self.stands_for, self.found, self._labels
        for name, op, inputs, out, stride, attrs, _, _ in self.graph.nodes:
            if op == "sum":
                widths[name] = out if isinstance(out, int) else widths[inputs[0]]
                stands_for[name] = tuple([each for source in inputs for each in stands_for[source]])
                continue
            if op == "concat":
                width = sum([widths[source] for source in inputs])
            else:
                width = out if isinstance(out, int) else widths[inputs[0]] if inputs else 0
            widths[name] = width
            if op in IDENTITIES and stride == 1 and width == widths[inputs[0]]:
                stands_for[name] = stands_for[inputs[0]]
            elif op in ZEROS or (op in PASSES_ZERO and not any(map(stands_for.get, inputs))):
                stands_for[name] = ()
            else:
                terms = stands_for[inputs[0]] if len(inputs) == 1 else ()
                if len(terms) != 1:  # most read one node in one place
                    terms = tuple([self._joined(source) for source in inputs])
                what = (op, width, stride, attrs)
                label = labels.get(what) or self._label(*what)
                stands_for[name] = (len(found),)
                found.append(Simple(label, terms, op == "concat" and not self._order_is_of_weights(name)))
        outputs = [self.graph.output, *self.graph.auxiliary]
        roots = tuple([self._joined(name) for name in outputs if stands_for[name]])
        found.append(Simple(OUTPUTS, roots, ordered=True))
        return self._needed()

    def _needed(self) -> Nodes:
        """The last node found and what it reads, directly or not."""
        needed = {len(self.found) - 1}
        for number in reversed(range(len(self.found))):
            if number in needed:
                needed.update(self.found[number].inputs)
        return {number: node for number, node in enumerate(self.found) if number in needed}

    def _label(self, *what: object) -> bytes:
        label = self._labels.get(what)
        if label is None:
            label = self._labels[what] = repr(what).encode() + b"\0"
        return label

    def _joined(self, name: str) -> int:
        """The node that sums what `name` stands for, in any order and grouping; a single term is its own sum.

        Zero counts where it is asked for: in the mean, as channels, and where an operation makes something
        of it.
        """
        terms = self.stands_for[name]
        if len(terms) == 1:
            return terms[0]
        node = Simple(SUM if terms else self._label("zero", self.widths[name]), tuple(sorted(terms)))
        number = self._numbers.setdefault(node, len(self.found))
        if number == len(self.found):
            self.found.append(node)
        return number

    def _order_is_of_weights(self, name: str) -> bool:
        """Whether all that is made of a concatenation mixes its channels by weights, on its own."""
        if name == self.graph.output:
            return True
        return all(
            reader.op in ONLY_MIXED
            or reader.op == "linear"
            or (reader.op == "skip_connect" and reader.out not in (None, self.widths[name]))
            or (reader.op in APART and self._order_is_of_weights(reader.name))
            or (
                reader.op == "sum"
                and self._others_follow(reader, name)
                and self._order_is_of_weights(reader.name)
            )
            for reader in self._readers[name]
        )

    def _others_follow(self, total: Node, name: str) -> bool:
        """Whether all else that a sum adds comes from weights which it alone reads: any order suits them."""
        return all(
            source == name or (self._ops[source] in ONLY_MIXED and len(self._readers[source]) == 1)
            for source in total.inputs
        )

    @cached_property
    def _ops(self) -> dict[str, object]:
        return {node.name: node.op for node in self.graph.nodes}

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.graph.nodes:
            for source in node.inputs:
                found[source].append(node)
        return found


def _hash(parts: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _by_inputs(own: bytes, inputs: tuple[int, ...], ordered: bool, colours: Colours) -> bytes:
    """A node's own colour, changed by those of what it reads."""
    if len(inputs) == 1:
        return hashlib.sha256(own + colours[inputs[0]]).digest()
    read = [colours[source] for source in inputs]
    return _hash([own, *(read if ordered else sorted(read))])


def _told_apart(nodes: Nodes, colours: Colours) -> Colours:
    """Colours that also differ by who reads a node, and by what the graph looks like from it."""
    counts = Counter(colours.values())
    tied = [number for number, colour in colours.items() if counts[colour] > 1]
    readers: Readers = {number: [] for number in tied}
    for number, (_, inputs, ordered) in nodes.items():
        if not readers.keys().isdisjoint(inputs):
            for place, source in enumerate(inputs):
                if source in readers:
                    readers[source].append((number, place.to_bytes(4, "big") if ordered else bytes(4)))
    colours, tied = _refined(nodes, readers, colours, tied)
    if not tied:
        return colours
    views = {}
    for number in tied:
        marked = {**colours, number: _hash([b"marked", colours[number]])}
        views[number] = _hash(sorted(_refined(nodes, readers, marked, tied)[0].values()))
    seen = {number: _hash([colours[number], view]) for number, view in views.items()}
    return _refined(nodes, readers, {**colours, **seen}, tied)[0]


def _refined(nodes: Nodes, readers: Readers, start: Colours, tied: list[int]) -> tuple[Colours, list[int]]:
    """Colours by readers and by inputs, again until no class is split any more; and what is still tied.

    What is not tied keeps its colour: a node that has it alone, and twins.
    """
    colours, classes = dict(start), 0
    while (tied := _tied(nodes, readers, colours, tied)) and len(set(colours.values())) > classes:
        classes = len(set(colours.values()))
        for number in reversed(tied):
            read_by = sorted([colours[reader] + place for reader, place in readers[number]])
            colours[number] = _hash([colours[number], *read_by])
        for number in tied:
            colours[number] = _by_inputs(colours[number], *nodes[number][1:], colours)
    return colours, tied


def _tied(nodes: Nodes, readers: Readers, colours: Mapping[int, bytes], among: list[int]) -> list[int]:
    """Nodes of one colour that are no twins: not interchangeable by what they read and who reads them."""
    classes: dict[bytes, list[int]] = defaultdict(list)
    for number in among:
        classes[colours[number]].append(number)
    found: list[int] = []
    for alike in classes.values():
        if len(alike) > 1 and len({_use(nodes[number], readers[number]) for number in alike}) > 1:
            found += alike
    return sorted(found)


def _use(node: Simple, readers: list[tuple[int, bytes]]) -> tuple[object, ...]:
    """The same for twins."""
    return node.inputs if node.ordered else tuple(sorted(node.inputs)), tuple(sorted(readers))
