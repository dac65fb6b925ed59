"""Activations and normalisations by name: parts of primitives, and primitives themselves."""

from __future__ import annotations

from math import gcd
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from nas.primitives.primitive import primitive

Act = Literal["relu", "leaky_relu", "sigmoid", "tanh", "relu6", "hard_swish", "silu", "gelu", "none"]
Gate = Literal["sigmoid", "hard_sigmoid"]  # what opens and closes channels in [0, 1]
Norm = Literal["batch", "group", "layer", "none"]
ACTS: tuple[str, ...] = get_args(Act)
NORMS: tuple[str, ...] = get_args(Norm)
GROUP = 32  # groups of a group norm where the channels allow it (Wu & He 2018)


def activation(act: str = "relu") -> nn.Module:
    """The activation function of that name. Raises ValueError for another."""
    if act == "relu":
        return nn.ReLU()
    if act == "leaky_relu":
        return nn.LeakyReLU(0.1)
    if act == "sigmoid":
        return nn.Sigmoid()
    if act == "tanh":
        return nn.Tanh()
    if act == "relu6":
        return nn.ReLU6()
    if act == "hard_swish":
        return nn.Hardswish()
    if act == "hard_sigmoid":
        return nn.Hardsigmoid()
    if act == "silu":
        return nn.SiLU()
    if act == "gelu":
        return nn.GELU()
    if act == "none":
        return nn.Identity()
    raise ValueError(
        f"no activation {act!r}: there are relu, leaky_relu, sigmoid, tanh, relu6, hard_swish, silu, gelu, none"
    )


class LayerNorm(nn.Module):
    """Normalises the channels of every position of (batch, channels, height, width) (Liu et al. 2022)."""

    def __init__(self, channels: int, affine: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.channels = channels
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1)
        normed = nn.functional.layer_norm(last, (self.channels,), self.weight, self.bias, self.eps)
        return normed.movedim(-1, 1)


def normalisation(norm: str, channels: int, affine: bool = True) -> nn.Module:
    """The normalisation of that name, of `channels`. Raises ValueError for another."""
    if norm == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    if norm == "group":
        return nn.GroupNorm(gcd(GROUP, channels), channels, affine=affine)
    if norm == "layer":
        return LayerNorm(channels, affine)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"no normalisation {norm!r}: there are batch, group, layer, none")


@primitive(
    "activation",
    cost=lambda t, c, s, a, act="relu": t,
    strides=(1,),
    keeps=True,
    attributes={"act": ACTS},
    variants={act: {"act": act} for act in ACTS if act != "none"},
)
def activate(c_in: int, c_out: int, stride: int = 1, affine: bool = True, act: Act = "relu") -> nn.Module:
    """An activation alone"""
    return activation(act)


@primitive(
    "norm",
    cost=lambda t, c, s, a, norm="batch": t.norm(a, norm),
    strides=(1,),
    keeps=True,
    attributes={"norm": NORMS},
    variants={f"{norm}_norm": {"norm": norm} for norm in NORMS if norm != "none"},
)
def normalise(c_in: int, c_out: int, stride: int = 1, affine: bool = True, norm: Norm = "batch") -> nn.Module:
    """A normalisation alone"""
    return normalisation(norm, c_out, affine)
