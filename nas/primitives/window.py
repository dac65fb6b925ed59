"""Swin Transformer (Liu et al. 2021): attention within windows, and merging of patches between stages.

swin_tiny (96 to 768 channels, 2, 2, 6 and 2 blocks, windows of 7) has 28,288,354 parameters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.primitives.attention import (
    Attention,
    PositionMLP,
    TransformerBlock,
    attention_cost,
    between,
    lawful_heads,
    mlp_width,
    padded,
)
from nas.primitives.layers import LayerNorm
from nas.primitives.primitive import Tally, primitive


class Windows(NamedTuple):
    """How a map is cut into windows: its height and width, those of a window, and how far these are
    shifted.
    """

    height: int
    width: int
    rows: int
    columns: int
    down: int
    right: int

    def split(self, x: Tensor, fill: float = 0) -> Tensor:
        """(batch, height, width, c) -> (batch * windows, rows * columns, c); `fill` pads to whole windows."""
        padding = (0, 0, 0, -self.width % self.columns, 0, -self.height % self.rows)
        x = nn.functional.pad(x, padding, value=fill).roll((-self.down, -self.right), (1, 2))
        x = torch.unflatten(torch.unflatten(x, 2, (-1, self.columns)), 1, (-1, self.rows))
        return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def merge(self, x: Tensor) -> Tensor:
        """What `split` made, put together again."""
        x = torch.unflatten(x, 1, (self.rows, self.columns))
        x = torch.unflatten(x, 0, (-1, -(-self.height // self.rows), -(-self.width // self.columns)))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2).roll((self.down, self.right), (1, 2))
        return x[:, : self.height, : self.width]

    def together(self, device: torch.device) -> Tensor:
        """Which positions of a window are neighbours in the map: (windows, tokens, tokens), true or false.

        A shifted window at an end of the map holds rows of the other end; what pads the map is nobody's
        neighbour but its own.
        """
        wrapped_rows = torch.arange(self.height, device=device) < self.down
        wrapped_columns = torch.arange(self.width, device=device) < self.right
        regions = 2 * wrapped_rows[:, None] + wrapped_columns.int()
        labels = self.split(regions[None, :, :, None], fill=-1)[..., 0]
        return labels[:, :, None] == labels[:, None, :]

    @property
    def whole(self) -> bool:
        """Whether every window holds neighbours only."""
        return not (self.height % self.rows or self.width % self.columns or self.down or self.right)


class WindowAttention(Attention):
    """Attention within windows, with a learned bias for each head and each offset between two positions.

    (batch, channels, height, width), same shape. With `shift` the windows begin half a window later. A map
    smaller than the window is one window; other sizes are padded at the bottom and the right, and what pads
    is not attended to.
    """

    def __init__(self, channels: int, heads: int, window: int, shift: bool) -> None:
        super().__init__(channels, heads)
        self.window = window
        self.shift = shift
        offsets = 2 * window - 1  # from 1 - window to window - 1
        self.offset_bias = nn.Parameter(torch.randn(self.heads, offsets, offsets) * 0.02)

    def attend(self, *qkv: Tensor) -> Tensor:
        windows = self._windows(*qkv[0].shape[1:3])
        mask = self._bias(windows)[None]
        if not windows.whole:
            near = windows.together(mask.device).repeat(qkv[0].shape[0], 1, 1)  # len() is no symbol
            mask = torch.where(near[:, None], mask, -torch.inf)  # (batch * windows, heads, tokens, tokens)
        q, k, v = (windows.split(each) for each in qkv)
        return windows.merge(between(q, k, v, self.heads, mask))

    def _windows(self, height: int, width: int) -> Windows:
        down, right = (
            self.window // 2 if self.shift and side > self.window else 0 for side in (height, width)
        )
        return Windows(height, width, min(self.window, height), min(self.window, width), down, right)

    def _bias(self, windows: Windows) -> Tensor:
        """The bias between any two positions of a window: (heads, tokens, tokens)."""
        rows = torch.arange(windows.rows, device=self.offset_bias.device)
        columns = torch.arange(windows.columns, device=self.offset_bias.device)
        down = (rows[:, None] - rows)[:, None, :, None] + self.window - 1
        right = (columns[:, None] - columns)[None, :, None, :] + self.window - 1
        return self.offset_bias[:, down, right].flatten(3, 4).flatten(1, 2)


def _windowed(
    c_in: int, c_out: int, stride: int, window: int = 7, heads: int = 8, **others: object
) -> str | None:
    if window < 1:
        return f"a window holds at least one position, not {window} x {window}"
    return lawful_heads(c_in, c_out, stride, heads)


def _swin(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    window: int = 7,
    shift: bool = False,
    heads: int = 8,
    mlp_ratio: float = 4,
) -> Tally:
    if s != 1 or t.c != c:
        _merging(t, c, s, a)
    rows, columns = min(window, t.h), min(window, t.w)
    windows = -(-t.h // rows) * -(-t.w // columns)
    attention_cost(t, c, pairs=windows * (rows * columns) ** 2).norm(a).norm(a)
    t.params += math.gcd(heads, c) * (2 * window - 1) ** 2
    return t.linear(mlp_width(c, mlp_ratio)).linear(c)


@primitive(
    "swin_block",
    cost=_swin,
    rule=_windowed,
    attributes={"window": (7, 4), "shift": (False, True), "heads": (8, 3), "mlp_ratio": (4, 2.5)},
    variants={"shifted_swin_block": {"shift": True}},
)
def swin_block(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    window: int = 7,
    shift: bool = False,
    heads: int = 8,
    mlp_ratio: float = 4,
) -> nn.Module:
    """Attention within windows, then a perceptron at every position (Liu et al. 2021)

    Where the shape changes, patches are merged before it. `shift`: the windows begin half a window later, as
    in every second block of a stage. The number of heads is reduced to what divides the channels.
    """
    norms: list[nn.Module] = [LayerNorm(c_out, affine) for _ in range(2)]
    attention = WindowAttention(c_out, heads, window, shift)
    block = TransformerBlock(attention, PositionMLP(c_out, mlp_ratio), norms, "pre")
    if (c_in, stride) == (c_out, 1):
        return block
    return nn.Sequential(patch_merging(c_in, c_out, stride, affine), block)


class PatchMerging(nn.Module):
    """The vectors of stride x stride neighbours as one, normalised and mapped to `c_out` channels.

    (batch, c_in, height, width) -> (batch, c_out, ceil(height / stride), ceil(width / stride)).
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 2, affine: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.norm = LayerNorm(c_in * stride**2, affine)
        self.reduce = nn.Conv2d(c_in * stride**2, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        neighbours = nn.functional.pixel_unshuffle(padded(x, self.stride), self.stride)
        merged: Tensor = self.reduce(self.norm(neighbours))
        return merged


def _merging(t: Tally, c: int, s: int, a: bool) -> Tally:
    t.pool(s).c *= s * s
    return t.norm(a).linear(c, bias=False)


@primitive("patch_merging", cost=_merging)
def patch_merging(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """Swin's step between stages: 2x2 neighbours in one vector, layer norm, a linear layer without bias"""
    return PatchMerging(c_in, c_out, stride, affine)
