"""Residual networks with one operation put in: conditional or deformable convolutions, non-local blocks.

CondConv (Yang et al. 2019): in the last stage of ResNet-50 it adds 120 million multiply-adds, as the 4213M
against 4093M of their table 2 say. Deformable convolution (Dai et al. 2017; Zhu et al. 2019). Non-local
networks (Wang et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Literal

from torch import nn

from nas.primitives.gates import CondConv, DeformableConv, NonLocal

from .family import baseline, he, one_of
from .resnet import WIDTHS, ResNet, StrideIn, depth_of, imagenet_stem, residual, stages

STAGES = (2, 3, 4, 5)  # as the papers call them: conv2 to conv5
Stage = Literal[2, 3, 4, 5]
BESIDE = {1: (5,), 2: (3, 4, 5)}  # stages with deformable convolutions, in both versions


def bottlenecks(
    depth: int, layers: Sequence[int] | None, stride_in: StrideIn = "3x3"
) -> dict[int, list[nn.Module]]:
    """The blocks of the residual network for ImageNet: stage (2 to 5) -> its blocks. ValueError as there."""
    counts, _ = depth_of(depth, layers, block="bottleneck", stride_in=stride_in)
    make = partial(residual, block="bottleneck", shortcut="B", stride_in=stride_in)
    blocks = iter(stages(WIDTHS[0], [4 * each for each in WIDTHS], counts, make))
    return {stage: [next(blocks) for _ in range(count)] for stage, count in zip(STAGES, counts, strict=True)}


def whole(blocks: dict[int, list[nn.Module]], *, classes: int, channels: int) -> ResNet:
    """The residual network of those blocks."""
    every = list(chain.from_iterable(blocks.values()))
    return ResNet(imagenet_stem(channels, WIDTHS[0]), every, width=4 * WIDTHS[-1], classes=classes)


def exchange(block: nn.Module, make: Callable[[nn.Conv2d], nn.Module], *, kernels: Sequence[int]) -> None:
    """Put what `make` gives in the place of each convolution of the block that has one of those kernels."""
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.kernel_size[0] in kernels:
                setattr(parent, name, make(child))


def conditional(conv: nn.Conv2d, *, experts: int) -> CondConv:
    """A CondConv of the shape of `conv`, each expert drawn as a convolution of its own."""
    made = CondConv(
        conv.in_channels, conv.out_channels, conv.stride[0], kernel=conv.kernel_size[0], experts=experts
    )
    for expert in made.experts:
        he(expert)
    return made


@baseline(small={"depth": 14, "experts": 2, "blocks": 1, "classes": 10, "input": (3, 64, 64)})
def condconv_resnet(
    *,
    depth: int = 50,
    experts: int = 8,
    blocks: int = 3,
    stride_in: StrideIn = "3x3",
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """CondConv-ResNet: every convolution of the last `blocks` residual blocks, the projection's too, mixes
    its kernel for each example out of those of `experts` (Yang et al. 2019; 8 experts, the last 3 blocks).

    depth, stride_in, layers: as in `resnet`. Only the channels of `input` shape the network. Raises
    ValueError as `resnet` does, and for blocks that there are not.
    """
    parts = bottlenecks(depth, layers, stride_in)
    network = whole(parts, classes=classes, channels=input[0])
    if not 1 <= blocks <= len(network.blocks):
        raise ValueError(f"blocks are the last of {len(network.blocks)}: 1 to as many, not {blocks}")
    if experts < 1:
        raise ValueError(f"experts is a number of kernels: at least 1, not {experts}")
    for block in network.blocks[-blocks:]:
        exchange(block, partial(conditional, experts=experts), kernels=(1, 3))
    return network


def deformable(conv: nn.Conv2d, *, version: int, groups: int) -> DeformableConv:
    """A deformable convolution of the shape of `conv`; it starts on the regular grid."""
    made = DeformableConv(
        conv.in_channels,
        conv.out_channels,
        conv.stride[0],
        kernel=conv.kernel_size[0],
        groups=groups,
        modulated=version == 2,
    )
    he(made.conv.weight)
    return made


@baseline(small={"depth": 14, "classes": 10, "input": (3, 64, 64)})
def deformable_resnet(
    *,
    depth: int = 50,
    version: Literal[1, 2] = 2,
    stages: Sequence[Stage] | None = None,
    offset_groups: int = 1,
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """A residual network whose 3x3 convolutions in some `stages` (2 to 5) are deformable.

    version: 1 moves the taps of a kernel and has them in stage 5 (Dai et al. 2017); 2 weighs them as well,
        and has them in stages 3 to 5 (Zhu et al. 2019). offset_groups: the channels of each move together.
        depth, layers: as in `resnet`, with the stride in the 3x3.
    Only the channels of `input` shape the network. Raises ValueError as `resnet` does, for a version or a
    stage that there is not, and for groups that do not divide the channels.
    """
    one_of("version", version, tuple(BESIDE))
    if offset_groups < 1 or WIDTHS[0] % offset_groups:
        raise ValueError(
            f"offset_groups divide the {WIDTHS[0]} channels and their multiples, not {offset_groups}"
        )
    parts = bottlenecks(depth, layers)
    network = whole(parts, classes=classes, channels=input[0])
    for stage in set(BESIDE[version] if stages is None else stages):
        one_of("a stage", stage, STAGES)
        for block in parts[stage]:
            exchange(block, partial(deformable, version=version, groups=offset_groups), kernels=(3,))
    return network


def non_local_places(count: int, blocks: int) -> list[int]:
    """Behind which of the `count` blocks of a stage its `blocks` non-local ones stand: evenly, each at the
    end of its part; a single one before the stage's last block.
    """
    if blocks == 1:
        return [max(0, count - 2)]
    step = count // blocks if blocks else 0
    return [step * (place + 1) - 1 for place in range(blocks)]


@baseline(small={"depth": 26, "blocks": 2, "identity": False, "classes": 10, "input": (3, 64, 64)})
def nonlocal_resnet(
    *,
    depth: int = 50,
    blocks: int = 5,
    identity: bool = True,
    stride_in: StrideIn = "3x3",
    layers: Sequence[int] | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """A residual network with `blocks` non-local blocks, two fifths of them in stage 3, the others in stage 4
    (Wang et al. 2018, section 4.1, for pictures in place of clips: 1, 5 or 10).

    identity: the norm at the end of each starts with the scale zero, as in the paper, so that it adds nothing
        at first; then the layers before it get no gradient in the first step. depth, stride_in, layers: as in
        `resnet`.
    Only the channels of `input` shape the network; attention costs grow with the square of its pixels. Raises
    ValueError as `resnet` does, and for more non-local blocks than a stage has blocks.
    """
    if blocks < 1:
        raise ValueError(f"blocks is a number of non-local blocks: at least 1, not {blocks}")
    parts = bottlenecks(depth, layers, stride_in)
    third = round(0.4 * blocks)
    for stage, number in ((3, third), (4, blocks - third)):
        count = len(parts[stage])
        if number > count:
            raise ValueError(
                f"of {blocks} non-local blocks {number} are in stage {stage}, which has {count} to put them "
                f"behind: take fewer"
            )
        channels = 4 * WIDTHS[stage - 2]
        for place in reversed(non_local_places(count, number)):
            parts[stage].insert(place + 1, NonLocal(channels, channels // 2))
    network = whole(parts, classes=classes, channels=input[0])
    for module in network.modules():
        if identity and isinstance(module, NonLocal):
            nn.init.zeros_(module.restore[-1].weight)
    return network
