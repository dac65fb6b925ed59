"""Squeeze-excite in residual networks (Hu, Shen, Sun, CVPR 2018): SE-ResNet, SE-ResNeXt and SENet-154.

SE-ResNet-50 has 28,088,024 parameters and 3,860,488,192 multiply-adds, SENet-154 115,088,984 and
20,688,363,520.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.gates import SqueezeExcite

from .family import baseline
from .resnet import (
    EXPANSION,
    WIDTHS,
    Block,
    Residual,
    ResNet,
    StrideIn,
    depth_of,
    imagenet_stem,
    projection,
    residual,
    small_stages,
    stages,
)
from .resnext import OUT, grouped_block


def gate(channels: int, reduction: int, *, bias: bool = True) -> SqueezeExcite:
    """The squeeze-excite at the end of a branch. Raises ValueError if the reduction leaves no channel."""
    if not 1 <= reduction <= channels:
        raise ValueError(
            f"reduction divides the {channels} channels: between 1 and {channels}, not {reduction}"
        )
    return SqueezeExcite(channels, channels // reduction, bias=bias)


def gated(block: nn.Module, channels: int, reduction: int, *, bias: bool = True) -> nn.Module:
    """The residual block with a squeeze-excite at the end of its branch (figure 3)."""
    block.branch.append(gate(channels, reduction, bias=bias))
    return block


def gated_block(
    c_in: int, c_out: int, stride: int, *, reduction: int, se_bias: bool, **form: Any
) -> nn.Module:
    """`residual`, whose keywords are `form`, with a squeeze-excite."""
    return gated(residual(c_in, c_out, stride, **form), c_out, reduction, bias=se_bias)


def gated_groups(
    c_in: int, c_out: int, stride: int, *, reduction: int, se_bias: bool, **form: Any
) -> nn.Module:
    """`grouped_block`, whose keywords are `form`, with a squeeze-excite."""
    return gated(grouped_block(c_in, c_out, stride, **form), c_out, reduction, bias=se_bias)


@baseline(small={"depth": 14, "block": "basic", "classes": 10, "input": (3, 64, 64)})
def seresnet(
    *,
    depth: int = 50,
    block: Block | None = None,
    reduction: int = 16,
    se_bias: bool = True,
    stride_in: StrideIn = "1x1",
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """SE-ResNet of `depth` layers for ImageNet: 50, 101, 152 in the paper.

    reduction: r, channels in units of the squeeze. se_bias: whether the squeeze-excite's two layers have
        biases; the released networks have them. stride_in: as in `resnet`; the released networks have it in
        the 1x1. block, layers: as in `resnet`.
    Only the channels of `input` shape the network. Raises ValueError as `resnet` does, and for a reduction
    that leaves no channel.
    """
    counts, block = depth_of(depth, layers, block=block, stride_in=stride_in)
    outs = [each * EXPANSION[block] for each in WIDTHS]
    form = {"block": block, "shortcut": "B", "stride_in": stride_in}
    make = partial(gated_block, reduction=reduction, se_bias=se_bias, **form)
    blocks = stages(WIDTHS[0], outs, counts, make)
    return ResNet(imagenet_stem(input[0], WIDTHS[0]), blocks, width=outs[-1], classes=classes)


@baseline(small={"depth": 8, "reduction": 4, "input": (3, 16, 16)})
def seresnet_cifar(
    *,
    depth: int = 110,
    block: Block = "basic",
    shortcut: Literal["A", "B", "C"] = "B",
    reduction: int = 16,
    se_bias: bool = True,
    widths: Sequence[int] = (16, 32, 64),
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """SE-ResNet of `depth` layers for small images: 6n + 2 (basic) or 9n + 2 (bottleneck).

    shortcut: as in `resnet`; osmr/pytorchcv has B. reduction, se_bias: as in `seresnet`. widths: of the
        stages, before a bottleneck's expansion by 4.
    Only the channels of `input` shape the network. Raises ValueError for a depth or a name that does not
    exist, and for a reduction that leaves no channel.
    """
    outs, counts = small_stages(depth, block=block, shortcut=shortcut, widths=widths)
    make = partial(gated_block, block=block, shortcut=shortcut, reduction=reduction, se_bias=se_bias)
    blocks = stages(widths[0], outs, counts, make)
    return ResNet(conv_bn(input[0], widths[0], act="relu"), blocks, width=outs[-1], classes=classes)


@baseline(small={"depth": 14, "cardinality": 4, "width": 2, "classes": 10, "input": (3, 64, 64)})
def seresnext(
    *,
    depth: int = 50,
    cardinality: int = 32,
    width: int = 4,
    stride_in: StrideIn = "3x3",
    reduction: int = 16,
    se_bias: bool = True,
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """SE-ResNeXt of `depth` layers for ImageNet: 50 or 101 in the paper.

    The arguments are those of `resnext` and of `seresnet`. Only the channels of `input` shape the network.
    Raises ValueError as they do.
    """
    counts, _ = depth_of(depth, layers, block="bottleneck", stride_in=stride_in)
    outs = [4 * each for each in WIDTHS]
    make = partial(
        gated_groups,
        cardinality=cardinality,
        width=width,
        reduction=reduction,
        se_bias=se_bias,
        stride_in=stride_in,
    )
    blocks = stages(WIDTHS[0], outs, counts, make)
    return ResNet(imagenet_stem(input[0], WIDTHS[0]), blocks, width=outs[-1], classes=classes)


def senet_block(
    c_in: int, c_out: int, stride: int, *, cardinality: int, width: int, reduction: int
) -> nn.Module:
    """The block of SENet-154: the first 1x1 convolution has half the channels of the grouped 3x3, and a
    projection that halves the size is 3x3. Shapes as in `residual`.
    """
    inner = cardinality * width * c_out // OUT
    branch = [
        conv_bn(c_in, inner // 2, kernel=1, act="relu"),
        conv_bn(inner // 2, inner, stride, groups=cardinality, act="relu"),
        conv_bn(inner, c_out, kernel=1),
        gate(c_out, reduction),
    ]
    return Residual(branch, projection(c_in, c_out, stride, kernel=1 if stride == 1 else 3))


@baseline(small={"depth": 16, "cardinality": 8, "classes": 10, "input": (3, 64, 64)})
def senet154(
    *,
    depth: int = 154,
    cardinality: int = 64,
    width: int = 4,
    reduction: int = 16,
    dropout: float = 0.2,
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """SENet-154 (appendix): SE-ResNeXt-152 (64x4d) with three 3x3 convolutions for the stem's 7x7, 3x3
    projections, half the channels in the first 1x1 convolutions, and dropout before the classifier.

    depth, layers: as in `resnext`, plus the stem's two more layers: 16, 28, 40, 52, 103 or 154. cardinality,
        width, reduction: as in `seresnext`; fewer layers go with 32 groups in osmr/pytorchcv.
    Only the channels of `input` shape the network. Raises ValueError as `seresnext` does, for an odd
    width, and for a dropout outside [0, 1).
    """
    try:
        counts, _ = depth_of(depth - 2, layers, block="bottleneck")
    except ValueError as error:
        raise ValueError(f"without the stem's two more layers: {error}") from error
    if cardinality < 1 or width < 2 or width % 2:
        raise ValueError(
            f"cardinality is a number of groups, and width of channels in each, which are halved: "
            f"at least 1 and even, not {cardinality} and {width}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is the probability of zero, in [0, 1), not {dropout}")
    stem = nn.Sequential(
        conv_bn(input[0], 64, 2, act="relu"),
        conv_bn(64, 64, act="relu"),
        conv_bn(64, 128, act="relu"),
        nn.MaxPool2d(3, 2, 1),
    )
    outs = [4 * each for each in WIDTHS]
    make = partial(senet_block, cardinality=cardinality, width=width, reduction=reduction)
    blocks = stages(128, outs, counts, make)
    blocks.append(nn.Dropout2d(dropout))  # whole channels: the same as dropout behind the pooling
    return ResNet(stem, blocks, width=outs[-1], classes=classes)
