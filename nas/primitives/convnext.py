"""ConvNeXt (Liu et al. 2022): convolutions arranged like a transformer.

convnext_tiny (96 to 768 channels; 3, 3, 9 and 3 blocks) has 28,589,128 parameters. Its stem is
`patchify_stem`, a case of `patch_embed`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.primitives.attention import PatchConv, PositionMLP, mlp_width
from nas.primitives.conv import grouped
from nas.primitives.layers import Act, LayerNorm
from nas.primitives.primitive import Tally, primitive


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, layer norm, perceptron at every position, a scale a channel, shortcut.

    (batch, channels, height, width), same shape.
    """

    def __init__(self, depthwise: nn.Module, norm: nn.Module, mlp: nn.Module, scale: Tensor | None) -> None:
        super().__init__()
        self.depthwise = depthwise
        self.norm = norm
        self.mlp = mlp
        self.scale = None if scale is None else nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mlp(self.norm(self.depthwise(x)))
        return x + (y if self.scale is None else y * self.scale[:, None, None])


def _block(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    kernel: int = 7,
    expand: float = 4,
    layer_scale: float = 1e-6,
    act: str = "gelu",
) -> Tally:
    if s != 1 or t.c != c:
        _downsample(t, c, s, a)
    t.params += c if layer_scale else 0
    return t.conv(c, kernel, groups=c, bias=True).norm(a).linear(mlp_width(c, expand)).linear(c)


@primitive(
    "convnext_block",
    cost=_block,
    rule=grouped,
    attributes={
        "kernel": (7, 3),
        "expand": (4, 2.5),
        "layer_scale": (1e-6, 0.0),
        "act": ("gelu", "relu"),
    },
)
def convnext_block(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 7,
    expand: float = 4,
    layer_scale: float = 1e-6,
    act: Act = "gelu",
) -> nn.Module:
    """Depthwise convolution, layer norm, two pointwise layers, shortcut (Liu et al. 2022)

    Where the shape changes, a `convnext_downsample` is before it. `layer_scale`: with what each channel of
    the branch is multiplied at first, a parameter (Touvron et al. 2021); 0: no such factor.
    """
    depthwise = nn.Conv2d(c_out, c_out, kernel, padding=kernel // 2, groups=c_out)
    mlp = PositionMLP(c_out, expand, act)
    scale = torch.full((c_out,), layer_scale) if layer_scale else None
    block = ConvNeXtBlock(depthwise, LayerNorm(c_out, affine), mlp, scale)
    if (c_in, stride) == (c_out, 1):
        return block
    return nn.Sequential(convnext_downsample(c_in, c_out, stride, affine), block)


def _downsample(t: Tally, c: int, s: int, a: bool) -> Tally:
    return t.norm(a).conv(c, s, s, bias=True)


@primitive("convnext_downsample", cost=_downsample)
def convnext_downsample(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """Layer norm, then a convolution whose kernel is its stride; zeros pad odd sizes (Liu et al. 2022)"""
    return nn.Sequential(LayerNorm(c_in, affine), PatchConv(c_in, c_out, stride))
