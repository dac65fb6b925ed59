"""Residual networks with the activation after the sum (He, Zhang, Ren, Sun, CVPR 2016), and plain ones.

For ImageNet: ResNet-18 to ResNet-152; ResNet-50 has 25,557,032 parameters and, with the stride in its 1x1
convolutions as in the paper, 3,857,973,248 multiply-adds. For small images (section 4.2): ResNet-20 with
shortcuts of option A has 269,722 parameters (both of every batch norm counted) and 40,551,040 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.residual import basic_block, bottleneck_block

from .family import baseline, he, initialise, one_of

Block = Literal["basic", "bottleneck"]
Shortcut = Literal["A", "B", "C", "none"]
StrideIn = Literal["3x3", "1x1"]
SHORTCUTS = ("A", "B", "C", "none")
EXPANSION = {"basic": 1, "bottleneck": 4}
LAYERS_A_BLOCK = {"basic": 2, "bottleneck": 3}
LAYERS = {  # blocks a stage: He et al. 2016, table 1; 200: He et al. 2016b; the small ones of later libraries
    10: (1, 1, 1, 1),
    12: (2, 1, 1, 1),
    14: (2, 2, 1, 1),
    16: (2, 2, 2, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


class PlainBlock(nn.Sequential):
    """The layers of a basic or bottleneck block without its shortcut: shape as there."""

    def __init__(self, c_in: int, c_out: int, stride: int, *, block: str) -> None:
        width = c_out // EXPANSION[block]
        if block == "basic":
            layers = [conv_bn(c_in, width, stride, act="relu"), conv_bn(width, c_out, act="relu")]
        else:
            layers = [
                conv_bn(c_in, width, kernel=1, act="relu"),
                conv_bn(width, width, stride, act="relu"),
                conv_bn(width, c_out, kernel=1, act="relu"),
            ]
        super().__init__(*layers)


def residual(
    c_in: int, c_out: int, stride: int, *, block: str, shortcut: Any, stride_in: StrideIn = "3x3"
) -> nn.Module:
    """One block: (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride))."""
    if shortcut == "none":
        return PlainBlock(c_in, c_out, stride, block=block)
    if block == "basic":
        return basic_block(c_in, c_out, stride, shortcut=shortcut)
    return bottleneck_block(c_in, c_out, stride, shortcut=shortcut, stride_in=stride_in)


class ResNet(nn.Module):
    """A stem, stages of blocks (all but the first halve the size), global average pooling, a linear layer.

    (batch, channels, height, width) -> (batch, classes).
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
    c_in: int, widths: Sequence[int], layers: Sequence[int], *, last: int | None = None, **form: Any
) -> list[nn.Module]:
    """The blocks of all stages, `layers` of each of `widths`; `last`: channels behind the last block, if other
    than its stage's; `form`: the keywords of `residual`.
    """
    outs = [[width] * count for width, count in zip(widths, layers, strict=True)]
    outs[-1][-1] = last or widths[-1]
    blocks = []
    for stage, each in enumerate(outs):
        for place, c_out in enumerate(each):
            blocks.append(residual(c_in, c_out, 2 if stage and not place else 1, **form))
            c_in = c_out
    return blocks


@baseline(small={"depth": 18, "width": 0.25, "classes": 10, "input": (3, 64, 64)})
def resnet(
    *,
    depth: int = 50,
    shortcut: Shortcut = "B",
    stride_in: StrideIn = "3x3",
    width: float = 1.0,
    layers: Sequence[int] | None = None,
    conv1_bias: bool = False,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """The residual network of `depth` layers for ImageNet (table 1): 18, 34 of basic blocks, else bottlenecks.

    shortcut: ``A`` zero padding, ``B`` projections where the shape changes, ``C`` projections everywhere,
        ``none`` the plain network. stride_in: where a bottleneck has its stride: ``1x1`` in the paper and its
        first release (version 1), ``3x3`` in the re-implementation of fb.resnet.torch and all later ones
        (version 1.5). width: multiplies the channels of all blocks but the last one. layers: blocks a stage,
        if not those of `depth`; from both follows the kind of block. conv1_bias: a slip of the first release of ResNet-50, whose first convolution has a bias.
    Only the channels of `input` shape the network. Raises ValueError for a depth without published stages,
    and for layers that do not add up to the depth.
    """
    one_of("shortcut", shortcut, SHORTCUTS)
    one_of("stride_in", stride_in, ("3x3", "1x1"))
    counts, block = depth_of(depth, layers)
    first = int(64 * width)
    stem = nn.Sequential(
        conv_bn(input[0], first, 2, kernel=7, act="relu", bias=conv1_bias), nn.MaxPool2d(3, 2, 1)
    )
    full = [64 * EXPANSION[block] * 2**stage for stage in range(len(counts))]
    form = {"block": block, "shortcut": shortcut, "stride_in": stride_in}
    blocks = stages(first, [int(each * width) for each in full], counts, last=full[-1], **form)
    return ResNet(stem, blocks, width=full[-1], classes=classes)


def depth_of(depth: int, layers: Sequence[int] | None) -> tuple[Sequence[int], str]:
    """Blocks a stage, and the kind of block, of a network for ImageNet. Raises ValueError."""
    if layers is None:
        one_of("depth (unless layers are given)", depth, LAYERS)
        layers = LAYERS[depth]
    for block, period in LAYERS_A_BLOCK.items():
        if depth == period * sum(layers) + 2:
            return layers, block
    depths = [period * sum(layers) + 2 for period in LAYERS_A_BLOCK.values()]
    raise ValueError(
        f"layers {list(layers)} make {depths[0]} layers of basic blocks or {depths[1]} of bottlenecks, "
        f"not depth {depth}"
    )


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
    one_of("block", block, EXPANSION)
    one_of("shortcut", shortcut, SHORTCUTS)
    count = blocks_a_stage(depth, block=block, stages=len(widths))
    if shortcut == "A" and list(widths) != sorted(widths):
        raise ValueError(f"shortcut A cannot drop channels, not with widths {list(widths)}; take shortcut B")
    outs = [width * EXPANSION[block] for width in widths]
    blocks = stages(widths[0], outs, [count] * len(outs), block=block, shortcut=shortcut)
    return ResNet(conv_bn(input[0], widths[0], act="relu"), blocks, width=outs[-1], classes=classes)


def blocks_a_stage(depth: int, *, block: str, stages: int = 3) -> int:
    """n for a depth of 2 stages n + 2 (basic) or 3 stages n + 2 (bottleneck). Raises ValueError otherwise."""
    period = LAYERS_A_BLOCK[block] * stages
    if depth < period + 2 or (depth - 2) % period:
        nearest = max(period + 2, round((depth - 2) / period) * period + 2)
        raise ValueError(
            f"depth must be {period}n + 2 for {block} blocks, not {depth}; the nearest is {nearest}"
        )
    return (depth - 2) // period


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
