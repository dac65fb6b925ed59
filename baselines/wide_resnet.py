"""Wide residual networks (Zagoruyko & Komodakis, BMVC 2016).

For small images: WRN-28-10 has 36,479,194 parameters and 5,243,328,768 multiply-adds. For ImageNet:
WRN-50-2-bottleneck has 68,883,240 parameters and 11,398,021,120 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from nas.primitives.head import bn_relu
from nas.primitives.residual import basic_block, bottleneck_block

from .family import baseline
from .resnet import (
    WIDTHS,
    Block,
    ResNet,
    StrideIn,
    depth_of,
    imagenet_stem,
    residual,
    stages,
)

CIFAR_WIDTHS = (16, 32, 64)


@baseline(small={"depth": 10, "k": 1, "dropout": 0.3, "input": (3, 16, 16)})
def wrn_cifar(
    *,
    depth: int = 28,
    k: int = 10,
    dropout: float = 0.0,
    widths: Sequence[int] = CIFAR_WIDTHS,
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """WRN-`depth`-`k` (table 1): stages of basic blocks, norm and activation first.

    depth: 6n + 4 for three stages, the convolutions of the shortcuts among them. k: multiplies the widths of
        the stages; the stem has the first of `widths`. dropout: between a block's two convolutions; where the
        paper has it, 0.3 for CIFAR and 0.4 for SVHN.
    Only the channels of `input` shape the network. Raises ValueError for a depth that does not exist, for k
    below 1, and for a dropout outside [0, 1).
    """
    period = 2 * len(widths)
    extra = len(widths) + 1
    if depth < period + extra or (depth - extra) % period:
        nearest = max(period + extra, round((depth - extra) / period) * period + extra)
        raise ValueError(f"depth must be {period}n + {extra}, not {depth}; the nearest is {nearest}")
    if k < 1:
        raise ValueError(f"k multiplies the widths: at least 1, not {k}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is the probability of zero, in [0, 1), not {dropout}")
    outs = [width * k for width in widths]
    count = (depth - extra) // period
    stem = nn.Conv2d(input[0], widths[0], 3, padding=1, bias=False)
    blocks = stages(widths[0], outs, [count] * len(outs), partial(basic_block, preact=True, dropout=dropout))
    return ResNet(stem, [*blocks, bn_relu(outs[-1], outs[-1])], width=outs[-1], classes=classes)


@baseline(small={"depth": 14, "k": 1.5, "block": "basic", "classes": 10, "input": (3, 64, 64)})
def wrn_imagenet(
    *,
    depth: int = 50,
    k: float = 2,
    block: Block | None = None,
    stride_in: StrideIn = "3x3",
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """WRN-`depth`-`k` for ImageNet (section 3.4): the residual network of He et al. 2016, wider.

    Of 18 and 34 layers, k multiplies the channels of all blocks; of 50 and more, those inside the bottlenecks
    alone (WRN-50-2-bottleneck). The stem keeps its 64. block, stride_in, layers: as in `resnet`.
    Only the channels of `input` shape the network. Raises ValueError as `resnet` does, and for k not above 0.
    """
    counts, block = depth_of(depth, layers, block=block, stride_in=stride_in)
    if k * WIDTHS[0] < 1:
        raise ValueError(f"k multiplies the widths: {k} leaves no channel of {WIDTHS[0]}")
    if block == "basic":
        outs, make = [int(each * k) for each in WIDTHS], partial(residual, block=block, shortcut="B")
    else:
        outs = [4 * each for each in WIDTHS]
        make = partial(bottleneck_block, expansion=k / 4, stride_in=stride_in)
    blocks = stages(WIDTHS[0], outs, counts, make)
    return ResNet(imagenet_stem(input[0], WIDTHS[0]), blocks, width=outs[-1], classes=classes)
