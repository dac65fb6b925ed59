"""MnasNet (Tan et al. 2019): inverted residuals found by a search for accuracy and latency on a phone.

At 224x224 pixels MnasNet-A1 has 3,887,038 parameters and 311,579,072 multiply-adds (table 1: 3.9 and 312
million), MnasNet-B1, which has no squeeze-excite, 4,383,312 and 314,415,872.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.mobile import inverted_residual
from nas.search_space.mobile import rounded

from .family import baseline, one_of
from .mobilenet_v1 import Pooled


class Stage(NamedTuple):
    """Blocks, kernel, expansion, channels, stride of the first block, and squeeze-excite of the input's
    channels.
    """

    blocks: int
    kernel: int
    expand: int
    channels: int
    stride: int
    squeeze: float = 0.0


A1 = (  # figure 7
    Stage(1, 3, 1, 16, 1), Stage(2, 3, 6, 24, 2), Stage(3, 5, 3, 40, 2, 0.25), Stage(4, 3, 6, 80, 2),
    Stage(2, 3, 6, 112, 1, 0.25), Stage(3, 5, 6, 160, 2, 0.25), Stage(1, 3, 6, 320, 1),
)  # fmt: skip
B1 = (
    Stage(1, 3, 1, 16, 1), Stage(3, 3, 3, 24, 2), Stage(3, 5, 3, 40, 2), Stage(3, 5, 6, 80, 2),
    Stage(2, 3, 6, 96, 1), Stage(4, 5, 6, 192, 2), Stage(1, 3, 6, 320, 1),
)  # fmt: skip
SMALL = (
    Stage(1, 3, 1, 8, 1), Stage(1, 3, 3, 16, 2), Stage(2, 3, 6, 16, 2), Stage(4, 5, 6, 32, 2, 0.25),
    Stage(3, 3, 6, 32, 1, 0.25), Stage(3, 5, 6, 88, 2, 0.25), Stage(1, 3, 6, 144, 1),
)  # fmt: skip
VARIANTS = {"a1": (A1, 32, 0.2), "b1": (B1, 32, 0.2), "small": (SMALL, 8, 0.0)}  # stages, stem, dropout
LAST = 1280  # features at every width


@baseline(small={"variant": "a1", "width": 0.25, "classes": 10, "input": (3, 64, 64)})
def mnasnet(
    *,
    variant: str = "a1",
    width: float | None = None,
    dropout: float | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """MnasNet-A1, MnasNet-B1 or MnasNet-small of the authors' code.

    variant: ``a1``, ``b1`` or ``small``; behind an underscore it may say the width in percent, as in
    ``a1_075``. width: multiplies the channels, which are rounded to multiples of 8 as in MobileNetV2; the
    classifier reads 1280 features at every width. dropout: before the classifier, the authors' 0.2 if not
    given, and none in the small network. Initial weights as in their code (`as_released`). Only the channels
    of `input` shape the network. Raises ValueError for a variant that there is not, and for two widths that
    differ.
    """
    stages, stem, usual, width = _named(variant, width)
    c_in = rounded(stem * width)
    layers = [conv_bn(input[0], c_in, 2, act="relu")]
    for stage in stages:
        c_out = rounded(stage.channels * width)
        for place in range(stage.blocks):
            form = {"kernel": stage.kernel, "expand": stage.expand, "se": stage.squeeze, "act": "relu"}
            layers.append(inverted_residual(c_in, c_out, 1 if place else stage.stride, **form))
            c_in = c_out
    layers.append(conv_bn(c_in, LAST, kernel=1, act="relu"))
    rate = usual if dropout is None else dropout
    return as_released(Pooled(layers, nn.Dropout(rate), nn.Linear(LAST, classes)))


def _named(variant: str, width: float | None) -> tuple[tuple[Stage, ...], int, float, float]:
    """Stages, stem, dropout and width of a variant. Raises ValueError."""
    name, _, percent = variant.lower().partition("_")
    one_of("variant (before its percents)", name, VARIANTS)
    if percent and not percent.isdigit():
        raise ValueError(f"behind the underscore of variant {variant!r} stand the percents of the width")
    said = int(percent) / 100 if percent else None
    if said is not None and width not in (None, said):
        raise ValueError(f"variant {variant!r} has width {said}, not {width}: give one of them")
    given = said if width is None else width
    return (*VARIANTS[name], 1.0 if given is None else given)


@torch.no_grad()
def as_released(network: nn.Module) -> nn.Module:
    """The same network with the initial weights of the authors' code of MnasNet and EfficientNet.

    Convolutions: N(0, 2 / (kernel^2 * output channels a group)). Linear layers: uniform between
    -1 / sqrt(outputs) and 1 / sqrt(outputs). Biases: 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
            nn.init.normal_(module.weight, std=(2 / fan_out) ** 0.5)
        elif isinstance(module, nn.Linear):
            bound = module.out_features**-0.5
            nn.init.uniform_(module.weight, -bound, bound)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
