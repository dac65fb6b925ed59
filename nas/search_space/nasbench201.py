"""NAS-Bench-201 (Dong & Yang, ICLR 2020): 15,625 cells of four nodes and five operations.

The same space is NATS-Bench's topology space. With 16 channels and 5 cells a stage, the best cell on CIFAR-10
has 1,288,506 parameters and 184,730,240 multiply-adds.
"""

from __future__ import annotations

from nas.graph import Builder, Hole, Shape
from nas.search_space.architecture import Architecture
from nas.search_space.decision import Decision
from nas.search_space.space import SPACES, Count, SearchSpace

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NODES = 4

KNOWN = {
    "ResNet": "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|",
    "all-3x3": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "all-1x1": "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_1x1~2|",
    "all-skip": "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|",
    "best": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
}


@SPACES.register("nasbench201", small={"channels": 4, "cells": 1})
def nasbench201(
    *, channels: Count = 16, cells: Count = 5, classes: Count = 10, input: Shape = (3, 32, 32)
) -> SearchSpace:
    """NAS-Bench-201: a cell of 4 nodes, 6 edges, 5 operations; 15,625 architectures (Dong & Yang 2020)

    Args:
        channels: of the first of three stages; they double twice.
        cells: in each stage.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
    """
    decisions = tuple(Decision(f"node{j}", OPERATIONS, rows=j, keep=j) for j in range(1, NODES))
    b = Builder(input)
    x = b("stem", "conv_bn_3x3", "input", out=channels, affine=True)
    index = 0
    for stage in range(3):
        width = channels * 2**stage
        if stage:
            x = reduction(b, f"reductions.{stage - 1}", x, width)
        for _ in range(cells):
            x = _cell(b, f"cells.{index}", x, width)
            index += 1
    x = b("last", "bn_relu", x, affine=True)
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes)
    return SearchSpace(
        decisions, b.graph(keep_dead=True), known=KNOWN, supernet={"affine": False, "pool_norm": False}
    )


def unique_string(architecture: Architecture) -> str:
    """The benchmark's own rule on strings for equal cells (its API's `to_unique_str` with zeros): 6,466 classes.

    It neither refines nor coarsens `Graph.digest`: some of its classes hold cells that compute different
    things, and some equal computations lie in several. For tables alone; results are never replayed by it.
    """
    values = ["0"]
    for j in range(1, NODES):
        terms = []
        for i, op in architecture.choices[f"node{j}"]:
            if op == "none" or values[i] == "#":
                terms.append("#")
            else:
                terms.append(values[i] if op == "skip_connect" else f"({values[i]})@{op}")
        values.append("+".join(sorted(terms)))
    return values[-1]


def _cell(b: Builder, name: str, x: str, width: int) -> str:
    # Every state starts from zero, so that a node whose edges are all `none` is zero and not absent: the benchmark
    # runs, and counts, the convolutions that follow it.
    states = [x]
    zero = b(f"{name}.zero", "zero", x)
    for j in range(1, NODES):
        edges = [
            b(f"{name}.edge{i}_{j}", Hole(f"node{j}", i), state, out=width) for i, state in enumerate(states)
        ]
        states.append(b(f"{name}.node{j}", "sum", zero, *edges))
    return states[-1]


def reduction(b: Builder, name: str, x: str, width: int | Hole) -> str:
    """A residual block of stride 2 (He et al. 2016) between the stages."""
    y = b(f"{name}.conv_a", "conv_3x3", x, out=width, stride=2, affine=True)
    y = b(f"{name}.conv_b", "conv_3x3", y, out=width, affine=True)
    pooled = b(f"{name}.pool", "avg_pool_2x2", x, stride=2)
    shortcut = b(f"{name}.shortcut", "linear_conv_1x1", pooled, out=width)
    return b(f"{name}.sum", "sum", y, shortcut)
