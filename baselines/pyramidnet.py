"""PyramidNet: residual networks whose channels grow with every block (Han, Kim, Kim, CVPR 2017).

For small images: PyramidNet-272 (alpha 200) has 26,210,842 parameters and 4,488,778,176 multiply-adds. For
ImageNet: PyramidNet-200 (alpha 450) has 116,775,213 parameters and 29,196,815,629 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.head import bn_relu

from .family import baseline, one_of
from .resnet import EXPANSION, WIDTHS, Block, ResNet, blocks_a_stage, depth_of, imagenet_stem


class PyramidBlock(nn.Module):
    """Norm, convolution, then norm, ReLU, convolution for the others, and a norm at the end (figure 6 d);
    added to the input, which is averaged over 2x2 pixels where the stride is 2 and has zeros for the channels
    that it lacks.

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)).
    """

    def __init__(self, c_in: int, width: int, stride: int, *, block: Block) -> None:
        super().__init__()
        c_out = width * EXPANSION[block]
        self.more = c_out - c_in
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
        if block == "basic":
            convs = [(c_in, width, 3, stride), (width, c_out, 3, 1)]
        else:
            convs = [(c_in, width, 1, 1), (width, width, 3, stride), (width, c_out, 1, 1)]
        parts: list[nn.Module] = [nn.BatchNorm2d(c_in)]
        for place, (wide, out, kernel, step) in enumerate(convs):
            parts += [nn.ReLU()] if place else []
            parts += [nn.Conv2d(wide, out, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(out)]
        self.branch = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = nn.functional.pad(self.pool(x), (0, 0, 0, 0, 0, self.more))
        return self.branch(x) + shortcut


def pyramid(first: int, alpha: float, counts: Sequence[int], *, block: Block) -> tuple[list[nn.Module], int]:
    """The blocks of all stages, and the channels behind the last one.

    The width grows by alpha / (number of blocks) with each (equation 2); it is kept as a fraction and rounded
    for the block alone.
    """
    step = alpha / sum(counts)
    widths = [round(each) for each in accumulate([step] * sum(counts), initial=float(first))][1:]
    strides = [2 if stage and not place else 1 for stage, n in enumerate(counts) for place in range(n)]
    blocks: list[nn.Module] = []
    c_in = first
    for width, stride in zip(widths, strides, strict=True):
        blocks.append(PyramidBlock(c_in, width, stride, block=block))
        c_in = width * EXPANSION[block]
    return [*blocks, bn_relu(c_in, c_in)], c_in


@baseline(small={"depth": 8, "alpha": 12, "block": "basic", "input": (3, 16, 16)})
def pyramidnet_cifar(
    *,
    depth: int = 272,
    alpha: float = 200,
    block: Block = "bottleneck",
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """The network of `depth` layers, 6n + 2 (basic) or 9n + 2 (bottleneck), for small images.

    alpha: channels by which the last block is wider than the stem's 16, before a bottleneck's expansion by 4.
    Only the channels of `input` shape the network. Raises ValueError for a depth or a block that does not
    exist, and for a negative alpha.
    """
    one_of("block", block, EXPANSION)
    if alpha < 0:
        raise ValueError(f"alpha is what the channels grow by: at least 0, not {alpha}")
    count = blocks_a_stage(depth, block=block)
    blocks, width = pyramid(16, alpha, [count] * 3, block=block)
    return ResNet(conv_bn(input[0], 16), blocks, width=width, classes=classes)


@baseline(small={"depth": 10, "alpha": 16, "block": "basic", "classes": 10, "input": (3, 64, 64)})
def pyramidnet_imagenet(
    *,
    depth: int = 200,
    alpha: float = 300,
    block: Block | None = None,
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """The network of `depth` layers for ImageNet: 101 and 200 in the paper and its code.

    alpha: as in `pyramidnet_cifar`, over a stem of 64 channels. block, layers: as in `resnet`. Only the
    channels of `input` shape the network. Raises ValueError as `resnet` does, and for a negative alpha.
    """
    counts, block = depth_of(depth, layers, block=block)
    if alpha < 0:
        raise ValueError(f"alpha is what the channels grow by: at least 0, not {alpha}")
    blocks, width = pyramid(WIDTHS[0], alpha, counts, block=block)
    return ResNet(imagenet_stem(input[0], WIDTHS[0]), blocks, width=width, classes=classes)
