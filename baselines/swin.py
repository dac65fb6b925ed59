"""Swin Transformer: attention within windows that shift by half in every second block (Liu et al. 2021).

At 224x224 pixels Swin-T has 28,288,354 parameters and 4,350,425,088 multiply-adds, and 140,141,568 between
queries, keys and values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from nas.primitives.attention import padded, patch_embed
from nas.primitives.layers import LayerNorm
from nas.primitives.window import patch_merging, swin_block
from nas.search_space.space import Count

from .family import baseline, initialise, truncated
from .vit import dropping, lawful, named, rising


class Size(NamedTuple):
    """Channels of the first stage, blocks and heads of the stages, and the rate of dropped branches."""

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    drop_path: float


SIZES = {  # section 3.3; rates: appendix A2.1, and for large the authors' configuration
    "tiny": Size(96, (2, 2, 6, 2), (3, 6, 12, 24), 0.2),
    "small": Size(96, (2, 2, 18, 2), (3, 6, 12, 24), 0.3),
    "base": Size(128, (2, 2, 18, 2), (4, 8, 16, 32), 0.5),
    "large": Size(192, (2, 2, 18, 2), (6, 12, 24, 48), 0.2),
}
NAME = re.compile(r"swin_([a-z]+)(?:_patch(\d+))?(?:_window(\d+))?(?:_\d+)?")


class Whole(nn.Module):
    """Attention on a map that is padded at the bottom and the right to whole windows, and cut off again.

    (batch, channels, height, width), same shape. What pads is attended to, as in the authors' code.
    """

    def __init__(self, attention: nn.Module, window: int) -> None:
        super().__init__()
        self.attention = attention
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(padded(x, self.window))[..., : x.shape[2], : x.shape[3]]


class Swin(nn.Module):
    """Patches, stages of blocks with a merging of patches between them, a last norm, the mean, a classifier.

    (batch, channels, height, width) -> (batch, classes).
    """

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], *, width: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.norm = LayerNorm(width)
        self.classifier = nn.Linear(width, classes)
        initialise(self.stages, conv=truncated(0.02))  # mergings: linear layers written as convolutions
        initialise(self, linear=truncated(0.02))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.norm(self.stages(self.stem(x))).mean(dim=(2, 3)))


def stage(
    dim: int, *, heads: int, window: int, side: int, mlp_ratio: float, rates: Sequence[float]
) -> list[nn.Module]:
    """A block for each rate: (batch, dim, height, width), same shape; `side`: the shorter one of the map.

    A map no larger than the window is one window, and nothing shifts.
    """
    lawful(dim=dim, heads=heads, mlp_ratio=mlp_ratio)
    window = min(window, side)
    blocks = []
    for place, rate in enumerate(rates):
        block = swin_block(dim, dim, window=window, shift=bool(place % 2), heads=heads, mlp_ratio=mlp_ratio)
        block.attention = dropping(Whole(block.attention, window), rate)
        block.mlp = dropping(block.mlp, rate)
        blocks.append(block)
    return blocks


@baseline(
    small={
        "patch": 2,
        "window": 2,
        "dim": 8,
        "depths": (2, 2),
        "heads": (2, 4),
        "drop_path": 0.0,
        "classes": 5,
        "input": (3, 16, 16),
    }
)
def swin(
    *,
    variant: str = "swin_tiny_patch4_window7_224",
    patch: Count | None = None,
    window: Count | None = None,
    dim: Count | None = None,
    depths: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    mlp_ratio: float = 4.0,
    drop_path: float | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """A Swin Transformer (section 3): attention has a learned bias for each head and each offset.

    variant: ``swin_`` and a size (tiny, small, base, large), perhaps ``_patch4`` and ``_window7``; it says
    what the arguments below it do not. A resolution at its end says where the name comes from: the maps
    follow from `input`, and one no larger than the window is a single window, with no more offsets than it
    has. patch: pixels of a side of a patch. window: positions of a side of a window. dim: channels of the
    first stage, doubled at each further one. depths, heads: blocks, and heads of a block, of each stage.
    mlp_ratio: inner channels of the perceptrons, in units of the stage's. drop_path: the rate at which the
    last block's branches are dropped in training; it rises from 0. Weights start as in the authors' code,
    N(0, 0.02^2). Raises ValueError for a variant without a size, for stages whose depths and heads differ in
    number, and for channels that are no multiple of the heads.
    """
    found = named(variant, NAME, SIZES, like="swin_tiny_patch4_window7")
    size = SIZES[found[1]]
    patch, window = patch or int(found[2] or 4), window or int(found[3] or 7)
    dim, depths, heads = dim or size.dim, depths or size.depths, heads or size.heads
    if len(depths) != len(heads):
        raise ValueError(f"depths {list(depths)} and heads {list(heads)} need a number for each stage")
    rates = rising(size.drop_path if drop_path is None else drop_path, sum(depths))
    side = -(-min(input[1:]) // patch)
    stem = patch_embed(input[0], dim, patch=patch, class_token=False, positions=0, norm="layer")
    layers: list[nn.Module] = []
    for number, (blocks, many) in enumerate(zip(depths, heads, strict=True)):
        if number:
            layers.append(patch_merging(dim, 2 * dim, 2))
            dim, side = 2 * dim, -(-side // 2)
        first = sum(depths[:number])
        own = rates[first : first + blocks]
        layers += stage(dim, heads=many, window=window, side=side, mlp_ratio=mlp_ratio, rates=own)
    return Swin(stem, layers, width=dim, classes=classes)
