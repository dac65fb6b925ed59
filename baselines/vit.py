"""Vision transformers: ViT (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021).

Every patch of a picture is a token, and a class token in front of them is what the classifier reads. ViT-B/16
has 86,567,656 parameters; at 224x224 pixels it has 16,848,500,736 multiply-adds, and 715,327,488 between
queries, keys and values.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.primitives.attention import PatchConv, transformer_block
from nas.primitives.layers import LayerNorm
from nas.primitives.regular import DropPath
from nas.search_space.space import Count

from .family import baseline, initialise, truncated


class Size(NamedTuple):
    """Channels of a token, blocks, heads, side of a patch, and the perceptrons' inner width per channel."""

    dim: int
    depth: int
    heads: int
    patch: int = 16
    mlp_ratio: float = 4


SIZES = {
    "tiny": Size(192, 12, 3),  # Touvron et al. 2021, table 1
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),  # Dosovitskiy et al. 2021, table 1
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16, 14),
    "giant": Size(1408, 40, 16, 14, 48 / 11),  # Zhai et al. 2022, table 2: g/14 and G/14
    "gigantic": Size(1664, 48, 16, 14, 64 / 13),
}
NAME = re.compile(r"(?:vit|deit)_([a-z]+?)(_distilled)?(?:_patch(\d+))?(?:_\d+)?")


class Tokens(nn.Module):
    """A picture as tokens with learned positions, learned tokens in front of those of the patches.

    (batch, channels, height, width) -> (batch, dim, learned + patches, 1).
    """

    def __init__(self, channels: int, dim: int, *, patch: int, learned: int, patches: int) -> None:
        super().__init__()
        self.conv = PatchConv(channels, dim, patch)
        self.learned = nn.Parameter(torch.empty(1, dim, learned, 1))
        self.positions = nn.Parameter(torch.empty(1, dim, learned + patches, 1))
        for each in (self.learned, self.positions):
            truncated(0.02)(each)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv(x).flatten(2)[..., None]
        return torch.cat([self.learned.expand(x.shape[0], -1, -1, -1), patches], dim=2) + self.positions


class VisionTransformer(nn.Module):
    """Tokens, blocks, a last norm, and a classifier for each learned token, whose logits are averaged.

    (batch, channels, height, width) -> (batch, classes).
    """

    def __init__(self, tokens: Tokens, blocks: Sequence[nn.Module], *, dim: int, classes: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.blocks = nn.Sequential(*blocks)
        self.norm = LayerNorm(dim)
        learned = tokens.learned.shape[2]
        self.classifiers = nn.ModuleList(nn.Linear(dim, classes) for _ in range(learned))
        initialise(self, linear=truncated(0.02))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.tokens(x)))
        logits = [classify(x[:, :, place, 0]) for place, classify in enumerate(self.classifiers)]
        return torch.stack(logits).mean(dim=0)


def dropping(branch: nn.Module, rate: float) -> nn.Module:
    """The branch of a residual block, zero for an example with probability `rate` in training."""
    return nn.Sequential(branch, DropPath(rate))


def rising(rate: float, blocks: int) -> list[float]:
    """The rate of each block's branches: from 0 for the first in equal steps to `rate` for the last.

    Raises ValueError for what is no probability.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path is the probability that a branch is dropped, in [0, 1), not {rate}")
    return [rate * place / max(1, blocks - 1) for place in range(blocks)]


def named(variant: str, pattern: re.Pattern[str], sizes: Collection[str], *, like: str) -> re.Match[str]:
    """The parts of a variant's name, its size first. Raises ValueError for a name of another form or size."""
    found = pattern.fullmatch(variant)
    if found is None or found[1] not in sizes:
        raise ValueError(f"variant is a name like {like}, of a size of {list(sizes)}, not {variant!r}")
    return found


def lawful(*, dim: int, heads: int, mlp_ratio: float) -> None:
    """Raises ValueError if the channels cannot be shared among the heads, or a perceptron has no width."""
    if heads < 1 or dim % heads:
        raise ValueError(f"heads share the channels equally: {dim} channels are no multiple of {heads} heads")
    if mlp_ratio <= 0:
        raise ValueError(f"mlp_ratio, a perceptron's inner width per channel, is above 0, not {mlp_ratio}")


@baseline(
    small={"patch": 8, "dim": 16, "depth": 2, "heads": 2, "drop_path": 0, "classes": 5, "input": (3, 32, 32)}
)
def vit(
    *,
    variant: str = "vit_base_patch16_224",
    patch: Count | None = None,
    dim: Count | None = None,
    depth: Count | None = None,
    heads: Count | None = None,
    mlp_ratio: float | None = None,
    distilled: bool = False,
    drop_path: float = 0.1,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """A vision transformer with learned positions and a class token.

    variant: ``vit_`` or ``deit_``, a size (tiny, small, base, large, huge, giant, gigantic), and perhaps
    ``_distilled`` and ``_patch16``; it says what the arguments below it do not. A resolution at its end says
    where the name comes from: the number of positions follows from `input`. patch: pixels of a side of a
    patch. dim: channels of a token. mlp_ratio: inner channels of the perceptrons, in units of `dim`.
    distilled: a second learned token with a classifier of its own, which DeiT trains on a teacher's answers;
    here both classifiers learn the labels, and their logits are averaged, as DeiT does at test time.
    drop_path: the rate at which the last block's branches are dropped in training (DeiT: 0.1); it rises from
    0. Weights start as in DeiT, N(0, 0.02^2) cut at two deviations. A picture whose sides are no multiples of
    the patch is padded with zeros. Raises ValueError for a variant without a size, and for channels that are
    no multiple of the heads.
    """
    found = named(variant, NAME, SIZES, like="deit_small_patch16")
    size = SIZES[found[1]]
    patch = patch or int(found[3] or size.patch)
    dim, depth, heads = dim or size.dim, depth or size.depth, heads or size.heads
    mlp_ratio = size.mlp_ratio if mlp_ratio is None else mlp_ratio
    lawful(dim=dim, heads=heads, mlp_ratio=mlp_ratio)
    patches = -(-input[1] // patch) * -(-input[2] // patch)
    learned = 2 if distilled or found[2] else 1
    blocks = []
    for rate in rising(drop_path, depth):
        block = transformer_block(dim, dim, heads=heads, mlp_ratio=mlp_ratio)
        block.attention, block.mlp = dropping(block.attention, rate), dropping(block.mlp, rate)
        blocks.append(block)
    tokens = Tokens(input[0], dim, patch=patch, learned=learned, patches=patches)
    return VisionTransformer(tokens, blocks, dim=dim, classes=classes)
