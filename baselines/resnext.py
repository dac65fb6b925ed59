"""ResNeXt: bottlenecks whose 3x3 convolution has many groups (Xie, Girshick, Dollar, Tu, He, CVPR 2017).

For ImageNet: ResNeXt-50 (32x4d) has 25,028,904 parameters and 4,230,479,872 multiply-adds. For small images:
ResNeXt-29 (8x64d) has 34,426,698 parameters and 5,387,266,048 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.residual import bottleneck_block

from .family import baseline
from .resnet import WIDTHS, ResNet, StrideIn, blocks_a_stage, depth_of, imagenet_stem, stages

OUT = 256  # channels behind a block of the first stage, where a group has `width` channels


def grouped_block(
    c_in: int, c_out: int, stride: int, *, cardinality: int, width: int, stride_in: StrideIn = "3x3"
) -> nn.Module:
    """The block of figure 3 (c): (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)).

    width: of a group in the first stage; it doubles with every stage. Raises ValueError for numbers below 1.
    """
    if cardinality < 1 or width < 1:
        raise ValueError(
            f"cardinality and width are numbers of groups and of channels in each: at least 1, "
            f"not {cardinality} and {width}"
        )
    return bottleneck_block(
        c_in, c_out, stride, cardinality=cardinality, width=width * c_out // OUT, stride_in=stride_in
    )


@baseline(small={"depth": 14, "cardinality": 4, "width": 2, "classes": 10, "input": (3, 64, 64)})
def resnext(
    *,
    depth: int = 50,
    cardinality: int = 32,
    width: int = 4,
    stride_in: StrideIn = "3x3",
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """The network of `depth` layers for ImageNet (table 1): 50 or 101 in the paper.

    cardinality: groups of the 3x3 convolution; 1 is `resnet`. width: channels in each in the first stage,
        d of the paper. stride_in, layers: as in `resnet`; the authors' code has the stride in the 3x3.
    Only the channels of `input` shape the network. Raises ValueError for a depth without published stages,
    for layers that do not add up to it, and for numbers below 1.
    """
    counts, _ = depth_of(depth, layers, block="bottleneck", stride_in=stride_in)
    make = partial(grouped_block, cardinality=cardinality, width=width, stride_in=stride_in)
    outs = [4 * each for each in WIDTHS]
    blocks = stages(WIDTHS[0], outs, counts, make)
    return ResNet(imagenet_stem(input[0], WIDTHS[0]), blocks, width=outs[-1], classes=classes)


@baseline(small={"depth": 11, "cardinality": 4, "width": 2, "input": (3, 16, 16)})
def resnext_cifar(
    *,
    depth: int = 29,
    cardinality: int = 8,
    width: int = 64,
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """The network of `depth` layers, 9n + 2, for small images (section 5.2): three stages of 256 to 1024
    channels behind a 3x3 convolution of 64.

    cardinality, width: as in `resnext`. Only the channels of `input` shape the network. Raises ValueError for
    a depth that does not exist, and for numbers below 1.
    """
    outs = [4 * each for each in WIDTHS[:3]]
    count = blocks_a_stage(depth, block="bottleneck")
    make = partial(grouped_block, cardinality=cardinality, width=width)
    blocks = stages(WIDTHS[0], outs, [count] * len(outs), make)
    return ResNet(conv_bn(input[0], WIDTHS[0], act="relu"), blocks, width=outs[-1], classes=classes)
