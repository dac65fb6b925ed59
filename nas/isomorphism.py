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
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from nas.graph import JOINS, ZEROS, Graph, Hole, Node

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
PASSES_ZERO = MIXED | APART
Colours = list[bytes]  # of 32 bytes each, by the nodes' numbers
Readers = list[
    list[tuple[int, bytes]]
]  # of each node: the number of a node that reads it, and in which place
ANY = bytes(4)  # the place of an input among others in any order


class Simple(NamedTuple):
    """A node that computes, after simplification. `ordered`: its inputs have places."""

    label: bytes
    inputs: tuple[int, ...]  # their numbers
    ordered: bool = False


def digest(graph: Graph) -> str:
    """Equal for filled graphs that are the same network up to isomorphism."""
    nodes = _Simplifier(graph).nodes()
    colours = [node.label for node in nodes]
    _look_forward(nodes, colours, range(len(nodes)))
    if len(set(colours)) < len(nodes):
        colours = _told_apart(nodes, colours)
    return _hash(*sorted(colours)).hex()


class _Simplifier:
    """Zeros, identities and inner sums taken out."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found: list[Simple] = []
        self.stands_for: dict[str, tuple[int, ...]] = {}  # a node -> whose sum it is; empty for zero
        self.widths: dict[str, int] = {}
        self._numbers: dict[Simple, int] = {}  # of sums and zeros: they are the same wherever they stand
        self._labels: dict[object, bytes] = {}

    def nodes(self) -> list[Simple]:
        """The nodes that the outputs need, each after those that it reads."""
        widths, stands_for, found, labels = self.widths, self.stands_for, self.found, self._labels
        for name, op, inputs, out, stride, attrs, _, _ in self.graph.nodes:
            if op == "concat":
                width = sum([widths[source] for source in inputs])
            else:
                width = out if isinstance(out, int) else widths[inputs[0]] if inputs else 0
            widths[name] = width
            if op == "sum":
                stands_for[name] = tuple([each for source in inputs for each in stands_for[source]])
                continue
            same = op in IDENTITIES and stride == 1 and width == widths[inputs[0]]
            if same:
                stands_for[name] = stands_for[inputs[0]]
            elif op in ZEROS or (
                inputs
                and (op in PASSES_ZERO or op in JOINS)
                and not any([stands_for[source] for source in inputs])
            ):
                stands_for[name] = ()
            else:
                if len(inputs) == 1 and len(term := stands_for[inputs[0]]) == 1:
                    reads = term
                else:
                    reads = tuple([self._joined(stands_for[source], source) for source in inputs])
                ordered = op == "concat" and not self._order_is_of_weights(name)
                what = (op, width, stride, attrs)
                stands_for[name] = (len(found),)
                found.append(Simple(labels.get(what) or self._label(*what), reads, ordered))
        outputs = [self.graph.output, *self.graph.auxiliary]
        roots = tuple([self._joined(stands_for[name], name) for name in outputs if stands_for[name]])
        self.found.append(Simple(self._label("outputs"), roots, ordered=True))
        return self._alive()

    def _alive(self) -> list[Simple]:
        """What the last node found needs, with new numbers."""
        alive = {len(self.found) - 1}
        for number in range(len(self.found) - 1, -1, -1):
            if number in alive:
                alive.update(self.found[number].inputs)
        if len(alive) == len(self.found):
            return self.found
        kept = sorted(alive)
        place = {number: i for i, number in enumerate(kept)}
        return [
            node._replace(inputs=tuple([place[source] for source in node.inputs]))
            for node in map(self.found.__getitem__, kept)
        ]

    def _label(self, *parts: object) -> bytes:
        label = self._labels.get(parts)
        if label is None:
            label = self._labels[parts] = _hash(repr(parts).encode())
        return label

    def _joined(self, terms: tuple[int, ...], name: str) -> int:
        """The node that sums `terms`, in any order and grouping; a single term stands for itself.

        Where an operation makes something of zero, in the mean and as channels, a zero counts.
        """
        if len(terms) == 1:
            return terms[0]
        label = self._label("sum") if terms else self._label("zero", self.widths[name])
        node = Simple(label, tuple(sorted(terms)))
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
    def _ops(self) -> dict[str, str | Hole]:
        return {node.name: node.op for node in self.graph.nodes}

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = defaultdict(list)
        for node in self.graph.nodes:
            for source in node.inputs:
                found[source].append(node)
        return found


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _look_forward(nodes: Sequence[Simple], colours: Colours, numbers: Iterable[int]) -> None:
    """Colour some nodes, from the first on, also by what they read."""
    for number in numbers:
        _, inputs, ordered = nodes[number]
        read = [colours[source] for source in inputs]
        if not ordered:
            read.sort()
        colours[number] = _hash(colours[number], *read)


def _told_apart(nodes: Sequence[Simple], colours: Colours) -> Colours:
    """Colours that also differ by who reads a node, and ties by what the graph looks like from each."""
    readers: Readers = [[] for _ in nodes]
    for number, (_, inputs, ordered) in enumerate(nodes):
        for place, source in enumerate(inputs):
            readers[source].append((number, place.to_bytes(4, "big") if ordered else ANY))
    colours, tied = _refined(nodes, readers, colours, range(len(nodes)))
    if not tied:
        return colours
    seen_from = {}
    for number in tied:
        marked = [*colours[:number], _hash(b"marked", colours[number]), *colours[number + 1 :]]
        seen_from[number] = _hash(*sorted(_refined(nodes, readers, marked, tied)[0]))
    marked = [_hash(colour, seen_from.get(number, b"")) for number, colour in enumerate(colours)]
    return _refined(nodes, readers, marked, tied)[0]


def _refined(
    nodes: Sequence[Simple], readers: Readers, start: Colours, tied: Sequence[int]
) -> tuple[Colours, Sequence[int]]:
    """Colours by readers and by what is read, again until no class of tied nodes is split; what is still tied.

    All others are left as they are: those of a colour of their own, and twins.
    """
    colours, classes = list(start), 0
    while (tied := _tied(nodes, readers, colours, tied)) and len(set(colours)) > classes:
        classes = len(set(colours))
        for number in reversed(tied):
            seen = sorted([colours[reader] + place for reader, place in readers[number]])
            colours[number] = _hash(colours[number], *seen)
        _look_forward(nodes, colours, tied)
    return colours, tied


def _tied(nodes: Sequence[Simple], readers: Readers, colours: Colours, among: Sequence[int]) -> Sequence[int]:
    """Nodes of one colour that are no twins: not interchangeable by what they read and who reads them."""
    classes: dict[bytes, list[int]] = defaultdict(list)
    for number in among:
        classes[colours[number]].append(number)
    found: list[int] = []
    for alike in classes.values():
        if len(alike) > 1:
            uses = {
                (n.inputs if n.ordered else tuple(sorted(n.inputs)), tuple(sorted(readers[number])))
                for number, n in ((number, nodes[number]) for number in alike)
            }
            if len(uses) > 1:
                found += alike
    return sorted(found)
