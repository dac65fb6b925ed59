"""Pools, identities and zeros: the operations that have few parameters or none."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.primitives.conv import FactorizedReduction, relu_conv_bn
from nas.primitives.primitive import Tally, primitive


def _skip(t: Tally, c: int, stride: int, affine: bool) -> Tally:
    return t if stride == 1 and c == t.c else t.conv(c, 1, stride).norm(affine)


@primitive("identity", cost=lambda t, c, s, a: t, strides=(1,), keeps=True)
def identity(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """The input itself"""
    return nn.Identity()


@primitive("skip_connect", cost=_skip)
def skip_connect(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """The input itself; a factorised reduction at stride 2, a 1x1 convolution where the width changes"""
    if stride == 2:
        return FactorizedReduction(c_in, c_out, affine)
    return nn.Identity() if c_in == c_out else relu_conv_bn(c_in, c_out, 1, affine, kernel=1)


class Zero(nn.Module):
    """Zeros of the shape that an operation of `c_out` channels and `stride` would give."""

    def __init__(self, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.c_out = c_out
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        strided = x[:, :1, :: self.stride, :: self.stride]
        return torch.zeros_like(strided).repeat(1, self.c_out, 1, 1)


def _zeros(t: Tally, c: int, stride: int, affine: bool) -> None:
    t.pool(stride).c = c


@primitive("none", "zero", cost=_zeros)
def none(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """Zeros: in a space's options it means that there is no connection"""
    return Zero(c_out, stride)


@primitive(
    "max_pool",
    cost=lambda t, c, s, a, kernel=3: t.pool(s),
    keeps=True,
    pool=True,
    attributes={"kernel": (3, 5, 7)},
    variants={f"max_pool_{k}x{k}": {"kernel": k} for k in (3, 5, 7)},
)
def max_pool(c_in: int, c_out: int, stride: int = 1, affine: bool = True, kernel: int = 3) -> nn.Module:
    """Max pooling"""
    return nn.MaxPool2d(kernel, stride, padding=kernel // 2)


@primitive(
    "avg_pool",
    cost=lambda t, c, s, a, kernel=3: t.pool(s),
    keeps=True,
    pool=True,
    attributes={"kernel": (3, 5, 7)},
    variants={"avg_pool_3x3": {"kernel": 3}},
)
def avg_pool(c_in: int, c_out: int, stride: int = 1, affine: bool = True, kernel: int = 3) -> nn.Module:
    """Average pooling; padded pixels are not counted"""
    return nn.AvgPool2d(kernel, stride, padding=kernel // 2, count_include_pad=False)


@primitive("avg_pool_2x2", cost=lambda t, c, s, a: t.pool(s), keeps=True)
def avg_pool_2x2(c_in: int, c_out: int, stride: int = 2, affine: bool = True) -> nn.Module:
    """2x2 average pooling of stride 2; an odd last row or column is averaged over what is there

    At stride 1 (where a small input has no stride to give) it is the identity.
    """
    if stride == 1:
        return nn.Identity()
    return nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
