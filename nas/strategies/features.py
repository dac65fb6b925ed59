"""Features: what a surrogate sees of an architecture, in any space.

A network repeats its cells: an architecture is told from another by the first place where a hole is filled.
So the unfilled graph is reduced once to the nodes with holes that no earlier node repeats, wired as they are
with everything fixed between them taken out; filling that costs microseconds, however large the network is.
On the filled outline, three kinds of features are counted:

- choices: the options of the decisions that matter, and their places among options that are numbers;
- paths: the sequences of operations from an input to an output (White et al., BANANAS, AAAI 2021, section 3);
- subtrees: the Weisfeiler-Lehman labels of the nodes (Ru et al., NAS-BOWL, ICLR 2021, section 3.1).

Paths and subtrees are the same for isomorphic cells, whose choices may differ.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nas.graph import JOINS, ZEROS, Hole, Node, Option, Value
from nas.isomorphism import IDENTITIES
from nas.search_space import SearchSpace

Choices = Mapping[str, Value]
Label = tuple[object, ...]
SILENT = IDENTITIES | {"truncate"}  # operations that are only wires
LENGTH = 6  # of a path: of longer ones the last operations
PATHS = 128  # kinds of paths kept at a node: the most frequent ones
ROUNDS = 2  # of Weisfeiler-Lehman: a label tells of so many steps back
REMEMBERED = 20_000  # architectures whose features are kept


class Counts(NamedTuple):
    """Features of one architecture by kind: feature -> count."""

    choices: dict[Label, float]
    paths: dict[Label, float]
    subtrees: dict[Label, float]


class Part(NamedTuple):
    """A present node with holes: what it is, and which nodes and inputs it reads (with repetitions)."""

    label: Label
    reads: tuple[str, ...]
    asked: tuple[Hole, ...]


class Outline:
    """The graph of a space without what is the same in all its architectures."""

    def __init__(self, space: SearchSpace) -> None:
        self.steps: list[tuple[Node, tuple[Hole, ...]]] = []
        # Nodes at which the outline begins: inputs, and copies of what was asked.
        self.constant: set[str] = set()
        self.void: set[str] = set()  # nodes that are zero
        self.ends: dict[str, None] = {}  # nodes that something outside reads
        self.recipe = space.recipe
        self.numbers = {
            (d.name, option): place / (len(d.legal) - 1)
            for d in space.decisions
            if len(d.legal) > 2 and all(isinstance(o, int | float) for o in d.legal)
            for place, option in enumerate(sorted(d.legal))
        }
        asked: set[Label] = set()
        for node in space.graph.nodes:
            self._take(node, asked)
        self.ends[space.graph.output] = None

    def _take(self, node: Node, asked: set[Label]) -> None:
        question: Label = (node.op, node.out if isinstance(node.out, Hole) else None, node.attrs, node.when)
        inputs = [name for name in node.inputs if name not in self.void]
        if node.op in ZEROS or (node.inputs and not inputs):
            self.void.add(node.name)
            return
        holes = bool(node.holes())
        outside = holes and question in asked
        if outside:
            self.ends.update(dict.fromkeys(name for name in inputs if name not in self.constant))
        if outside or (not holes and self.constant.issuperset(inputs)):
            self.constant.add(node.name)
            return
        asked.add(question)
        self.steps.append((node._replace(inputs=tuple(inputs)), tuple(node.holes())))

    def fill(self, choices: Choices) -> tuple[dict[str, Part], list[str]]:
        """The nodes that matter, each after those that it reads; and what the ends read."""
        picked = {name: dict(value) for name, value in choices.items()}
        # Of the present nodes: the parts and inputs whose values they join.
        terms: dict[str, tuple[str, ...]] = {}
        parts: dict[str, Part] = {}
        read: set[str] = set()
        for node, holes in self.steps:
            if node.when is not None and picked[node.when.decision].get(node.when.row) != node.when.option:
                continue
            known = [n for n in node.inputs if n in terms or n in self.constant]
            if node.loose:
                known = [n for n in known if n not in read]
            reads = tuple(t for n in known for t in terms.get(n, (n,)))
            label = _label(node, holes, picked)
            if not reads or label is None:
                continue
            if label:
                parts[node.name] = Part(label, reads, holes)
                reads = (node.name,)
            elif holes:  # a wire that is a choice: it shows in what it joins alone
                parts[node.name] = Part((), reads, holes)
                reads = (node.name,)
            terms[node.name] = reads
            read.update(node.inputs)
        ends = [t for name in self.ends for t in terms.get(name, ())]
        alive = set(ends)
        for name in reversed(parts):
            if name in alive:
                alive.update(parts[name].reads)
        return {name: part for name, part in parts.items() if name in alive}, ends

    def counts(self, choices: Choices) -> Counts:
        """The features of the architecture of these choices."""
        picked = {name: dict(value) for name, value in choices.items()}
        parts, ends = self.fill(choices)
        chosen: dict[Label, float] = {}
        asked = [(hole.decision, hole.row) for part in parts.values() for hole in part.asked]
        for name, row in (*asked, *((name, 0) for name in self.recipe)):
            option = picked[name][row]
            chosen[name, row, option] = 1.0
            if (name, option) in self.numbers:
                chosen[name, row] = self.numbers[name, option]
        inner, reads = _without_wires(parts, ends)
        return Counts(chosen, _paths(inner, reads), _subtrees(inner, reads))


def _label(node: Node, holes: tuple[Hole, ...], picked: Mapping[str, Mapping[int, Option]]) -> Label | None:
    """What a present node is; empty for what is fixed or only a wire, None for what is absent."""
    if not holes or node.op in JOINS:
        return ()
    values = [picked[hole.decision].get(hole.row) for hole in holes if hole is not node.when]
    op = values[0] if isinstance(node.op, Hole) else node.op
    if None in values or op == "none" or op in ZEROS:
        return None
    rest = values[1:] if isinstance(node.op, Hole) else values
    return () if op in SILENT and not rest else (op, *rest)


def _without_wires(parts: Mapping[str, Part], ends: Sequence[str]) -> tuple[dict[str, Part], list[str]]:
    stands_for: dict[str, tuple[str, ...]] = {}
    kept: dict[str, Part] = {}
    for name, part in parts.items():
        reads = tuple(t for r in part.reads for t in stands_for.get(r, (r,)))
        if part.label:
            kept[name] = part._replace(reads=reads)
        else:
            stands_for[name] = reads
    return kept, [t for r in ends for t in stands_for.get(r, (r,))]


def _paths(parts: Mapping[str, Part], ends: Sequence[str]) -> dict[Label, float]:
    """How often each sequence of operations leads from an input to an end."""
    found: dict[str, dict[Label, float]] = {}

    def joined(reads: Sequence[str], label: Label) -> dict[Label, float]:
        total: dict[Label, float] = {}
        for source in reads:
            for path, count in found.get(source, {(source,): 1.0}).items():
                longer = (*path, label) if label else path
                longer = longer[-LENGTH:]
                total[longer] = total.get(longer, 0.0) + count
        if len(total) > PATHS:
            most = sorted(total.items(), key=lambda each: (-each[1], repr(each[0])))
            total = dict(most[:PATHS])
        return total

    for name, part in parts.items():
        found[name] = joined(part.reads, part.label)
    return joined(ends, ())


def _subtrees(parts: Mapping[str, Part], ends: Sequence[str]) -> dict[Label, float]:
    """How often each Weisfeiler-Lehman label is there, of all rounds."""
    names = [*parts, "<end>"]
    reads: dict[str, Sequence[str]] = {name: part.reads for name, part in parts.items()}
    reads["<end>"] = ends
    labels: dict[str, int] = {name: hash(part.label) for name, part in parts.items()}
    labels["<end>"] = hash("<end>")
    total = Counter[Label]()
    for turn in range(ROUNDS + 1):
        total.update((turn, labels[name]) for name in names)
        labels = {
            name: hash((labels[name], tuple(sorted(labels.get(r, hash(r)) for r in reads[name]))))
            for name in names
        }
    return dict(total)


class Features:
    """The features of architectures of a space, each computed once.

    What is remembered are the latest ones, and only to save time.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.outline = Outline(space)
        self._known: OrderedDict[object, Counts] = OrderedDict()

    def of(self, architectures: Iterable[Choices]) -> list[Counts]:
        """The features of each of these choices."""
        return [self._one(choices) for choices in architectures]

    def _one(self, choices: Choices) -> Counts:
        key = key_of(choices)
        counts = self._known.get(key)
        if counts is None:
            counts = self._known[key] = self.outline.counts(choices)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return counts


def key_of(choices: Choices) -> tuple[tuple[str, Value], ...]:
    """Equal for equal choices."""
    return tuple(sorted(choices.items()))
