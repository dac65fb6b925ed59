"""Cells in block form: NASNet (Zoph et al., CVPR 2018), AmoebaNet (Real et al., AAAI 2019) and PNASNet (Liu
et al., ECCV 2018).

A cell has five blocks. A block has two halves, each of which applies one operation to one of the states
before it (the cell's two inputs and earlier blocks); the block is their sum. The output of a cell is what no
block reads, concatenated (PNASNet: all blocks). NASNet-A 4 @ 1056 has 5,289,978 parameters, 6 @ 4032 has
88,753,150 and PNASNet-5 has 86,057,668; on the skeleton of DARTS, with 36 channels and 20 cells, NASNet-A has
3,830,950.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from nas.graph import Builder, Graph, Hole, Shape, Value
from nas.search_space.darts import notation
from nas.search_space.decision import Decision
from nas.search_space.operations import operations as chosen
from nas.search_space.skeleton import Place, Scale, darts_skeleton, nasnet_skeleton
from nas.search_space.space import SPACES, Choices, Count, SearchSpace

HALVES = ("left", "right")
SAME = {"conv_7x1_1x7": "conv_1x7_7x1", "conv_1x7_7x1": "conv_7x1_1x7"}  # two names of one operation
Skeleton = Literal["original", "darts"]
Stem = Literal["cifar", "imagenet"]
SKELETONS = {"original": nasnet_skeleton, "darts": darts_skeleton}
Reader = Callable[[str], Choices | None]
Forms = Mapping[str, str]  # operation -> the form that it takes

# The forms of operations on a state of another width than the cell's: NASNet's stem for ImageNet begins so.
WIDENING: Forms = {
    "skip_connect": "conv_1x1",
    **{f"sep_conv_{k}x{k}": f"widening_sep_conv_{k}x{k}" for k in (3, 5, 7)},
    **{f"max_pool_{k}x{k}": f"widening_max_pool_{k}x{k}" for k in (3, 5, 7)},
    "avg_pool_3x3": "widening_avg_pool_3x3",
}
# In cells that halve an even size, if strides are to fall on the pixels that TensorFlow sees.
SHIFTED: Forms = {
    **{f"sep_conv_{k}x{k}": f"shifted_sep_conv_{k}x{k}" for k in (3, 5, 7)},
    **{f"{kind}_pool_3x3": f"shifted_{kind}_pool_3x3" for kind in ("max", "avg")},
}


@dataclass(frozen=True)
class Blocks:
    """Cells in block form.

    Attributes:
        count: blocks of a cell.
        operations: that a half of a block may apply.
        kinds: names of the cells that keep the size and that halve it.
        ends: for each of these, the states that its output takes whether or not a block reads them.
        closed: the output takes all blocks, and nothing else.
        widening: forms of operations on a state of another width than the cell's.
        shifted: forms of operations in cells that halve an even size.
        base: an operation that the newer input goes through once it has the cell's width; empty for none.
    """

    count: int
    operations: tuple[str, ...]
    kinds: tuple[str, str] = ("normal", "reduce")
    ends: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    closed: bool = False
    widening: Forms = field(default_factory=dict)
    shifted: Forms = field(default_factory=dict)
    base: str = ""

    def __post_init__(self) -> None:
        beyond = [i for states in self.ends for i in states if not 0 <= i < 2 + self.count]
        if beyond:
            raise ValueError(f"ends names state {beyond[0]}: a cell has the states 0 to {1 + self.count}")

    def decisions(self) -> tuple[Decision, ...]:
        """One a half: which state, and which operation. ``none`` is mixed, but never chosen."""
        return tuple(
            Decision(f"{kind}.{j}.{half}", self.operations, rows=2 + j, never=("none",))
            for kind in dict.fromkeys(self.kinds)
            for j in range(self.count)
            for half in HALVES
        )

    def cell(self, b: Builder, place: Place) -> str:
        """Write a cell."""
        kind = self.kinds[place.reduce]
        states = self._inputs(b, place)
        for j in range(self.count):
            edges = [
                edge
                for half in HALVES
                for i in range(len(states))
                for edge in self._edge(b, f"{half}{i}_{j + 2}", Hole(f"{kind}.{j}.{half}", i), states, place)
            ]
            states.append(b(f"{place.name}.block{j + 2}", "sum", *edges))
        return self._output(b, place, states)

    def _inputs(self, b: Builder, place: Place) -> list[str]:
        """The two states that the cell begins with, at its width, but for one that is taken as it comes."""
        name = place.name
        if place.raw:
            before = b(f"{name}.pre0", "identity", place.before)
        else:
            stride = 2 if place.shrunk else 1
            before = b(f"{name}.pre0", "preprocess", place.before, out=place.width, stride=stride)
        last = b(f"{name}.pre1", "preprocess", place.last, out=place.width)
        return [before, b(f"{name}.base", self.base, last, out=place.width) if self.base else last]

    def _edge(self, b: Builder, name: str, hole: Hole, states: list[str], place: Place) -> list[str]:
        """One operation on one state: a node, or one an operation where some take another form here."""
        name, state, forms = f"{place.name}.{name}", states[hole.row], self._forms(hole.row, place)
        width, stride = place.width, 2 if place.reduce and hole.row < 2 else 1
        if not set(forms) & set(self.operations):
            return [b(name, hole, state, out=width, stride=stride)]
        return [
            b(
                f"{name}_{k}",
                forms.get(op, op),
                state,
                out=width,
                stride=stride,
                when=hole._replace(option=op),
            )
            for k, op in enumerate(self.operations)
            if op != "none"
        ]

    def _forms(self, row: int, place: Place) -> Forms:
        """The forms of operations on the state of that row."""
        if place.raw and row == 0:
            return self.widening
        return self.shifted if place.reduce and place.side % 2 == 0 else {}

    def _output(self, b: Builder, place: Place, states: list[str]) -> str:
        """The states that nothing reads, and those that are taken in any case."""
        name = place.name
        if self.closed:
            return b(f"{name}.out", "concat", *states[2:])
        taken = []
        for i, state in enumerate(states):
            always = i in self.ends[place.reduce]
            if i < 2 and (place.reduce or (place.raw and i == 0)):
                free = state if always else b(f"{name}.free{i}", "concat", state, loose=True)
                stride = 2 if place.reduce else 1
                taken.append(b(f"{name}.end{i}", "linear_preprocess", free, out=place.width, stride=stride))
            else:
                taken.append(b(f"{name}.end{i}", "identity", state) if always else state)
        return b(f"{name}.out", "concat", *taken, loose=True)

    # --- other notations ------------------------------------------------------------------------------------

    def genotype(self, text: str) -> Choices | None:
        """Choices from the notation of the DARTS code, ``Genotype(normal=[(op, input), ...], ...)``, with two
        pairs a block; None for another text.

        Raises ValueError for a genotype that is no point of the space.
        """
        cells = notation(text)
        if cells is None:
            return None
        choices: dict[str, Any] = {}
        for kind, always, (name, (pairs, joined)) in zip(self.kinds, self.ends, cells.items(), strict=True):
            found = self.halves(kind, [(self._known(op), state) for op, state in pairs])
            if {**found, **choices} != {**choices, **found}:
                raise ValueError(f"the space has one cell, for both sizes; these are two: {text[:80]!r}")
            ends = [self._ends(pairs, states) for states in ((), always)]
            if joined not in ends:
                raise ValueError(
                    f"the {name} cell concatenates {joined}; here the output of those blocks takes "
                    f"{ends[-1]}, which follows from what they read"
                )
            choices |= found
        return choices

    def holds(self, literal: str) -> bool:
        """Whether cells of this form can be what a literal describes."""
        options = re.findall(r"\|([^|~]+)~", literal)
        return len(options) == len(self.decisions()) and set(options) <= set(self.operations)

    def halves(self, kind: str, pairs: Sequence[tuple[str, int]]) -> dict[str, Value]:
        """Choices of one cell from (operation, state) pairs, two a block.

        Raises ValueError if these are not as many as the cell has.
        """
        if len(pairs) != 2 * self.count:
            raise ValueError(
                f"a cell has {self.count} blocks of two halves; the {kind} cell has {len(pairs)} halves"
            )
        return {
            f"{kind}.{place // 2}.{HALVES[place % 2]}": ((state, op),)
            for place, (op, state) in enumerate(pairs)
        }

    def _known(self, op: str) -> str:
        return op if op in self.operations else SAME.get(op, op)

    def _ends(self, pairs: Sequence[tuple[str, int]], always: tuple[int, ...]) -> list[int]:
        """What the output of such a cell takes."""
        if self.closed:
            return list(range(2, 2 + self.count))
        read = {state for _, state in pairs}
        return [i for i in range(2 + self.count) if i in always or i not in read]


# --- spaces -------------------------------------------------------------------------------------------------

NASNET_A = (  # Zoph et al. 2018, figure 4
    "|sep_conv_5x5~1|+|sep_conv_3x3~0|+|sep_conv_5x5~0|+|sep_conv_3x3~0|+|avg_pool_3x3~1|"
    "+|skip_connect~0|+|avg_pool_3x3~0|+|avg_pool_3x3~0|+|sep_conv_3x3~1|+|skip_connect~1|"
    "+|sep_conv_5x5~1|+|sep_conv_7x7~0|+|max_pool_3x3~1|+|sep_conv_7x7~0|+|avg_pool_3x3~1|"
    "+|sep_conv_5x5~0|+|skip_connect~3|+|avg_pool_3x3~2|+|sep_conv_3x3~2|+|max_pool_3x3~1|"
)
AMOEBANET_A = (  # Real et al. 2019, figure 5, as Liu et al. 2019 put it on their skeleton
    "|avg_pool_3x3~0|+|max_pool_3x3~1|+|sep_conv_3x3~0|+|sep_conv_5x5~2|+|sep_conv_3x3~0|"
    "+|avg_pool_3x3~3|+|sep_conv_3x3~1|+|skip_connect~1|+|skip_connect~0|+|avg_pool_3x3~1|"
    "+|avg_pool_3x3~0|+|sep_conv_3x3~1|+|max_pool_3x3~0|+|sep_conv_7x7~2|+|sep_conv_7x7~0|"
    "+|avg_pool_3x3~1|+|max_pool_3x3~0|+|max_pool_3x3~1|+|conv_7x1_1x7~0|+|sep_conv_3x3~5|"
)
PNASNET_5 = (  # Liu et al. 2018, figure 1
    "|sep_conv_5x5~0|+|max_pool_3x3~0|+|sep_conv_7x7~1|+|max_pool_3x3~1|+|sep_conv_5x5~1|"
    "+|sep_conv_3x3~1|+|sep_conv_3x3~4|+|max_pool_3x3~1|+|sep_conv_3x3~0|+|skip_connect~1|"
)


@SPACES.register("nasnet", network={"channels": 32, "cells": 20}, small={"channels": 4, "cells": 3})
def nasnet(
    *,
    operations: str | tuple[str, ...] = "nasnet",
    skeleton: Skeleton = "original",
    channels: Count = 16,
    cells: Count = 8,
    blocks: Count = 5,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
    stem: Stem = "cifar",
    stem_channels: Count = 32,
    auxiliary: bool = False,
    ends: tuple[tuple[int, ...], tuple[int, ...]] = ((), ()),
    skip: bool = False,
    padding: Literal["same", "shifted"] = "same",
) -> SearchSpace:
    """NASNet: a normal and a reduction cell of 5 blocks, 13 operations (Zoph et al. 2018)

    Args:
        operations: the name of a set, or the operations one by one.
        skeleton: ``original``, or ``darts`` to compare with cells that were searched there.
        channels: of the first cells; they double at each of the two reduction cells.
        cells: in all, but for the two of an ImageNet stem; the reduction cells stand at one third and two
            thirds. NASNet-A 6 @ 4032 has 20 of them, 4 @ 1056 has 14.
        blocks: of a cell.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
        stem: ``cifar``, one convolution; ``imagenet``, one of stride 2 and two reduction cells (on the
            skeleton of DARTS, three convolutions of stride 2).
        stem_channels: of the convolution in front of those two reduction cells.
        auxiliary: a second classifier at two thirds of the depth, used in training.
        ends: states that the output of a normal and of a reduction cell takes although blocks read them: 0
            is the older input, 2 the first block. The published networks have ((0,), (3,)).
        skip: the cell behind a reduction reads what the reduction read as its older state (6 @ 4032).
        padding: ``shifted`` lets strides on even sizes fall where TensorFlow has them, in the way in which
            the PyTorch versions of the published networks compute it: for a little more effort.
    """
    if skeleton == "darts" and (skip or padding != "same"):
        raise ValueError("skip and padding belong to the original skeleton: leave them out on that of DARTS")
    shifted = SHIFTED if padding == "shifted" else {}
    mobile = {"channels": 44, "cells": 14, "stem": "imagenet", "classes": 1000, "input": (3, 224, 224)}
    made = Blocks(blocks, chosen(operations), ends=ends, widening=WIDENING, shifted=shifted)
    scale = Scale(channels, cells, classes, stem, auxiliary, stem_channels, skip)
    return block_space(
        made,
        SKELETONS[skeleton](Builder(input), made.cell, scale),
        {"NASNet-A": NASNET_A},
        {"NASNet-A": {**mobile, "ends": ((0,), (3,)), "padding": "shifted"}},
    )


@SPACES.register("amoebanet", network={"channels": 36, "cells": 20}, small={"channels": 4, "cells": 3})
def amoebanet(
    *,
    operations: str | tuple[str, ...] = "amoebanet",
    skeleton: Skeleton = "original",
    channels: Count = 16,
    cells: Count = 8,
    blocks: Count = 5,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
    stem: Stem = "cifar",
    stem_channels: Count = 32,
    auxiliary: bool = False,
) -> SearchSpace:
    """AmoebaNet: cells as in NASNet, with 8 operations (Real et al. 2019)

    The arguments are those of `nasnet`.
    """
    made = Blocks(blocks, chosen(operations), widening=WIDENING)
    scale = Scale(channels, cells, classes, stem, auxiliary, stem_channels)
    return block_space(
        made,
        SKELETONS[skeleton](Builder(input), made.cell, scale),
        {"AmoebaNet-A": AMOEBANET_A},
        {"AmoebaNet-A": {"skeleton": "darts"}},
    )


@SPACES.register("pnas", network={"channels": 48, "cells": 11}, small={"channels": 4, "cells": 3})
def pnas(
    *,
    operations: str | tuple[str, ...] = "pnas",
    skeleton: Skeleton = "original",
    channels: Count = 16,
    cells: Count = 8,
    blocks: Count = 5,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
    stem: Stem = "cifar",
    stem_channels: Count = 32,
    auxiliary: bool = False,
) -> SearchSpace:
    """PNAS: one cell of 5 blocks for both sizes, 8 operations, all blocks in its output (Liu et al. 2018)

    The arguments are those of `nasnet`.
    """
    large = {"channels": 216, "cells": 12, "stem": "imagenet", "stem_channels": 96}
    made = Blocks(blocks, chosen(operations), widening=WIDENING, kinds=("cell", "cell"), closed=True)
    scale = Scale(channels, cells, classes, stem, auxiliary, stem_channels)
    return block_space(
        made,
        SKELETONS[skeleton](Builder(input), made.cell, scale),
        {"PNASNet-5": PNASNET_5},
        {"PNASNet-5": {**large, "classes": 1000, "input": (3, 331, 331)}},
    )


def block_space(
    blocks: Blocks,
    graph: Graph,
    known: Mapping[str, str],
    known_scale: Mapping[str, Mapping[str, Any]],
    read: Reader | None = None,
) -> SearchSpace:
    """The space of such cells, with those known points that it holds. `read`: a notation beside genotypes."""
    held = {name: literal for name, literal in known.items() if blocks.holds(literal)}
    either = partial(_read, blocks=blocks, other=read)
    return SearchSpace(blocks.decisions(), graph, known=held, known_scale=known_scale, read=either)


def _read(text: str, blocks: Blocks, other: Reader | None) -> Choices | None:
    found = blocks.genotype(text)
    return other(text) if found is None and other else found
