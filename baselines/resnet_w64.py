"""Residual networks of the widths of ImageNet for small images: a 3x3 stem without stride, no pooling.

As in kuangliu/pytorch-cifar: ResNet-18 has 11,173,962 parameters and 555,422,720 multiply-adds for 3x32x32;
with the activation before the convolutions 11,171,146.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.residual import basic_block, bottleneck_block

from .family import baseline
from .resnet import EXPANSION, WIDTHS, Block, ResNet, depth_of, residual, stages


@baseline(small={"depth": 18, "widths": (8, 16, 32, 64), "input": (3, 32, 32)})
def resnet_cifar_w64(
    *,
    depth: int = 18,
    preact: bool = False,
    block: Block | None = None,
    widths: Sequence[int] = WIDTHS,
    layers: Sequence[int] | None = None,
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """The residual network of `depth` layers, 18 to 152, for small images; shortcuts of option B.

    preact: norm and activation before the convolutions (He et al. 2016b). That code has then no norm behind
        the stem, and none behind the last sum either, which the paper has. block, layers: as in `resnet`.
        widths: of the four stages, before a bottleneck's expansion by 4; the first one is the stem's.
    Only the channels of `input` shape the network. Raises ValueError as `resnet` does, and for another
    number of widths.
    """
    counts, block = depth_of(depth, layers, block=block)
    if len(widths) != len(counts):
        raise ValueError(f"there are {len(counts)} stages, so not widths {list(widths)}")
    first = widths[0]
    outs = [width * EXPANSION[block] for width in widths]
    if preact:
        stem: nn.Module = nn.Conv2d(input[0], first, 3, padding=1, bias=False)
        make = partial(basic_block if block == "basic" else bottleneck_block, preact=True)
    else:
        stem = conv_bn(input[0], first, act="relu")
        make = partial(residual, block=block, shortcut="B")
    return ResNet(stem, stages(first, outs, counts, make), width=outs[-1], classes=classes)
