"""Residual networks with the activation after the sum (He, Zhang, Ren, Sun, CVPR 2016), and plain ones.

For ImageNet: ResNet-18 to ResNet-152; ResNet-50 has 25,557,032 parameters and, with the stride in its 1x1
convolutions as in the paper, 3,857,973,248 multiply-adds. For small images (section 4.2): ResNet-20 with
shortcuts of option A has 269,722 parameters (both of every batch norm counted) and 40,551,040 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.residual import basic_block, bottleneck_block

from .family import baseline, he, initialise, one_of

Block = Literal["basic", "bottleneck"]
Make = Callable[[int, int, int], nn.Module]  # channels in and out, stride -> a block
Shortcut = Literal["A", "B", "C", "none"]
StrideIn = Literal["3x3", "1x1", "-"]
SHORTCUTS = ("A", "B", "C")
AND_NONE = (*SHORTCUTS, "none")  # of residual networks, and of plain ones
STRIDES_IN = ("3x3", "1x1", "-")
WIDTHS = (64, 128, 256, 512)  # of the stages for ImageNet, before a bottleneck's expansion
EXPANSION = {"basic": 1, "bottleneck": 4}
LAYERS_A_BLOCK = {"basic": 2, "bottleneck": 3}
# Blocks a stage: He et al. 2016, table 1 (18 to 152); He et al. 2016b (200) and its re-implementations (269);
# the small ones of later libraries.
LAYERS: Mapping[str, Mapping[int, Sequence[int]]] = {
    "basic": {
        10: (1, 1, 1, 1),
        12: (2, 1, 1, 1),
        14: (2, 2, 1, 1),
        16: (2, 2, 2, 1),
        18: (2, 2, 2, 2),
        26: (3, 3, 3, 3),
        34: (3, 4, 6, 3),
    },
    "bottleneck": {
        14: (1, 1, 1, 1),
        26: (2, 2, 2, 2),
        38: (3, 3, 3, 3),
        50: (3, 4, 6, 3),
        101: (3, 4, 23, 3),
        152: (3, 8, 36, 3),
        200: (3, 24, 36, 3),
        269: (3, 30, 48, 8),
    },
}


class Residual(nn.Module):
    """ReLU(branch + shortcut): (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))."""

    def __init__(self, branch: Sequence[nn.Module], shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)
        self.shortcut = shortcut
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.branch(x) + self.shortcut(x))


def projection(c_in: int, c_out: int, stride: int, *, kernel: int = 1) -> nn.Module:
    """Shortcut B: a convolution with batch norm where the shape changes, else the identity."""
    return nn.Identity() if (c_in, stride) == (c_out, 1) else conv_bn(c_in, c_out, stride, kernel=kernel)


class PlainBlock(nn.Sequential):
    """The layers of a basic or bottleneck block without its shortcut: shape as there."""

    def __init__(
        self, c_in: int, c_out: int, stride: int, *, block: str, stride_in: StrideIn = "3x3"
    ) -> None:
        width = c_out // EXPANSION[block]
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        if block == "basic":
            layers = [conv_bn(c_in, width, stride, act="relu"), conv_bn(width, c_out, act="relu")]
        else:
            layers = [
                conv_bn(c_in, width, first, kernel=1, act="relu"),
                conv_bn(width, width, second, act="relu"),
                conv_bn(width, c_out, kernel=1, act="relu"),
            ]
        super().__init__(*layers)


def residual(
    c_in: int, c_out: int, stride: int, *, block: str, shortcut: Any, stride_in: StrideIn = "3x3"
) -> nn.Module:
    """One block: (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))."""
    if shortcut == "none":
        return PlainBlock(c_in, c_out, stride, block=block, stride_in=stride_in)
    if block == "basic":
        return basic_block(c_in, c_out, stride, shortcut=shortcut)
    return bottleneck_block(c_in, c_out, stride, shortcut=shortcut, stride_in=stride_in)


class ResNet(nn.Module):
    """A stem, stages of blocks (all but the first halve the size), global average pooling, a linear layer.

    (batch, channels, height, width) -> (batch, classes). Convolutions start as in He et al. 2015.
    """

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], *, width: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, classes)
        initialise(self, conv=he)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def stages(
    c_in: int, widths: Sequence[int], layers: Sequence[int], make: Make, *, last: int | None = None
) -> list[nn.Module]:
    """The blocks of all stages, `layers` of each of `widths`, in order; the first of a stage halves the size
    (but in the first stage).

    make: of channels in, channels out and stride, a block. last: channels behind the last block, if other
    than its stage's.
    """
    outs = [[width] * count for width, count in zip(widths, layers, strict=True)]
    outs[-1][-1] = last or widths[-1]
    blocks = []
    for stage, each in enumerate(outs):
        for place, c_out in enumerate(each):
            blocks.append(make(c_in, c_out, 2 if stage and not place else 1))
            c_in = c_out
    return blocks


def imagenet_stem(channels: int, width: int, *, bias: bool = False) -> nn.Sequential:
    """7x7 convolution and 3x3 maximum, each of stride 2, so that a quarter of the size remains, rounded up:
    (batch, channels, h, w) -> (batch, width, h / 4, w / 4).
    """
    return nn.Sequential(conv_bn(channels, width, 2, kernel=7, act="relu", bias=bias), nn.MaxPool2d(3, 2, 1))


@baseline(small={"depth": 18, "width": 0.25, "classes": 10, "input": (3, 64, 64)})
def resnet(
    *,
    depth: int = 50,
    block: Block | None = None,
    shortcut: Shortcut = "B",
    stride_in: StrideIn = "3x3",
    width: float = 1.0,
    layers: Sequence[int] | None = None,
    conv1_bias: bool = False,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """The residual network of `depth` layers for ImageNet (table 1).

    block: basic for 18 and 34 layers, bottleneck for more; `depth_of` says the rule. shortcut: ``A`` zero
        padding, ``B`` projections where the shape changes, ``C`` projections everywhere, ``none`` the plain
        network. stride_in: where a bottleneck has its stride: ``1x1`` in the paper and its first release
        (version 1), ``3x3`` in the re-implementation of fb.resnet.torch and all later ones (version 1.5);
        ``-``: there are no bottlenecks. width: multiplies the channels of all blocks but the last one, as in
        osmr/pytorchcv. layers: blocks a stage, if not those of `depth`. conv1_bias: a slip of the first
        release of ResNet-50, whose first convolution has a bias.
    Only the channels of `input` shape the network. Raises ValueError for a depth without published stages,
    and for layers that do not add up to the depth.
    """
    one_of("shortcut", shortcut, AND_NONE)
    counts, block = depth_of(depth, layers, block=block, stride_in=stride_in)
    first, outs, last = scaled(width, block=block)
    stem = imagenet_stem(input[0], first, bias=conv1_bias)
    make = partial(residual, block=block, shortcut=shortcut, stride_in=stride_in)
    return ResNet(stem, stages(first, outs, counts, make, last=last), width=last, classes=classes)


def scaled(width: float, *, block: Block) -> tuple[int, list[int], int]:
    """Channels of the stem, behind the blocks of each stage, and behind the last block, which keeps its own.

    Raises ValueError for a width that leaves none.
    """
    first = int(WIDTHS[0] * width)
    if first < 1:
        raise ValueError(f"width {width} leaves no channel of {WIDTHS[0]}: take at least {1 / WIDTHS[0]}")
    full = [each * EXPANSION[block] for each in WIDTHS]
    return first, [int(each * width) for each in full], full[-1]


def depth_of(
    depth: int,
    layers: Sequence[int] | None = None,
    *,
    block: Block | None = None,
    stride_in: StrideIn = "3x3",
) -> tuple[Sequence[int], Block]:
    """Blocks a stage, and the kind of block, of a network for ImageNet.

    Where only the depth is given and exists in both kinds (14, 26), it means bottlenecks if the stride is in
    the 3x3, as in the published ones, and otherwise basic blocks. Raises ValueError if it does not exist.
    """
    one_of("stride_in", stride_in, STRIDES_IN)
    kinds: tuple[Block, ...] = ("bottleneck", "basic") if stride_in == "3x3" else ("basic", "bottleneck")
    if block is not None:
        one_of("block", block, EXPANSION)
        kinds = (block,)
    if stride_in == "-":
        if block == "bottleneck":
            raise ValueError("bottlenecks have their stride in the 3x3 or the 1x1: stride_in cannot be '-'")
        kinds = ("basic",)
    if layers is not None:
        if len(layers) != len(WIDTHS) or min(layers) < 1:
            raise ValueError(
                f"layers are {len(WIDTHS)} numbers of blocks, at least 1 each, not {list(layers)}"
            )
        depths = {kind: LAYERS_A_BLOCK[kind] * sum(layers) + 2 for kind in kinds}
        for kind, made in depths.items():
            if depth == made:
                return layers, kind
        ways = " or ".join(f"{made} layers of {kind} blocks" for kind, made in depths.items())
        raise ValueError(f"layers {list(layers)} make {ways}, not depth {depth}")
    for kind in kinds:
        if depth in LAYERS[kind]:
            return LAYERS[kind][depth], kind
    known = sorted({each for kind in kinds for each in LAYERS[kind]})
    raise ValueError(f"depth must be one of {known} (unless layers are given), not {depth}")


@baseline(small={"depth": 8, "input": (3, 16, 16)})
def resnet_cifar(
    *,
    depth: int = 20,
    block: Block = "basic",
    shortcut: Shortcut = "A",
    widths: Sequence[int] = (16, 32, 64),
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """The residual network of `depth` layers: for three widths 6n + 2 (basic) or 9n + 2 (bottleneck).

    shortcut: as in `resnet`; the paper has A here. widths: of the stages, before a bottleneck's expansion by
    4. Only the channels of `input` shape the network. Raises ValueError for a depth or a name that does not
    exist, and for widths that shrink under shortcut A.
    """
    outs, counts = small_stages(depth, block=block, shortcut=shortcut, widths=widths, shortcuts=AND_NONE)
    blocks = stages(widths[0], outs, counts, partial(residual, block=block, shortcut=shortcut))
    return ResNet(conv_bn(input[0], widths[0], act="relu"), blocks, width=outs[-1], classes=classes)


def small_stages(
    depth: int,
    *,
    block: str,
    shortcut: str,
    widths: Sequence[int],
    shortcuts: Sequence[str] = SHORTCUTS,
) -> tuple[list[int], list[int]]:
    """Channels behind the blocks of each stage, and blocks a stage, of a network for small images.

    shortcuts: the legal ones. Raises ValueError as `resnet_cifar` says.
    """
    one_of("block", block, EXPANSION)
    one_of("shortcut", shortcut, shortcuts)
    count = blocks_a_stage(depth, block=block, stages=len(widths))
    if shortcut == "A" and list(widths) != sorted(widths):
        raise ValueError(f"shortcut A cannot drop channels, not with widths {list(widths)}; take shortcut B")
    return [width * EXPANSION[block] for width in widths], [count] * len(widths)


def blocks_a_stage(depth: int, *, block: str, stages: int = 3) -> int:
    """n for a depth of 2 stages n + 2 (basic) or 3 stages n + 2 (bottleneck). Raises ValueError otherwise."""
    period = LAYERS_A_BLOCK[block] * stages
    if depth < period + 2 or (depth - 2) % period:
        nearest = max(period + 2, round((depth - 2) / period) * period + 2)
        raise ValueError(
            f"depth must be {period}n + 2 for {block} blocks, not {depth}; the nearest is {nearest}"
        )
    return (depth - 2) // period
