"""Convolutions: plain, separable, dilated separable and factorised, each ReLU first and batch norm last
(DARTS).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.primitives.primitive import Tally, primitive


def relu_conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, affine: bool = True) -> nn.Sequential:
    """ReLU, convolution, batch norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


@primitive("conv_1x1", "nor_conv_1x1", cost=lambda t, c, s, a: t.conv(c, 1, s).norm(a))
def conv_1x1(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """ReLU, 1x1 convolution, batch norm"""
    return relu_conv_bn(c_in, c_out, 1, stride, affine)


@primitive("conv_3x3", "nor_conv_3x3", cost=lambda t, c, s, a: t.conv(c, 3, s).norm(a))
def conv_3x3(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """ReLU, 3x3 convolution, batch norm"""
    return relu_conv_bn(c_in, c_out, 3, stride, affine)


@primitive("conv_5x5", cost=lambda t, c, s, a: t.conv(c, 5, s).norm(a))
def conv_5x5(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """ReLU, 5x5 convolution, batch norm"""
    return relu_conv_bn(c_in, c_out, 5, stride, affine)


@primitive("conv_bn_3x3", cost=lambda t, c, s, a: t.conv(c, 3, s).norm(a))
def conv_bn_3x3(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """3x3 convolution and batch norm without a ReLU before: a stem"""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


@primitive("linear_conv_1x1", cost=lambda t, c, s, a: t.conv(c, 1, s))
def linear_conv_1x1(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """1x1 convolution alone: no ReLU, no norm"""
    return nn.Conv2d(c_in, c_out, 1, stride, bias=False)


def depthwise_separable(
    c_in: int, c_out: int, kernel: int, stride: int = 1, affine: bool = True, dilation: int = 1
) -> nn.Sequential:
    """ReLU, depthwise convolution, pointwise convolution, batch norm."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_in, kernel, stride, padding, dilation, groups=c_in, bias=False),
        nn.Conv2d(c_in, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


def doubled_separable(
    c_in: int, c_out: int, kernel: int, stride: int = 1, affine: bool = True
) -> nn.Sequential:
    """Two depthwise-separable convolutions in a row, the stride in the first (Zoph et al. 2018)."""
    return nn.Sequential(
        *depthwise_separable(c_in, c_in, kernel, stride, affine),
        *depthwise_separable(c_in, c_out, kernel, 1, affine),
    )


def _separable(t: Tally, c: int, kernel: int, stride: int, affine: bool) -> Tally:
    return t.conv(t.c, kernel, stride, groups=t.c).conv(c).norm(affine)


def _doubled(t: Tally, c: int, kernel: int, stride: int, affine: bool) -> Tally:
    return _separable(_separable(t, t.c, kernel, stride, affine), c, kernel, 1, affine)


@primitive("sep_conv_3x3", cost=lambda t, c, s, a: _doubled(t, c, 3, s, a))
def sep_conv_3x3(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """3x3 depthwise-separable convolution, twice"""
    return doubled_separable(c_in, c_out, 3, stride, affine)


@primitive("sep_conv_5x5", cost=lambda t, c, s, a: _doubled(t, c, 5, s, a))
def sep_conv_5x5(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """5x5 depthwise-separable convolution, twice"""
    return doubled_separable(c_in, c_out, 5, stride, affine)


@primitive("sep_conv_7x7", cost=lambda t, c, s, a: _doubled(t, c, 7, s, a))
def sep_conv_7x7(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """7x7 depthwise-separable convolution, twice"""
    return doubled_separable(c_in, c_out, 7, stride, affine)


@primitive("dil_conv_3x3", cost=lambda t, c, s, a: _separable(t, c, 3, s, a))
def dil_conv_3x3(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """3x3 depthwise-separable convolution, dilation 2 (field of 5x5)"""
    return depthwise_separable(c_in, c_out, 3, stride, affine, dilation=2)


@primitive("dil_conv_5x5", cost=lambda t, c, s, a: _separable(t, c, 5, s, a))
def dil_conv_5x5(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """5x5 depthwise-separable convolution, dilation 2 (field of 9x9)"""
    return depthwise_separable(c_in, c_out, 5, stride, affine, dilation=2)


def _factorised(t: Tally, c: int, stride: int, affine: bool) -> Tally:
    return t.conv(c, (1, 7), (1, stride)).conv(c, (7, 1), (stride, 1)).norm(affine)


@primitive("conv_1x7_7x1", "conv_7x1_1x7", cost=_factorised)
def conv_1x7_7x1(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """ReLU, 1x7 then 7x1 convolution, batch norm"""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, (1, 7), (1, stride), (0, 3), bias=False),
        nn.Conv2d(c_out, c_out, (7, 1), (stride, 1), (3, 0), bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


class FactorizedReduction(nn.Module):
    """Halves height and width without losing pixels: two 1x1 convolutions of stride 2, one of them shifted by
    a pixel.

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / 2), ceil(w / 2)). Liu et al. 2019. Odd sizes are padded
    with zeros at the bottom and the right, which leaves even sizes as they are.
    """

    def __init__(self, c_in: int, c_out: int, affine: bool = True) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(c_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        reduced: Tensor = self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))
        return reduced


@primitive("preprocess", cost=lambda t, c, s, a: t.conv(c, 1, s).norm(a))
def preprocess(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """Input of a cell: ReLU-1x1-norm, or a factorised reduction at stride 2"""
    return (
        relu_conv_bn(c_in, c_out, 1, 1, affine) if stride == 1 else FactorizedReduction(c_in, c_out, affine)
    )
