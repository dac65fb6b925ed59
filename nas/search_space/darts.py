"""The DARTS space (Liu, Simonyan, Yang, ICLR 2019): a normal and a reduction cell of four nodes, eight
operations.

A node keeps two of the states before it, with one operation on each. The supernet with 16 channels and 8
cells has 1,930,618 weights and 224 alphas; the published cell DARTS_V2 with 36 channels and 20 cells has
3,349,342 parameters.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Literal

from nas.graph import Builder, Hole, Shape, Value
from nas.search_space.decision import Decision
from nas.search_space.skeleton import Place, Scale, darts_skeleton
from nas.search_space.space import SPACES, Count, SearchSpace

OPERATIONS = (
    "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip
NODES = 4
KINDS = ("normal", "reduce")

KNOWN = {
    # Liu et al. 2019, first and second order; quark0/darts
    "DARTS_V1": "|sep_conv_3x3~0|sep_conv_3x3~1|+|skip_connect~0|sep_conv_3x3~1|+|skip_connect~0|sep_conv_3x3~1|"
    "+|sep_conv_3x3~0|skip_connect~2|+|max_pool_3x3~0|max_pool_3x3~1|+|max_pool_3x3~0|skip_connect~2|"
    "+|max_pool_3x3~0|skip_connect~2|+|avg_pool_3x3~0|skip_connect~2|",
    "DARTS_V2": "|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|sep_conv_3x3~1|+|skip_connect~0|sep_conv_3x3~1|"
    "+|skip_connect~0|dil_conv_3x3~2|+|max_pool_3x3~0|max_pool_3x3~1|+|max_pool_3x3~1|skip_connect~2|"
    "+|max_pool_3x3~0|skip_connect~2|+|max_pool_3x3~1|skip_connect~2|",
    # Xu et al. 2020, PC-DARTS, searched on CIFAR-10 and on ImageNet
    "PC_DARTS_cifar": "|skip_connect~0|sep_conv_3x3~1|+|sep_conv_3x3~0|dil_conv_3x3~1|+|sep_conv_5x5~0|sep_conv_3x3~1|"
    "+|avg_pool_3x3~0|dil_conv_3x3~1|+|max_pool_3x3~0|sep_conv_5x5~1|+|sep_conv_5x5~1|sep_conv_5x5~2|"
    "+|sep_conv_3x3~0|sep_conv_3x3~3|+|sep_conv_3x3~1|sep_conv_3x3~2|",
    "PC_DARTS_image": "|sep_conv_3x3~0|skip_connect~1|+|sep_conv_3x3~0|skip_connect~1|+|sep_conv_3x3~1|sep_conv_3x3~3|"
    "+|sep_conv_3x3~1|dil_conv_5x5~4|+|sep_conv_3x3~0|skip_connect~1|+|max_pool_3x3~1|dil_conv_5x5~2|"
    "+|sep_conv_3x3~1|sep_conv_3x3~2|+|sep_conv_5x5~0|sep_conv_3x3~3|",
    # Chen et al. 2019, P-DARTS on CIFAR-10
    "PDARTS": "|skip_connect~0|dil_conv_3x3~1|+|skip_connect~0|sep_conv_3x3~1|+|sep_conv_3x3~1|sep_conv_3x3~3|"
    "+|sep_conv_3x3~0|dil_conv_5x5~4|+|avg_pool_3x3~0|sep_conv_5x5~1|+|sep_conv_3x3~0|dil_conv_5x5~2|"
    "+|max_pool_3x3~0|dil_conv_3x3~1|+|dil_conv_3x3~1|dil_conv_5x5~3|",
    # Dong & Yang 2019
    "GDAS_V1": "|skip_connect~0|skip_connect~1|+|skip_connect~0|sep_conv_5x5~2|+|skip_connect~0|sep_conv_3x3~3|"
    "+|sep_conv_3x3~3|sep_conv_5x5~4|+|sep_conv_5x5~0|sep_conv_3x3~1|+|sep_conv_5x5~1|sep_conv_5x5~2|"
    "+|sep_conv_3x3~1|dil_conv_5x5~2|+|sep_conv_5x5~0|sep_conv_5x5~2|",
    # Xie et al. 2019, with the mild constraint
    "SNAS_mild": "|sep_conv_3x3~0|sep_conv_3x3~1|+|skip_connect~0|dil_conv_3x3~1|+|skip_connect~0|skip_connect~1|"
    "+|skip_connect~0|sep_conv_3x3~1|+|max_pool_3x3~0|max_pool_3x3~1|+|max_pool_3x3~1|skip_connect~2|"
    "+|max_pool_3x3~1|skip_connect~2|+|max_pool_3x3~0|dil_conv_5x5~2|",
    # Zheng et al. 2019
    "MdeNAS": "|sep_conv_3x3~0|sep_conv_5x5~1|+|skip_connect~0|sep_conv_5x5~1|+|sep_conv_3x3~1|sep_conv_5x5~3|"
    "+|dil_conv_5x5~3|max_pool_3x3~4|+|max_pool_3x3~0|sep_conv_5x5~1|+|skip_connect~0|skip_connect~1|"
    "+|skip_connect~2|sep_conv_3x3~3|+|sep_conv_5x5~0|dil_conv_3x3~3|",
}


@SPACES.register("darts", network={"channels": 36, "cells": 20}, small={"channels": 4, "cells": 3})
def darts(
    *,
    channels: Count = 16,
    cells: Count = 8,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
    stem: Literal["cifar", "imagenet"] = "cifar",
    auxiliary: bool = False,
) -> SearchSpace:
    """DARTS: a normal and a reduction cell of 4 nodes, 7 operations and `none` (Liu et al. 2019)

    Args:
        channels: of the first cells; they double at each of the two reduction cells.
        cells: in all; the reduction cells stand at one third and two thirds.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
        stem: ``cifar``, one convolution; ``imagenet``, three of stride 2.
        auxiliary: a second classifier at two thirds of the depth, used in training.
    """
    decisions = tuple(
        Decision(f"{kind}.{j}", OPERATIONS, rows=2 + j, keep=2, never=("none",))
        for kind in KINDS
        for j in range(NODES)
    )
    graph = darts_skeleton(Builder(input), _cell, Scale(channels, cells, classes, stem, auxiliary))
    return SearchSpace(
        decisions,
        graph,
        known=KNOWN,
        supernet={"affine": False, "pool_norm": True},
        read=genotype,
    )


def _cell(b: Builder, place: Place) -> str:
    name, width = place.name, place.width
    kind = KINDS[place.reduce]
    states = [
        b(f"{name}.pre0", "preprocess", place.before, out=width, stride=2 if place.shrunk else 1),
        b(f"{name}.pre1", "preprocess", place.last, out=width),
    ]
    for j in range(NODES):
        edges = [
            b(
                f"{name}.edge{i}_{j + 2}",
                Hole(f"{kind}.{j}", i),
                state,
                out=width,
                stride=2 if place.reduce and i < 2 else 1,
            )
            for i, state in enumerate(states)
        ]
        states.append(b(f"{name}.node{j + 2}", "sum", *edges))
    return b(f"{name}.out", "concat", *states[2:])


def genotype(text: str) -> Mapping[str, Value] | None:
    """Choices from the notation of the DARTS code: ``Genotype(normal=[(op, input), ...], normal_concat=...,
    ...)``.

    Raises ValueError for a genotype that is no point of this space (another number of nodes, another
    concatenation).
    """
    cells = notation(text)
    if cells is None:
        return None
    choices: dict[str, Value] = {}
    for kind, (pairs, joined) in cells.items():
        if len(pairs) != 2 * NODES or joined != list(range(2, 2 + NODES)):
            raise ValueError(
                f"a genotype of `darts` has {NODES} nodes a cell, all concatenated; its {kind} cell has "
                f"{len(pairs) // 2} nodes and concatenates {joined}"
            )
        for j in range(NODES):
            choices[f"{kind}.{j}"] = tuple(sorted((source, op) for op, source in pairs[2 * j : 2 * j + 2]))
    return choices


def notation(text: str) -> dict[str, tuple[list[tuple[str, int]], list[int]]] | None:
    """The cells of a ``Genotype(...)``: for each, the (operation, input) pairs and what is concatenated.

    None for another text. Raises ValueError if it is a broken one.
    """
    if not text.startswith("Genotype("):
        return None
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        fields = {keyword.arg: keyword.value for keyword in call.keywords}
        return {
            kind: (
                [(str(op), int(source)) for op, source in ast.literal_eval(fields[kind])],
                _concatenation(fields[f"{kind}_concat"]),
            )
            for kind in KINDS
        }
    except (SyntaxError, ValueError, TypeError, KeyError, AssertionError) as error:
        raise ValueError(f"not a genotype: {text[:80]!r} ({error})") from error


def _concatenation(node: ast.expr) -> list[int]:
    if isinstance(node, ast.Call):  # range(2, 6)
        return list(range(*(ast.literal_eval(argument) for argument in node.args)))
    return sorted(ast.literal_eval(node))
