"""Residual networks for small images (He, Zhang, Ren, Sun, CVPR 2016, section 4.2).

ResNet-20 with shortcuts of option A has 269,722 parameters (with both parameters of every batch norm) and
40,551,040 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

SHORTCUTS = ("A", "B", "C", "none")
EXPANSION = {"basic": 1, "bottleneck": 4}
LAYERS_A_BLOCK = {"basic": 2, "bottleneck": 3}


def conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch norm."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(c_out),
    )


class PaddedShortcut(nn.Module):
    """Option A: pixels are skipped, missing channels are zero; no parameters."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.missing = c_out - c_in
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        before = self.missing // 2
        return nn.functional.pad(x, (0, 0, 0, 0, before, self.missing - before))


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 (bottleneck), added to a shortcut.

    (batch, c_in, h, w) -> (batch, width * expansion, ceil(h / stride), ceil(w / stride)).
    """

    def __init__(self, c_in: int, width: int, stride: int, *, block: str, shortcut: str) -> None:
        super().__init__()
        c_out = width * EXPANSION[block]
        if block == "basic":
            self.residual = nn.Sequential(
                conv_bn(c_in, width, 3, stride), nn.ReLU(), conv_bn(width, width, 3)
            )
        else:
            self.residual = nn.Sequential(
                conv_bn(c_in, width, 1),
                nn.ReLU(),
                conv_bn(width, width, 3, stride),
                nn.ReLU(),
                conv_bn(width, c_out, 1),
            )
        same = c_in == c_out and stride == 1
        self.plain = shortcut == "none"
        self.shortcut: nn.Module = nn.Identity()
        if shortcut == "C" or (shortcut == "B" and not same):
            self.shortcut = conv_bn(c_in, c_out, 1, stride)
        elif shortcut == "A" and not same:
            self.shortcut = PaddedShortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.residual(x)
        return torch.relu(y if self.plain else y + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 convolution, stages of blocks (the later ones halve the size), global pooling, a linear layer.

    (batch, channels, height, width) -> (batch, classes).
    """

    def __init__(
        self, blocks: int, *, block: str, shortcut: str, widths: Sequence[int], classes: int, channels: int
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(channels, widths[0], 3), nn.ReLU())
        stages, c_in = [], widths[0]
        for index, width in enumerate(widths):
            for position in range(blocks):
                stride = 2 if index and not position else 1
                stages.append(Block(c_in, width, stride, block=block, shortcut=shortcut))
                c_in = width * EXPANSION[block]
        self.blocks = nn.Sequential(*stages)
        self.classifier = nn.Linear(c_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015, equation 10
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def resnet_cifar(
    *,
    depth: int = 20,
    block: str = "basic",
    shortcut: str = "A",
    widths: Sequence[int] = (16, 32, 64),
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """The residual network of `depth` layers: for three widths 6n + 2 (basic) or 9n + 2 (bottleneck).

    shortcut: ``A`` zero padding, ``B`` projections where the shape changes, ``C`` projections everywhere,
    ``none`` the plain network. Only the channels of `input` shape the network. Raises ValueError for a depth
    or a name that does not exist, and for widths that shrink under shortcut A.
    """
    for name, value, legal in (("block", block, EXPANSION), ("shortcut", shortcut, SHORTCUTS)):
        if value not in legal:
            raise ValueError(f"{name} must be one of {list(legal)}, not {value!r}")
    period = LAYERS_A_BLOCK[block] * len(widths)
    if depth < period + 2 or (depth - 2) % period:
        nearest = max(period + 2, round((depth - 2) / period) * period + 2)
        raise ValueError(
            f"depth must be {period}n + 2 for {block} blocks, not {depth}; the nearest is {nearest}"
        )
    if shortcut == "A" and list(widths) != sorted(widths):
        raise ValueError(f"shortcut A cannot drop channels, not with widths {list(widths)}; take shortcut B")
    blocks = (depth - 2) // period
    return ResNet(blocks, block=block, shortcut=shortcut, widths=widths, classes=classes, channels=input[0])


def parameters(depth: int, width: int, *, classes: int, channels: int) -> int:
    """Parameters of the basic network of option A with widths (width, 2 width, 4 width), in closed form."""
    convs, c_in = channels * width * 9 + 2 * width, width
    for stage in range(3):
        c_out = width * 2**stage
        pairs = (depth - 2) // 6
        convs += c_in * c_out * 9 + (2 * pairs - 1) * c_out * c_out * 9 + 4 * pairs * c_out
        c_in = c_out
    return convs + (c_in + 1) * classes


def like(params: int, *, classes: int, input: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """The hand-designed control of like size: a name, and arguments for `resnet_cifar`.

    At each depth the width that comes nearest to `params`; among those within a tenth of it, the one whose
    width is nearest to the published 16. If none comes so near, the nearest.
    """

    def off(member: tuple[int, int]) -> float:
        return abs(parameters(*member, classes=classes, channels=input[0]) / params - 1)

    members = [min(((depth, width) for width in range(3, 129)), key=off) for depth in (8, 14, 20, 26, 32, 56)]
    near = [member for member in members if off(member) <= 0.1]
    depth, width = min(near, key=lambda m: (abs(m[1] - 16), off(m))) if near else min(members, key=off)
    return f"resnet{depth}-w{width}", {"depth": depth, "widths": [width, 2 * width, 4 * width]}
