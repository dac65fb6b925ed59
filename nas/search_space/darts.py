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
from nas.search_space.space import SPACES, SearchSpace

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
    channels: int = 16,
    cells: int = 8,
    classes: int = 10,
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
    b = Builder(input)
    before, last = _stem(b, stem, channels)
    reductions = {cells // 3, 2 * cells // 3}
    width, shrunk = channels, stem == "imagenet"
    heads: tuple[str, ...] = ()
    for index in range(cells):
        reduce = index in reductions
        width *= 2 if reduce else 1
        before, last = last, _cell(b, f"cells.{index}", before, last, width, reduce=reduce, shrunk=shrunk)
        shrunk = reduce
        if auxiliary and index == 2 * cells // 3:
            heads = (_auxiliary(b, last, classes, stem),)
    pooled = b("pool", "global_avg_pool", last)
    b("classifier", "linear", pooled, out=classes)
    return SearchSpace(
        decisions,
        b.graph(auxiliary=heads),
        known=KNOWN,
        supernet={"affine": False, "pool_norm": True},
        read=genotype,
    )


def _auxiliary(b: Builder, x: str, classes: int, stem: str) -> str:
    """The published heads: of CIFAR for 8x8 pixels; of ImageNet for 7x7, without a norm after its second
    convolution.
    """
    cifar = stem == "cifar"
    stride = 3 if cifar else 2
    return b("auxiliary", "auxiliary_head", x, out=classes, stride=stride, affine=True, second_norm=cifar)


def _stem(b: Builder, stem: str, channels: int) -> tuple[str, str]:
    """The two states that the first cell reads."""
    if stem == "cifar":
        x = b("stem", "conv_bn_3x3", "input", out=3 * channels, affine=True)
        return x, x
    x = b("stem0", "conv_bn_3x3", "input", out=channels // 2, stride=2, affine=True)
    first = b("stem1", "conv_3x3", x, out=channels, stride=2, affine=True)
    return first, b("stem2", "conv_3x3", first, out=channels, stride=2, affine=True)


def _cell(b: Builder, name: str, before: str, last: str, width: int, *, reduce: bool, shrunk: bool) -> str:
    """One cell. `shrunk`: the cell before was a reduction, so `before` is twice as large as `last`."""
    kind = "reduce" if reduce else "normal"
    states = [
        b(f"{name}.pre0", "preprocess", before, out=width, stride=2 if shrunk else 1),
        b(f"{name}.pre1", "preprocess", last, out=width),
    ]
    for j in range(NODES):
        edges = [
            b(
                f"{name}.edge{i}_{j + 2}",
                Hole(f"{kind}.{j}", i),
                s,
                out=width,
                stride=2 if reduce and i < 2 else 1,
            )
            for i, s in enumerate(states)
        ]
        states.append(b(f"{name}.node{j + 2}", "sum", *edges))
    return b(f"{name}.out", "concat", *states[2:])


def genotype(text: str) -> Mapping[str, Value] | None:
    """Choices from the notation of the DARTS code: ``Genotype(normal=[(op, input), ...], normal_concat=...,
    ...)``.

    Raises ValueError for a genotype that is no point of this space (another number of nodes, another
    concatenation).
    """
    if not text.startswith("Genotype("):
        return None
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        fields = {keyword.arg: keyword.value for keyword in call.keywords}
        pairs = {kind: ast.literal_eval(fields[kind]) for kind in KINDS}
        joined = {kind: _concatenation(fields[f"{kind}_concat"]) for kind in KINDS}
    except (SyntaxError, ValueError, KeyError, AssertionError) as error:
        raise ValueError(f"not a genotype: {text[:80]!r} ({error})") from error
    choices: dict[str, Value] = {}
    for kind in KINDS:
        if len(pairs[kind]) != 2 * NODES or joined[kind] != list(range(2, 2 + NODES)):
            raise ValueError(
                f"a genotype of `darts` has {NODES} nodes a cell, all concatenated; its {kind} cell has "
                f"{len(pairs[kind]) // 2} nodes and concatenates {joined[kind]}"
            )
        for j in range(NODES):
            inputs = sorted((int(source), str(op)) for op, source in pairs[kind][2 * j : 2 * j + 2])
            choices[f"{kind}.{j}"] = tuple(inputs)
    return choices


def _concatenation(node: ast.expr) -> list[int]:
    if isinstance(node, ast.Call):  # range(2, 6)
        return list(range(*(ast.literal_eval(argument) for argument in node.args)))
    return sorted(ast.literal_eval(node))
