"""ShuffleNet (Zhang et al. 2018) and ShuffleNet V2 (Ma et al. 2018): channels shuffled between groups, paths.

At 224x224 pixels ShuffleNet 1x in 3 groups has 1,864,728 parameters and 137,460,672 multiply-adds (the
authors' code: 1.9 and 138 million), ShuffleNet V2 1x of the authors' code 2,278,760 and 145,814,296 (2.3 and
146 million).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.shuffle import shuffle_v1, shuffle_v2

from .family import baseline, normal, one_of
from .mobilenet_v1 import Pooled

Downsample = Literal["halves", "authors"]
UNITS = (4, 8, 4)  # a stage, in both versions
STEM = 24  # channels of the first convolution
FIRST = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # groups -> channels of the first stage (2018, table 1)
STEMS = {(3, 1.5): 24, (8, 0.5): 16, (8, 1.5): 24}  # (groups, width) -> where the authors' code has not 24x
WIDTHS = {  # multiplier -> channels of the three stages and of the last convolution (V2, table 5)
    0.25: (24, 48, 96, 512),
    0.33: (32, 64, 128, 512),
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


@baseline(small={"width": 0.25, "classes": 10, "input": (3, 64, 64)})
def shufflenet_v1(
    *,
    width: float = 1.0,
    groups: int = 3,
    head_bias: bool = False,
    stem: int | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """ShuffleNet (table 1): units of grouped convolutions, with a quarter of the channels in their middle (or
    the next number that the groups divide).

    width: multiplies the channels; the published ones are 0.25, 0.5, 1, 1.5 and 2. groups: of the 1x1
    convolutions, 1, 2, 3, 4 or 8, which also say the channels. head_bias: whether the classifier has a bias:
    not in the authors' code, but in re-implementations (pytorchcv). stem: channels of the first convolution;
    by default 24 times the width, except where the authors' code, which has no bias there, departs from that
    (24 at width 1.5; 16 for 8 groups at 0.5). Initial weights as in the authors' code (`as_released`). Only
    the channels of `input` shape the network. Raises ValueError for other groups, and for a width at which
    they do not divide the channels.
    """
    one_of("groups", groups, FIRST)
    usual = int(STEM * width)
    if stem is None:
        stem = usual if head_bias else STEMS.get((groups, width), usual)
    outs = [int(FIRST[groups] * 2**stage * width) for stage in range(len(UNITS))]
    _divisible([stem, *outs], groups, width)
    layers, c_in = _stem(input[0], stem), stem
    for stage, (c_out, units) in enumerate(zip(outs, UNITS, strict=True)):
        for unit in range(units):
            first = bool(stage or unit)  # the few channels of the stem are mixed without groups
            stride = 1 if unit else 2
            layers.append(shuffle_v1(c_in, c_out, stride, groups=groups, first_group=first))
            c_in = c_out
    return as_released(Pooled(layers, nn.Linear(c_in, classes, bias=head_bias)))


def _divisible(widths: Sequence[int], groups: int, width: float) -> None:
    """Raises ValueError unless the groups divide what every stage adds, and what it reads."""
    if min(widths) < 1:
        raise ValueError(f"width {width} and the stem must leave channels, not {list(widths)}")
    added = [wide - narrow for narrow, wide in pairwise(widths)]
    for channels in (*added, *widths[1:]):
        if channels % groups:
            raise ValueError(
                f"{groups} groups must divide the channels, not {channels} as at width {width} behind a stem "
                f"of {widths[0]}: give another width, or a stem that fits"
            )


@baseline(small={"width": 0.5, "classes": 10, "input": (3, 64, 64)})
def shufflenet_v2(
    *,
    width: float = 1.0,
    downsample: Downsample = "authors",
    head_bias: bool | None = None,
    dropout: float | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """ShuffleNet V2 (table 5): units that split the channels.

    width: 0.5, 1, 1.5 or 2 (table 5); 0.25 and 0.33 have the channels of PaddleClas. downsample: in a unit
    of stride 2 both paths give a ``halves`` of the channels, as in torchvision, or the projection keeps the
    number that comes in, as in the ``authors`` code, whose multiply-adds are the paper's. head_bias: whether
    the classifier has a bias; if not said, not in the authors' form. dropout: before the classifier; if not
    said, 0.2 in the authors' form at width 2, else 0. Initial weights as in the authors' code
    (`as_released`). Only the channels of `input` shape the network. Raises ValueError for other widths,
    and for width 0.25 in the authors' form, which needs a first stage wider than the stem.
    """
    one_of("width", width, WIDTHS)
    one_of("downsample", downsample, get_args(Downsample))
    *outs, last = WIDTHS[width]
    authors = downsample == "authors"
    if authors and outs[0] == STEM:
        raise ValueError(
            f"downsample='authors' adds channels to the {STEM} of the stem, and at width {width} the first "
            "stage has no more: take downsample='halves' there"
        )
    layers, c_in = _stem(input[0], STEM), STEM
    for c_out, units in zip(outs, UNITS, strict=True):
        for unit in range(units):
            layers.append(shuffle_v2(c_in, c_out, 1 if unit else 2, downsample=downsample))
            c_in = c_out
    layers.append(conv_bn(c_in, last, kernel=1, act="relu"))
    rate = (0.2 if authors and width == 2 else 0.0) if dropout is None else dropout
    bias = not authors if head_bias is None else head_bias
    return as_released(Pooled(layers, nn.Dropout(rate), nn.Linear(last, classes, bias=bias)))


def _stem(c_in: int, c_out: int) -> list[nn.Module]:
    return [conv_bn(c_in, c_out, 2, act="relu"), nn.MaxPool2d(3, 2, padding=1)]


@torch.no_grad()
def as_released(network: Pooled) -> nn.Module:
    """The same network with the initial weights of the authors' code.

    The first convolution and linear layers: N(0, 0.01^2). Other convolutions: N(0, 1 / (input channels a
    group)^2). Biases: 0, of batch norms 0.0001.
    """
    small = normal(0.01)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=1 / module.weight.shape[1])
        elif isinstance(module, nn.Linear):
            small(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.0001)
        elif getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    small(network.features[0][0].weight)
    return network
