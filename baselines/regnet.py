"""RegNetY: widths on a straight line, rounded to stages, with squeeze-excite (Radosavovic et al., CVPR 2020).

RegNetY-4.0GF has 20,646,656 parameters and 3,973,288,448 multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.gates import SqueezeExcite

from .family import baseline, initialise, normal, one_of
from .resnet import Residual, ResNet, projection


class Line(NamedTuple):
    """The parameters of a network: depth, first width, slope, quantum of the widths, width of a group."""

    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int


# Appendix D of the paper to 32 GF; the larger ones of Goyal et al. 2022. Names: multiply-adds in 10^8.
PUBLISHED = {
    "002": Line(13, 24, 36.44, 2.49, 8),
    "004": Line(16, 48, 27.89, 2.09, 8),
    "006": Line(15, 48, 32.54, 2.32, 16),
    "008": Line(14, 56, 38.84, 2.40, 16),
    "016": Line(27, 48, 20.71, 2.65, 24),
    "032": Line(21, 80, 42.63, 2.66, 24),
    "040": Line(22, 96, 31.41, 2.24, 64),
    "064": Line(25, 112, 33.22, 2.27, 72),
    "080": Line(17, 192, 76.82, 2.19, 56),
    "120": Line(19, 168, 73.36, 2.37, 112),
    "160": Line(18, 200, 106.23, 2.48, 112),
    "320": Line(20, 232, 115.89, 2.53, 232),
    "640": Line(20, 352, 147.48, 2.40, 328),
    "1280": Line(27, 456, 160.83, 2.52, 264),
    "2560": Line(27, 640, 230.83, 2.53, 373),
}
STEM = 32


def stages_of(line: Line, *, torchvision: bool = False) -> tuple[list[int], list[int]]:
    """Widths and depths of the stages (equations 2 to 4), the widths in whole groups.

    u_j = w_0 + w_a j is rounded to the nearest w_0 w_m^s, and that to a multiple of 8. torchvision: there,
    half a group is rounded up, and at least 0.9 of a width remain.
    """
    steps = (
        round(math.log(1 + line.w_a * place / line.w_0) / math.log(line.w_m)) for place in range(line.depth)
    )
    widths = [8 * round(line.w_0 * line.w_m**step / 8) for step in steps]
    stages = [(width, len(list(each))) for width, each in groupby(widths)]
    whole = []
    for width, _ in stages:
        group = min(line.group_width, width)
        number = math.floor(width / group + 0.5) if torchvision else round(width / group)
        whole.append(group * (number + (torchvision and group * number < 0.9 * width)))
    return whole, [depth for _, depth in stages]


def regnet_block(c_in: int, c_out: int, stride: int, *, group_width: int, se_ratio: float) -> nn.Module:
    """1x1, grouped 3x3, squeeze-excite, 1x1 convolution of equal width, and shortcut B: (batch, c_in, h, w)
    -> (batch, c_out, ceil(h / stride), ceil(w / stride)). The squeeze has `se_ratio` c_in channels.
    """
    groups = c_out // min(group_width, c_out)
    branch = [
        conv_bn(c_in, c_out, kernel=1, act="relu"),
        conv_bn(c_out, c_out, stride, groups=groups, act="relu"),
    ]
    if se_ratio:
        branch.append(SqueezeExcite(c_out, round(se_ratio * c_in)))
    return Residual([*branch, conv_bn(c_out, c_out, kernel=1)], projection(c_in, c_out, stride))


def published(
    gf: str, widths: Sequence[int] | None, depths: Sequence[int] | None, group_width: int | None
) -> tuple[Sequence[int], Sequence[int], int]:
    """What is published as `gf`; those of the others that are given must agree, with torchvision's widths as
    well. Raises ValueError if they do not, and for an unknown name.
    """
    one_of("gf", gf, PUBLISHED)
    line = PUBLISHED[gf]
    wide, deep = stages_of(line)
    others = stages_of(line, torchvision=True)[0]
    checks = [("widths", widths, (wide, others)), ("depths", depths, (deep,))]
    for name, value, right in checks:
        if value is not None and list(value) not in right:
            raise ValueError(
                f"{name} of gf {gf!r} are {right[0]}, not {list(value)}: leave out gf to change them"
            )
    if group_width not in (None, line.group_width):
        raise ValueError(f"group_width of gf {gf!r} is {line.group_width}, not {group_width}: leave out gf")
    return widths or wide, deep, line.group_width


@baseline(small={"widths": (8, 16), "depths": (1, 2), "group_width": 8, "classes": 10, "input": (3, 32, 32)})
def regnety(
    *,
    gf: str | None = None,
    widths: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    group_width: int | None = None,
    se_ratio: float = 0.25,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """RegNetY: a published one by its multiply-adds `gf` (``040``: 4.0 GF, the default), or any other by
    `widths` and `depths` of its stages, which all halve the size, and `group_width`, the channels in a group.

    se_ratio: the squeeze-excite's channels in units of the block's input; 0: none. The others, given together
    with `gf`, must be its published ones; those of torchvision, which rounds 008 and 080 otherwise, too.
    Only the channels of `input` shape the network. Raises ValueError if they are not, for an unknown `gf`,
    and for numbers that do not fit together.
    """
    if gf is not None or (widths, depths, group_width) == (None, None, None):
        widths, depths, group_width = published(gf or "040", widths, depths, group_width)
    if widths is None or depths is None or group_width is None:
        raise ValueError("without gf, give all of widths, depths and group_width")
    if len(widths) != len(depths) or not depths or min(depths) < 1 or group_width < 1:
        raise ValueError(
            f"widths {list(widths)} and depths {list(depths)} are of the same stages, with a block each at "
            f"least, and group_width is at least 1, not {group_width}"
        )
    if any(width % min(group_width, width) for width in widths):
        raise ValueError(f"group_width {group_width} must divide the widths {list(widths)}")
    if not 0 <= se_ratio <= 1:
        raise ValueError(f"se_ratio is a part of the channels, in [0, 1], not {se_ratio}")
    blocks, c_in = [], STEM
    for width, depth in zip(widths, depths, strict=True):
        for place in range(depth):
            block = regnet_block(c_in, width, 1 if place else 2, group_width=group_width, se_ratio=se_ratio)
            blocks.append(block)
            c_in = width
    network = ResNet(conv_bn(input[0], STEM, 2, act="relu"), blocks, width=c_in, classes=classes)
    initialise(network, linear=normal(0.01))
    return network
