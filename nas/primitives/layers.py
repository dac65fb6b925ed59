"""Activations and normalisations by name: parts of primitives, and primitives themselves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import gcd
from typing import Literal, get_args

from torch import Tensor, nn

from nas.primitives.primitive import primitive

Act = Literal["relu", "leaky_relu", "sigmoid", "tanh", "relu6", "hard_swish", "silu", "gelu", "none"]
Gate = Literal["sigmoid", "hard_sigmoid"]  # what opens and closes channels in [0, 1]
Norm = Literal["batch", "group", "layer", "none"]
ACTS: tuple[str, ...] = get_args(Act)
NORMS: tuple[str, ...] = get_args(Norm)
GROUP = 32  # groups of a group norm where the channels allow it (Wu & He 2018)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish, "silu": nn.SiLU, "gelu": nn.GELU, "hard_sigmoid": nn.Hardsigmoid,
    "none": nn.Identity,
}  # fmt: skip


def activation(act: str = "relu") -> nn.Module:
    """The activation function of that name."""
    return ACTIVATIONS[act]()


class LayerNorm(nn.LayerNorm):
    """Normalises the channels of every position of (batch, channels, height, width) (Liu et al. 2022)."""

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__(channels, eps=1e-6, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Residual(nn.Sequential):
    """Layers in a row. With `residual` their input is added to what they give, which has its shape."""

    def __init__(self, layers: Mapping[str, nn.Module], *, residual: bool) -> None:
        super().__init__(OrderedDict(layers))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return x + y if self.residual else y


def normalisation(norm: str, channels: int, affine: bool = True) -> nn.Module:
    """The normalisation of that name, of `channels`."""
    if norm == "group":
        return nn.GroupNorm(gcd(GROUP, channels), channels, affine=affine)
    if norm == "layer":
        return LayerNorm(channels, affine)
    return nn.BatchNorm2d(channels, affine=affine) if norm == "batch" else nn.Identity()


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
