"""A search space of one's own in one file, with a primitive of its own.

    nas search --space examples/my_space.py:layers --data digits --strategy random --budget 3trials

A stem, two stages of layers, global pooling, a classifier. Each layer picks one of five operations, and
whether its input is added to its output.
"""

from __future__ import annotations

from torch import nn

from nas.graph import Builder, Hole, Shape
from nas.primitives import Tally, primitive
from nas.search_space import Decision, SearchSpace

OPERATIONS = ("skip_connect", "max_pool_3x3", "conv_3x3", "sep_conv_3x3", "bottleneck")


def _bottleneck(t: Tally, c: int, stride: int, affine: bool) -> Tally:
    inner = max(1, t.c // 2)
    return t.conv(inner).norm(affine).conv(inner, 3, stride).norm(affine).conv(c).norm(affine)


@primitive("bottleneck", cost=_bottleneck)
def bottleneck(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """1x1 to half the channels, 3x3, 1x1: ReLU before each, batch norm after each (after He et al. 2016)"""
    inner = max(1, c_in // 2)
    parts: list[nn.Module] = []
    sizes = ((c_in, inner, 1, 1), (inner, inner, 3, stride), (inner, c_out, 1, 1))
    for source, target, kernel, step in sizes:
        convolution = nn.Conv2d(source, target, kernel, step, kernel // 2, bias=False)
        parts += [nn.ReLU(), convolution, nn.BatchNorm2d(target, affine=affine)]
    return nn.Sequential(*parts)


def layers(
    *, channels: int = 8, depth: int = 2, classes: int = 10, input: Shape = (3, 32, 32)
) -> SearchSpace:
    """Two stages of layers, each with one of five operations and an optional shortcut

    Args:
        channels: of the first stage; the second has twice as many.
        depth: layers in each stage.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
    """
    decisions = []
    b = Builder(input)
    x = b("stem", "conv_bn_3x3", "input", out=channels)
    for stage in range(2):
        width = channels * 2**stage
        if stage:
            x = b("reduction", "preprocess", x, out=width, stride=2)
        for layer in range(depth):
            name = f"{stage}.{layer}"
            decisions += [Decision(f"op.{name}", OPERATIONS), Decision(f"add.{name}", ("no", "yes"))]
            y = b(f"layers.{name}.op", Hole(f"op.{name}"), x, out=width)
            shortcut = b(f"layers.{name}.shortcut", "identity", x, when=Hole(f"add.{name}", option="yes"))
            x = b(f"layers.{name}.sum", "sum", y, shortcut)
    x = b("last", "bn_relu", x)
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes)
    return SearchSpace(tuple(decisions), b.graph(), supernet={"affine": False, "pool_norm": True})
