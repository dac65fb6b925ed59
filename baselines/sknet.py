"""SKNet: residual networks that choose how far every channel sees (Li, Wang, Hu, Yang, CVPR 2019).

SKNet-50 has 27,479,784 parameters and 4,462,710,784 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.gates import SelectiveKernel

from .family import baseline
from .resnet import WIDTHS, Residual, ResNet, depth_of, imagenet_stem, projection, stages


def selective_block(
    c_in: int, c_out: int, stride: int, *, paths: int, groups: int, reduction: int, least: int
) -> nn.Module:
    """1x1, selective kernel, 1x1 (table 1): (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride),
    ceil(w / stride)).
    """
    inner = c_out // 2
    width = max(inner // reduction, least)
    branch = [
        conv_bn(c_in, inner, kernel=1, act="relu"),
        SelectiveKernel(inner, inner, stride, True, paths=paths, groups=groups, width=width),
        conv_bn(inner, c_out, kernel=1),
    ]
    return Residual(branch, projection(c_in, c_out, stride))


@baseline(small={"depth": 14, "classes": 10, "input": (3, 64, 64)})
def sknet(
    *,
    depth: int = 50,
    M: int = 2,
    G: int = 32,
    r: int = 16,
    L: int = 32,
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """SKNet of `depth` layers for ImageNet: 26, 50 or 101 in the paper.

    M: paths of a selective kernel; path m is a 3x3 convolution of dilation m. G: their groups. r, L: the
        descriptor that chooses has channels / r channels, but at least L (equation 4). layers: as in
        `resnet`.
    In training it needs two examples a batch, for the norm of the descriptor. Only the channels of `input`
    shape the network. Raises ValueError for a depth without published stages, for layers that do not add up
    to it, for numbers below 1, and for groups that do not divide the channels.
    """
    counts, _ = depth_of(depth, layers, block="bottleneck")
    if min(M, G, r, L) < 1:
        raise ValueError(f"M, G, r and L are numbers of things: at least 1, not {M}, {G}, {r} and {L}")
    if 2 * WIDTHS[0] % G:
        raise ValueError(f"G is a number of groups that divides the {2 * WIDTHS[0]} channels, not {G}")
    outs = [4 * each for each in WIDTHS]
    make = partial(selective_block, paths=M, groups=G, reduction=r, least=L)
    blocks = stages(WIDTHS[0], outs, counts, make)
    return ResNet(imagenet_stem(input[0], WIDTHS[0]), blocks, width=outs[-1], classes=classes)
