"""Residual networks with norm and activation before each convolution (He, Zhang, Ren, Sun, ECCV 2016).

For small images: PreResNet-1001 of bottlenecks has 10,327,706 parameters and 1,490,995,712 multiply-adds. For
ImageNet: PreResNet-18 has 11,687,848 parameters and 1,814,073,344 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import nn

from nas.primitives.head import bn_relu
from nas.primitives.residual import basic_block, bottleneck_block

from .family import baseline
from .resnet import (
    Block,
    Make,
    ResNet,
    StrideIn,
    depth_of,
    imagenet_stem,
    scaled,
    small_stages,
    stages,
)


def preactivated(
    block: Block, *, shortcut: Literal["A", "B", "C"] = "B", stride_in: StrideIn = "3x3"
) -> Make:
    """What makes such blocks. A projection has no norm and reads what the first norm and ReLU give."""
    if block == "basic":
        return partial(basic_block, preact=True, shortcut=shortcut)
    return partial(bottleneck_block, preact=True, shortcut=shortcut, stride_in=stride_in)


@baseline(small={"depth": 8, "block": "basic", "input": (3, 16, 16)})
def preresnet_cifar(
    *,
    depth: int = 164,
    block: Block = "bottleneck",
    shortcut: Literal["A", "B", "C"] = "B",
    widths: Sequence[int] = (16, 32, 64),
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """The network of `depth` layers: for three widths 6n + 2 (basic) or 9n + 2 (bottleneck).

    shortcut: ``A`` zero padding, ``B`` 1x1 convolutions where the shape changes, as in the authors' code,
        ``C`` everywhere. widths: of the stages, before a bottleneck's expansion by 4.
    The stem is a convolution without norm; norm and ReLU come once more before the pooling.
    Only the channels of `input` shape the network. Raises ValueError for a depth or a name that does not
    exist, and for widths that shrink under shortcut A.
    """
    outs, counts = small_stages(depth, block=block, shortcut=shortcut, widths=widths)
    stem = nn.Conv2d(input[0], widths[0], 3, padding=1, bias=False)
    blocks = stages(widths[0], outs, counts, preactivated(block, shortcut=shortcut))
    return ResNet(stem, [*blocks, bn_relu(outs[-1], outs[-1])], width=outs[-1], classes=classes)


@baseline(small={"depth": 18, "width": 0.25, "classes": 10, "input": (3, 64, 64)})
def preresnet(
    *,
    depth: int = 200,
    block: Block | None = None,
    stride_in: StrideIn = "3x3",
    width: float = 1.0,
    layers: Sequence[int] | None = None,
    stem_norm: bool = True,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """The network of `depth` layers for ImageNet; the paper has 101, 152 and 200.

    block, stride_in, width, layers: as in `resnet`.
    stem_norm: norm and ReLU behind the first convolution, as in the authors' code and osmr/pytorchcv;
        without them there are 128 parameters fewer, as in TensorFlow's official models and timm.
    Only the channels of `input` shape the network. Raises ValueError as `resnet` does.
    """
    counts, block = depth_of(depth, layers, block=block, stride_in=stride_in)
    first, outs, last = scaled(width, block=block)
    stem = imagenet_stem(input[0], first)
    if not stem_norm:
        stem = nn.Sequential(nn.Conv2d(input[0], first, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1))
    blocks = stages(first, outs, counts, preactivated(block, stride_in=stride_in), last=last)
    return ResNet(stem, [*blocks, bn_relu(last, last)], width=last, classes=classes)
