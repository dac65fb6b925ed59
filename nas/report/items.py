"""Item, Outline: a network as a reader tells it: stages, the cells and layers in them, repetitions folded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from nas.report.cell import Cell

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Figures:
    """The cost of a part: parameters, multiply-adds, and those between activations (attention)."""

    params: int = 0
    macs: int = 0
    attention: int = 0

    def __add__(self, other: Figures) -> Figures:
        between = self.attention + other.attention
        return Figures(self.params + other.params, self.macs + other.macs, between)


@dataclass(frozen=True)
class Line:
    """What stands inside an item: a state with the operations that it sums, or a module."""

    label: str
    shape: Shape
    cost: Figures
    depth: int = 0


@dataclass(frozen=True)
class Item:
    """A step of the network: a layer, a cell, or a join of several paths.

    Attributes:
        name: in the graph, or of the module; of the first repetition.
        label: its operation, or the name of its cell's picture.
        detail: attributes, in words.
        kind: a key of `nas.report.kinds.KINDS`; or ``input``, ``join``, ``cell``.
        shape: of its output.
        reads: places of the items that it reads.
        count: repetitions in a row.
        cost: of all repetitions together.
        residual: its input is added to its output.
        lines: what is inside, where it is told for the first time; costs of all repetitions.
        key: equal for items that are the same but for where they stand, or None: never folded.
        minor: fixed by the space around a choice; drawn small.
        chained: folds only if each repetition reads the one before alone.
    """

    name: str
    label: str
    kind: str
    shape: Shape
    detail: str = ""
    reads: tuple[int, ...] = ()
    count: int = 1
    stride: int = 1
    cost: Figures = Figures()
    residual: bool = False
    lines: tuple[Line, ...] = ()
    key: object = None
    minor: bool = False
    chained: bool = True


@dataclass(frozen=True)
class Outline:
    """A network: its items in order, each reading earlier ones, and the pictures of its cells."""

    title: str
    items: tuple[Item, ...]
    cells: tuple[Cell, ...] = ()

    @property
    def cost(self) -> Figures:
        """Of the whole network."""
        return total(self.items)

    def stages(self) -> list[tuple[int, int]]:
        """Runs [first, last + 1) of items whose outputs have one height and width."""
        bounds = [0]
        for place, (a, b) in enumerate(pairwise(self.items), start=1):
            if a.shape[1:] != b.shape[1:]:
                bounds.append(place)
        return list(pairwise([*bounds, len(self.items)]))


def total(parts: Iterable[Item | Line]) -> Figures:
    """The cost of parts together."""
    return sum((part.cost for part in parts), Figures())


def folded(items: list[Item]) -> list[Item]:
    """The items with runs of equal ones made one."""
    readers = [{b for b, item in enumerate(items) if a in item.reads} for a in range(len(items))]
    runs: list[list[int]] = []
    for place, item in enumerate(items):
        before = items[place - 1] if place else item
        same = item.key is not None and place > 0 and item.key == before.key
        alone = item.reads == (place - 1,) and readers[place - 1] == {place}
        if same and (alone or not item.chained):
            runs[-1].append(place)
        else:
            runs.append([place])
    new = {place: index for index, run in enumerate(runs) for place in run}
    found = []
    for index, run in enumerate(runs):
        each = [items[place] for place in run]
        reads = sorted({new[source] for item in each for source in item.reads} - {index})
        found.append(
            replace(
                each[0],
                reads=tuple(reads),
                count=len(run),
                stride=max(item.stride for item in each),
                cost=total(each),
                lines=_together([item.lines for item in each]),
            )
        )
    return found


def _together(repetitions: list[tuple[Line, ...]]) -> tuple[Line, ...]:
    """The lines of repetitions of one thing: line by line, costs added."""
    return tuple(replace(lines[0], cost=total(lines)) for lines in zip(*repetitions, strict=True))


def told_once(items: Iterable[Item]) -> list[Item]:
    """The items, with lines only where a cell or block comes for the first time."""
    seen: set[tuple[str, str, int]] = set()
    found = []
    for item in items:
        told = (item.label, item.detail, len(item.lines))
        found.append(replace(item, lines=()) if told in seen else item)
        seen.add(told)
    return found
