"""Big Transfer: residual networks with group norm and standardised weights (Kolesnikov et al., ECCV 2020).

BiT-R101x3 has 387,934,888 parameters and, at 384 pixels, 204,210,290,688 multiply-adds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nas.primitives.layers import normalisation

from .family import baseline
from .resnet import WIDTHS, ResNet, depth_of, stages


class StandardConv(nn.Conv2d):
    """A convolution that takes its weights less their mean, over their standard deviation, a filter at a time
    (Qiao et al. 2019): (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)).
    """

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride, kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-10)
        return self._conv_forward(x, weight, self.bias)


def norm_relu(channels: int) -> nn.Sequential:
    """Group norm of 32 groups, and ReLU."""
    return nn.Sequential(normalisation("group", channels), nn.ReLU())


class BiTBlock(nn.Module):
    """A bottleneck with norm and ReLU before each convolution; a projection reads what the first ones give.

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)).
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        inner = c_out // 4
        self.first = norm_relu(c_in)
        self.branch = nn.Sequential(
            StandardConv(c_in, inner),
            norm_relu(inner),
            StandardConv(inner, inner, 3, stride),
            norm_relu(inner),
            StandardConv(inner, c_out),
        )
        same = (c_in, stride) == (c_out, 1)
        self.projection = None if same else StandardConv(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        ready = self.first(x)
        return self.branch(ready) + (x if self.projection is None else self.projection(ready))


def scale(variant: str) -> tuple[int, int]:
    """``r101x3`` -> depth 101, width 3. Raises ValueError for another form."""
    match = re.fullmatch(r"r(\d+)x(\d+)", variant)
    if match is None:
        raise ValueError(f"variant is a depth and a width as in 'r101x3', not {variant!r}")
    return int(match[1]), int(match[2])


@baseline(small={"depth": 14, "layers": (1, 1, 1, 1), "classes": 10, "input": (3, 64, 64)})
def bit(
    *,
    variant: str | None = None,
    depth: int | None = None,
    width: int | None = None,
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """ResNet-v2 of `depth` layers, `width` times as wide; published are r50x1, r50x3, r101x1, r101x3, r152x2
    and r152x4.

    variant: both in one word; it must not contradict them. Without any of them, r50x1. layers: as in
    `resnet`.
    Fine-tuning sets the classifier to zero first; here it starts as any linear layer. Only the channels of
    `input` shape the network. Raises ValueError for a depth without published stages, for layers that do not
    add up to it, and for a variant that is none or contradicts the others.
    """
    wanted = scale(variant) if variant is not None else (depth or 50, width or 1)
    if (depth or wanted[0], width or wanted[1]) != wanted:
        raise ValueError(
            f"variant {variant!r} is depth {wanted[0]} and width {wanted[1]}, not {depth} and {width}: "
            f"leave the latter out"
        )
    depth, width = wanted
    counts, _ = depth_of(depth, layers, block="bottleneck")
    if width < 1:
        raise ValueError(f"width multiplies the channels: at least 1, not {width}")
    first, outs = WIDTHS[0] * width, [4 * each * width for each in WIDTHS]
    # Zeros, not the least number, surround the input of the pooling: the stem's output may be negative.
    stem = nn.Sequential(StandardConv(input[0], first, 7, 2), nn.ZeroPad2d(1), nn.MaxPool2d(3, 2))
    blocks = stages(first, outs, counts, BiTBlock)
    return ResNet(stem, [*blocks, norm_relu(outs[-1])], width=outs[-1], classes=classes)
