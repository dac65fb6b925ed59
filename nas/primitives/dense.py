"""Densely connected layers (DenseNet: Huang et al. 2017): each layer reads what all layers before it wrote.

densenet-121 (growth 32; 6, 12, 24 and 16 bottleneck layers) has 7,978,856 parameters.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from nas.primitives.layers import NORMS, Act, Norm, activation, normalisation
from nas.primitives.pool import avg_pool_2x2
from nas.primitives.primitive import Tally, primitive

FORMS = {"act": ("relu", "silu"), "norm": NORMS}


class DenseLayer(nn.Module):
    """The input, and behind it the new channels: (batch, c, h, w) -> (batch, c + growth, h, w)."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.branch(x)], dim=1)


def _grows(c_in: int, c_out: int, stride: int, **others: object) -> str | None:
    if c_out > c_in:
        return None
    return f"a dense layer adds channels to the {c_in} that come in: give it more than that, not {c_out}"


def _layer(
    t: Tally, c: int, s: int, a: bool, bottleneck: int = 0, act: str = "relu", norm: str = "batch"
) -> Tally:
    growth = c - t.c
    branch = t.branch()
    if bottleneck:
        branch.norm(a, norm).conv(bottleneck * growth)
    return t.join(branch.norm(a, norm).conv(growth, 3), out=c)


@primitive(
    "dense_layer",
    cost=_layer,
    strides=(1,),
    rule=_grows,
    attributes={"bottleneck": (0, 4), **FORMS},
    variants={"dense_bottleneck_layer": {"bottleneck": 4}},
)
def dense_layer(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    bottleneck: int = 0,
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """Norm, activation, 3x3 convolution to c_out - c_in new channels, behind the input (Huang et al. 2017)

    `bottleneck`: a 1x1 convolution before it, to so many times the new channels; 0: none.
    """
    growth = c_out - c_in
    inner = bottleneck * growth or c_in
    parts = [normalisation(norm, c_in, affine), activation(act)]
    if bottleneck:
        squeeze = nn.Conv2d(c_in, inner, 1, bias=False)
        parts += [squeeze, normalisation(norm, inner, affine), activation(act)]
    return DenseLayer(nn.Sequential(*parts, nn.Conv2d(inner, growth, 3, padding=1, bias=False)))


def _transition(t: Tally, c: int, s: int, a: bool, act: str = "relu", norm: str = "batch") -> Tally:
    return t.norm(a, norm).conv(c).pool(s)


@primitive("dense_transition", cost=_transition, attributes=FORMS)
def dense_transition(
    c_in: int, c_out: int, stride: int = 1, affine: bool = True, act: Act = "relu", norm: Norm = "batch"
) -> nn.Module:
    """Norm, activation, 1x1 convolution; at stride 2 an average pooling of 2x2 (Huang et al. 2017)"""
    parts = [normalisation(norm, c_in, affine), activation(act), nn.Conv2d(c_in, c_out, 1, bias=False)]
    return nn.Sequential(*parts, *([avg_pool_2x2(c_out, c_out)] if stride == 2 else []))


def _positive(
    c_in: int, c_out: int, stride: int, layers: int = 4, growth: int = 12, **others: object
) -> str | None:
    if layers < 1 or growth < 1:
        return f"needs at least one layer that adds one channel, not {layers} that add {growth}"
    return None


def _block(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    layers: int = 4,
    growth: int = 12,
    bottleneck: int = 4,
    act: str = "relu",
    norm: str = "batch",
) -> Tally:
    for _ in range(layers):
        _layer(t, t.c + growth, 1, a, bottleneck, norm=norm)
    return t if (t.c, s) == (c, 1) else _transition(t, c, s, a, norm=norm)


@primitive(
    "dense_block",
    cost=_block,
    rule=_positive,
    attributes={"layers": (4, 1), "growth": (12, 4), "bottleneck": (4, 0), **FORMS},
)
def dense_block(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    layers: int = 4,
    growth: int = 12,
    bottleneck: int = 4,
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """`layers` dense layers, each of which adds `growth` channels (Huang et al. 2017)

    A `dense_transition` follows at stride 2, or where c_in + layers * growth is not c_out. `bottleneck`: the
    width of each layer's 1x1 convolution in units of `growth`; 0: none.
    """
    widths = [c_in + i * growth for i in range(layers + 1)]
    parts = [
        dense_layer(before, after, 1, affine, bottleneck, act, norm) for before, after in pairwise(widths)
    ]
    if (widths[-1], stride) != (c_out, 1):
        parts.append(dense_transition(widths[-1], c_out, stride, affine, act, norm))
    return nn.Sequential(*parts)
