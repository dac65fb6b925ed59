"""The two spaces of ENAS (Pham et al., ICML 2018): cells of five nodes, and whole networks of layers with
skip connections.

The cells released with the paper, with 36 channels and 17 cells, have 3,894,372 parameters.

In the original code the weights that read a concatenation are picked row by row from a larger matrix, as the
wiring has it, and those of an operation by the state that it reads. A supernet does the same here: an
operation has weights for each state that it may read, and what reads a concatenation has columns for all that
may be in it. A path takes those of the members that are there; in a mixture absent members are zero.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from nas.graph import Builder, Hole, Shape, Value
from nas.search_space.decision import Decision
from nas.search_space.nasnet import Blocks, Skeleton, block_space
from nas.search_space.operations import OPERATIONS
from nas.search_space.operations import operations as chosen
from nas.search_space.skeleton import Scale, darts_skeleton, enas_skeleton
from nas.search_space.space import SPACES, Choices, Count, SearchSpace

# --- cells --------------------------------------------------------------------------------------------------

CELLS = {
    # melodyguan/enas scripts/cifar10_micro_final.sh
    "ENAS": "|avg_pool_3x3~0|+|sep_conv_3x3~0|+|skip_connect~0|+|sep_conv_5x5~0|+|skip_connect~0|"
    "+|sep_conv_5x5~1|+|sep_conv_3x3~1|+|sep_conv_5x5~0|+|avg_pool_3x3~0|+|sep_conv_5x5~1|"
    "+|sep_conv_3x3~1|+|sep_conv_3x3~1|+|max_pool_3x3~0|+|avg_pool_3x3~0|+|sep_conv_5x5~1|"
    "+|sep_conv_5x5~3|+|sep_conv_3x3~1|+|skip_connect~0|+|max_pool_3x3~0|+|sep_conv_5x5~1|",
    # the cells of the paper's figure, as public lists of genotypes have them for the skeleton of DARTS
    "ENAS_paper_fig": "|sep_conv_3x3~1|+|skip_connect~1|+|sep_conv_5x5~1|+|skip_connect~0|+|avg_pool_3x3~0|"
    "+|sep_conv_3x3~1|+|sep_conv_3x3~0|+|avg_pool_3x3~1|+|sep_conv_5x5~1|+|avg_pool_3x3~0|"
    "+|sep_conv_5x5~0|+|avg_pool_3x3~1|+|sep_conv_3x3~1|+|avg_pool_3x3~1|+|sep_conv_3x3~1|"
    "+|avg_pool_3x3~1|+|sep_conv_5x5~4|+|avg_pool_3x3~1|+|sep_conv_3x3~5|+|sep_conv_5x5~0|",
}


@SPACES.register("enas_micro", network={"channels": 36, "cells": 17}, small={"channels": 4, "cells": 3})
def enas_micro(
    *,
    operations: str | tuple[str, ...] = "enas",
    skeleton: Skeleton = "original",
    channels: Count = 20,
    cells: Count = 8,
    blocks: Count = 5,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
    auxiliary: bool = False,
) -> SearchSpace:
    """ENAS, micro: a normal and a reduction cell of 5 nodes, 5 operations (Pham et al. 2018)

    On the original skeleton the newer input of a cell goes through a second 1x1 convolution, and classifiers
    have no bias. There an input that happens to have the cell's width skips the first one; here none does.

    Args:
        operations: the name of a set, or the operations one by one.
        skeleton: ``original``, or ``darts``, on which the cells of the paper's figure are often evaluated.
        channels: of the first cells; they double at each of the two reduction cells.
        cells: in all: the original code's number of layers and two reduction cells.
        blocks: nodes of a cell, each the sum of two operations.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
        auxiliary: a second classifier behind two thirds of the depth, used in training.
    """
    own = skeleton == "original"
    made = Blocks(blocks, chosen(operations), base="conv_1x1" if own else "")
    build = enas_skeleton if own else darts_skeleton
    graph = build(Builder(input), made.cell, Scale(channels, cells, classes, auxiliary=auxiliary))
    figure = {"skeleton": "darts", "cells": 20}
    return block_space(made, graph, CELLS, {"ENAS_paper_fig": figure}, read=partial(cell_arc, blocks=made))


def cell_arc(text: str, blocks: Blocks) -> Choices | None:
    """Choices from the notation of the ENAS code, ``x_id x_op y_id y_op ... | ...``: for each node of the
    normal and of the reduction cell a state and an operation, twice; None for another text.

    Raises ValueError if there are not as many numbers as the cells need.
    """
    numbers = _numbers(text)
    if numbers is None:
        return None
    size = 4 * blocks.count
    if len(numbers) != 2 * size:
        raise ValueError(f"two cells of {blocks.count} nodes are {2 * size} numbers, got {len(numbers)}")
    choices: dict[str, Value] = {}
    for place, kind in enumerate(blocks.kinds):
        cell = numbers[place * size : (place + 1) * size]
        ops = [_option(OPERATIONS["enas"], number) for number in cell[1::2]]
        choices |= blocks.halves(kind, list(zip(ops, cell[::2], strict=True)))
    return choices


def _numbers(text: str) -> list[int] | None:
    return [int(number) for number in re.findall(r"\d+", text)] if re.fullmatch(r"[\d\s|]+", text) else None


def _option(options: Sequence[str], number: int) -> str:
    if number >= len(options):
        raise ValueError(f"operation {number} is not one of 0 to {len(options) - 1}: {', '.join(options)}")
    return options[number]


# --- networks -----------------------------------------------------------------------------------------------

LAYER = (  # in the order in which the original code counts them
    "conv_3x3", "separable_conv_3x3", "conv_5x5", "separable_conv_5x5", "avg_pool_3x3", "max_pool_3x3",
)  # fmt: skip
# melodyguan/enas scripts/cifar10_macro_final.sh: of each layer the operation, then its skip bits
RELEASED = (
    "0", "30", "010", "2001", "20000", "311010", "2000001", "20110111", "101110101", "0000000000",
    "20000010000", "010011000011", "2010000010110", "10010001110101", "011010100000100",
    "2001000000010101", "20100010011110010", "200001010100101001", "3011010000010101000",
    "30110000000001100001", "010010110001000001100", "3010110010110110100100",
    "01010100000000101001000", "011000111010001010011000",
)  # fmt: skip


@SPACES.register("enas_macro", network={"channels": 96}, small={"channels": 4})
def enas_macro(
    *,
    layers: Count = 12,
    channels: Count = 36,
    doubling: bool = True,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
) -> SearchSpace:
    """ENAS, macro: 12 layers, each one of 6 operations, with skip connections (Pham et al. 2018)

    A layer applies a 1x1 convolution and its operation to what the layer before gives; this and the states
    that its skip bits pick are concatenated and go through a 1x1 convolution. Behind one third and two thirds
    of the layers a factorised reduction halves each state that is read later.

    In the original code every operation has a 1x1 convolution of its own, and the final networks put plain
    convolutions in the place of separable ones.

    Args:
        layers: of the network. The released one has 24: ``enas_macro?layers=24:ENAS``.
        channels: of the first layers.
        doubling: whether the two reductions double the channels, as in final networks; the original search
            keeps them.
        classes: outputs of the classifier, which has no bias.
        input: (channels, height, width) of one image.
    """
    if layers < 3:
        raise ValueError(f"the two reductions stand behind layers: there must be at least 3, not {layers}")
    b, width = Builder(input), channels
    states = [b("stem", "conv_bn_3x3", "input", out=width)]  # what the next layer may read
    for layer in range(layers):
        states.append(_layer(b, layer, states, width))
        if layer + 1 in (layers // 3, 2 * (layers // 3)):
            width *= 2 if doubling else 1
            states = [
                b(f"reductions.{layer}.state{i}", "linear_preprocess", state, out=width, stride=2)
                for i, state in enumerate(states)
            ]
    b("classifier", "linear", b("pool", "global_avg_pool", states[-1]), out=classes, bias=False)
    arcs = {"plain": _alike(layers, skip=0), "dense": _alike(layers, skip=1)}
    if layers == len(RELEASED):
        arcs["ENAS"] = " ".join("".join(RELEASED))
    read = partial(network_arc, layers=layers)
    decisions = tuple(decision for layer in range(layers) for decision in _decisions(layer))
    known = {name: _literal(read(arc)) for name, arc in arcs.items()}
    return SearchSpace(decisions, b.graph(), known=known, read=read)


def _decisions(layer: int) -> list[Decision]:
    """The operation of a layer, and a bit for each earlier state but the last, which it reads in any case."""
    skips = [Decision(f"skip{layer}", (0, 1), rows=layer, keep=layer)] if layer else []
    return [Decision(f"op{layer}", LAYER), *skips]


def _layer(b: Builder, layer: int, states: Sequence[str], width: int) -> str:
    """A layer that reads the last of `states` and, where its skip bits say so, the others."""
    name = f"layers.{layer}"
    squeezed = b(f"{name}.squeeze", "conv_1x1", states[-1], out=width)
    output = b(f"{name}.op", Hole(f"op{layer}"), squeezed, out=width)
    if not layer:
        return output
    skips = [
        b(f"{name}.skip{i}", "identity", state, when=Hole(f"skip{layer}", i, 1))
        for i, state in enumerate(states[:-1])
    ]
    # Nothing else reads the skips: loose, so that a path takes the columns of those that are there.
    joined = b(f"{name}.join", "concat", *skips, output, loose=True)
    return b(f"{name}.out", "conv_1x1", joined, out=width)


def network_arc(text: str, layers: int) -> Choices | None:
    """Choices from the notation of the ENAS code: for each layer its operation and then its skip bits, with
    spaces between all numbers; None for another text.

    Raises ValueError if there are not as many numbers as the layers need.
    """
    numbers = _numbers(text)
    if numbers is None:
        return None
    wanted = layers * (layers + 1) // 2
    if len(numbers) != wanted:
        raise ValueError(
            f"{layers} layers, with a bit for each earlier one, are {wanted} numbers, got {len(numbers)}"
        )
    choices: dict[str, Value] = {}
    for layer in range(layers):
        op, *bits = numbers[layer * (layer + 1) // 2 : (layer + 1) * (layer + 2) // 2]
        choices[f"op{layer}"] = ((0, _option(LAYER, op)),)
        if bits:
            choices[f"skip{layer}"] = tuple(enumerate(bits))
    return choices


def _alike(layers: int, *, skip: int) -> str:
    """The arc of a network of 3x3 convolutions with no skip connection, or with all."""
    return " ".join(" ".join(["0", *[str(skip)] * layer]) for layer in range(layers))


def _literal(choices: Choices | None) -> str:
    assert choices is not None
    groups = ("|".join(f"{option}~{row}" for row, option in value) for value in choices.values())
    return "+".join(f"|{group}|" for group in groups)
