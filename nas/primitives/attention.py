"""Attention and transformers (Vaswani et al. 2017; ViT: Dosovitskiy et al. 2021).

Tokens are the positions of a map (batch, channels, height, width); a sequence is (batch, channels, tokens,
1). A count of heads is reduced to what divides the channels (6 heads on 8 channels: 2), unless `head_dim` is
given. Query, key, value and output are separate layers, with the heads one after the other: a prefix of each
is the layer with fewer heads.
"""

from __future__ import annotations

from math import gcd
from typing import Literal

import torch
from torch import Tensor, nn

from nas.primitives.layers import Act, Norm, activation, normalisation
from nas.primitives.primitive import Tally, primitive

Order = Literal["pre", "post"]
ORDERS: tuple[str, ...] = ("pre", "post")


def lawful_heads(
    c_in: int,
    c_out: int,
    stride: int,
    heads: int = 8,
    head_dim: int = 0,
    order: str = "pre",
    **others: object,
) -> str | None:
    """Why these numbers make no attention, or None."""
    if order not in ORDERS:
        return f"norms are on the branches (pre) or after the sums (post), not {order}"
    if heads < 1:
        return f"attention needs at least one head, not {heads}"
    if head_dim < 0:
        return f"head_dim is a number of channels, or 0 to split them among the heads, not {head_dim}"
    return None


def head_shape(channels: int, heads: int, head_dim: int = 0) -> tuple[int, int]:
    """(heads, channels of each): as given, or the channels split among heads, reduced to what divides."""
    if head_dim:
        return heads, head_dim
    heads = gcd(heads, channels)
    return heads, channels // heads


class Attention(nn.Module):
    """Multi-head self-attention between all positions of a map: (batch, channels, height, width), same shape.

    softmax(Q K^T / sqrt(head_dim)) V in each head (Vaswani et al. 2017, eq. 1).
    """

    def __init__(self, channels: int, heads: int, head_dim: int = 0, bias: bool = True) -> None:
        super().__init__()
        self.heads, width = head_shape(channels, heads, head_dim)
        inner = self.heads * width
        self.query = nn.Linear(channels, inner, bias)
        self.key = nn.Linear(channels, inner, bias)
        self.value = nn.Linear(channels, inner, bias)
        self.project = nn.Linear(inner, channels, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x.movedim(1, -1).contiguous()  # (batch, height, width, channels)
        mixed = self.attend(self.query(x), self.key(x), self.value(x))
        projected: Tensor = self.project(mixed)
        return projected.movedim(-1, 1)

    def attend(self, *qkv: Tensor) -> Tensor:
        """Each value becomes a mean of all: three of (batch, height, width, inner) -> the same shape."""
        q, k, v = (each.flatten(1, 2) for each in qkv)
        return between(q, k, v, self.heads).view_as(qkv[0])


def between(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention in each head: three of (..., tokens, inner) -> (..., tokens, inner).

    `mask`: added to the scores, (..., heads, tokens, tokens).
    """
    q, k, v = (torch.unflatten(each, -1, (heads, -1)).transpose(-3, -2) for each in (q, k, v))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(-3, -2).flatten(-2)


def attention_cost(t: Tally, inner: int, bias: bool = True, pairs: int | None = None) -> Tally:
    """Four projections, and two products for each pair of positions (default: all pairs of the map)."""
    channels = t.c
    pairs = (t.h * t.w) ** 2 if pairs is None else pairs
    qkv = [t.branch().linear(inner, bias) for _ in range(3)]
    return t.join(*qkv, out=inner).products(2 * pairs * inner).linear(channels, bias)


@primitive(
    "multihead_attention",
    cost=lambda t, c, s, a, heads=8, head_dim=0, bias=True: attention_cost(t, heads * head_dim or c, bias),
    strides=(1,),
    keeps=True,
    rule=lawful_heads,
    attributes={"heads": (8, 3), "head_dim": (0, 5), "bias": (True, False)},
)
def multihead_attention(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    heads: int = 8,
    head_dim: int = 0,
    bias: bool = True,
) -> nn.Module:
    """Multi-head self-attention between the positions (Vaswani et al. 2017)

    `head_dim`: channels of a head; 0: the channels split among the heads, whose number is reduced to what
    divides.
    """
    return Attention(c_in, heads, head_dim, bias)


def mlp_width(channels: int, ratio: float) -> int:
    """The inner channels of a perceptron: `ratio` times as many, at least one."""
    return max(1, int(channels * ratio))


class PositionMLP(nn.Module):
    """Two linear layers on the channels of every position: (batch, channels, height, width), same shape."""

    def __init__(self, channels: int, ratio: float, act: Act = "gelu") -> None:
        super().__init__()
        inner = mlp_width(channels, ratio)
        self.expand = nn.Linear(channels, inner)
        self.act = activation(act)
        self.reduce = nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reduce(self.act(self.expand(x.movedim(1, -1).contiguous())))
        return y.movedim(-1, 1)


class TransformerBlock(nn.Module):
    """Attention, then a perceptron at every position, each with a shortcut and a norm.

    Before each and on its branch (``pre``: ViT), or after each sum (``post``: Vaswani et al. 2017).
    (batch, channels, height, width), same shape.
    """

    def __init__(self, attention: nn.Module, mlp: nn.Module, norms: list[nn.Module], order: Order) -> None:
        super().__init__()
        self.attention = attention
        self.mlp = mlp
        self.attention_norm, self.mlp_norm = norms
        self.pre = order == "pre"

    def forward(self, x: Tensor) -> Tensor:
        if self.pre:
            x = x + self.attention(self.attention_norm(x))
            y: Tensor = x + self.mlp(self.mlp_norm(x))
            return y
        x = self.attention_norm(x + self.attention(x))
        z: Tensor = self.mlp_norm(x + self.mlp(x))
        return z


def _transformer(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    heads: int = 8,
    head_dim: int = 0,
    mlp_ratio: float = 4,
    order: str = "pre",
    act: str = "gelu",
    norm: str = "layer",
) -> Tally:
    attention_cost(t, heads * head_dim or c).norm(a, norm).norm(a, norm)
    return t.linear(mlp_width(c, mlp_ratio)).linear(c)


@primitive(
    "transformer_block",
    cost=_transformer,
    strides=(1,),
    keeps=True,
    rule=lawful_heads,
    attributes={
        "heads": (8, 3),
        "head_dim": (0, 5),
        "mlp_ratio": (4, 2.5),
        "order": ORDERS,
        "act": ("gelu", "relu"),
        "norm": ("layer", "batch"),
    },
    variants={
        "vit_block": {"order": "pre", "act": "gelu"},
        "encoder_layer": {"order": "post", "act": "relu"},
    },
)
def transformer_block(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    heads: int = 8,
    head_dim: int = 0,
    mlp_ratio: float = 4,
    order: Order = "pre",
    act: Act = "gelu",
    norm: Norm = "layer",
) -> nn.Module:
    """Self-attention and a perceptron of `mlp_ratio` times the channels, each with a shortcut and a norm

    `order`: norms on the branches (``pre``) or after the sums (``post``). `head_dim`: channels of a head; 0:
    the channels split among the heads, whose number is reduced to what divides.
    """
    norms = [normalisation(norm, c_in, affine) for _ in range(2)]
    mlp = PositionMLP(c_in, mlp_ratio, act)
    return TransformerBlock(Attention(c_in, heads, head_dim), mlp, norms, order)


class PatchConv(nn.Conv2d):
    """A convolution whose stride is its kernel: one vector a patch. Zeros pad the bottom and the right.

    (batch, c_in, height, width) -> (batch, c_out, ceil(height / patch), ceil(width / patch)).
    """

    def __init__(self, c_in: int, c_out: int, patch: int) -> None:
        super().__init__(c_in, c_out, patch, stride=patch)
        self.patch = patch

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(padded(x, self.patch))


def padded(x: Tensor, multiple: int) -> Tensor:
    """Zeros at the bottom and the right of (..., height, width), up to a multiple of `multiple`."""
    height, width = x.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return nn.functional.pad(x, (0, right, 0, below)) if below or right else x


class PatchEmbed(nn.Module):
    """A picture as tokens: (batch, c_in, height, width) -> (batch, dim, tokens, 1), or a map (batch, dim,
    patches down, patches across) without a class token.

    Raises ValueError, in use, for a picture of another number of patches than there are positions.
    """

    def __init__(self, conv: nn.Module, norm: nn.Module, dim: int, class_token: bool, positions: int) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.patches = positions
        self.class_token = nn.Parameter(torch.randn(1, dim, 1, 1) * 0.02) if class_token else None
        tokens = positions + class_token
        self.positions = nn.Parameter(torch.randn(1, dim, tokens, 1) * 0.02) if positions else None

    def forward(self, x: Tensor) -> Tensor:
        patches = self.norm(self.conv(x))
        tokens: Tensor = patches.flatten(2)[..., None]  # (batch, dim, patches, 1)
        if self.patches not in (0, tokens.shape[2]):
            raise ValueError(_positions(self.patches, tokens.shape[2]))
        if self.class_token is not None:
            tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1, -1), tokens], dim=2)
        if self.positions is not None:
            tokens = tokens + self.positions
        return tokens if self.class_token is not None else tokens.view_as(patches)


def _whole(
    c_in: int, c_out: int, stride: int, patch: int = 16, positions: int = 0, **others: object
) -> str | None:
    if patch < 1 or positions < 0:
        return f"a patch is at least one pixel wide and positions are counted, not {patch} and {positions}"
    return None


def _positions(given: int, patches: int) -> str:
    return f"patch_embed has {given} positions for {patches} patches: set positions={patches}, or 0 for none"


def _patches(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    patch: int = 16,
    class_token: bool = True,
    positions: int = 0,
    norm: str = "none",
) -> None:
    t.conv(c, patch, patch, bias=True).norm(a, norm)
    patches = t.h * t.w
    if positions not in (0, patches):
        raise ValueError(_positions(positions, patches))
    t.params += c * (bool(positions) * (positions + class_token) + class_token)
    if class_token:
        t.h, t.w = patches + 1, 1


@primitive(
    "patch_embed",
    cost=_patches,
    strides=(1,),
    rule=_whole,
    attributes={
        "patch": (16, 4, 3),
        "class_token": (True, False),
        "positions": (0, 1),
        "norm": ("none", "layer"),
    },
    variants={"patchify_stem": {"patch": 4, "class_token": False, "positions": 0, "norm": "layer"}},
)
def patch_embed(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    patch: int = 16,
    class_token: bool = True,
    positions: int = 0,
    norm: Norm = "none",
) -> nn.Module:
    """Patches as tokens (ViT: Dosovitskiy et al. 2021): a convolution of kernel and stride `patch`

    With a class token, (batch, c_out, 1 + patches, 1); without, a map. `positions`: the number of patches,
    each of which has an embedding that is added, and so has the class token; 0: none. Sizes that are no
    multiple of `patch` are padded with zeros.
    """
    convolution = PatchConv(c_in, c_out, patch)
    return PatchEmbed(convolution, normalisation(norm, c_out, affine), c_out, class_token, positions)


class FirstToken(nn.Module):
    """(batch, channels, tokens, 1) -> (batch, channels): the first token."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0, 0]


def _first(t: Tally, c: int, s: int, a: bool) -> None:
    t.h = t.w = 1


@primitive("class_token", cost=_first, strides=(1,), keeps=True)
def class_token(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """The first token alone, which a classifier reads: (batch, channels)"""
    return FirstToken()
