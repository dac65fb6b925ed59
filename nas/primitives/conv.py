"""Convolutions: plain, grouped, dilated, separable, depthwise and factorised, and the inputs of cells.

Most have the order of NASNet and DARTS: activation first, norm last (Zoph et al. 2018; Liu et al. 2019).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.primitives.layers import ACTS, NORMS, Act, Norm, activation, normalisation
from nas.primitives.primitive import Tally, primitive

FORMS = {"act": ACTS, "norm": NORMS}


def grouped(
    c_in: int, c_out: int, stride: int, kernel: int = 3, groups: int = 1, **others: object
) -> str | None:
    """Why these numbers make no convolution of the same size, or None."""
    if kernel % 2 == 0:
        return f"a kernel needs a middle: an odd size, not {kernel}"
    if c_in % groups or c_out % groups:
        return f"{groups} groups must divide the {c_in} channels in and the {c_out} out"
    return None


def _conv(t: Tally, c: int, s: int, a: bool, kernel: int = 3, groups: int = 1, dilation: int = 1) -> Tally:
    return t.conv(c, kernel, s, groups).norm(a)


@primitive(
    "relu_conv_bn",
    cost=_conv,
    rule=grouped,
    attributes={"kernel": (3, 1, 5), "groups": (1, 2), "dilation": (1, 2)},
    variants={
        "conv_1x1": {"kernel": 1},
        "nor_conv_1x1": {"kernel": 1},
        "conv_3x3": {"kernel": 3},
        "nor_conv_3x3": {"kernel": 3},
        "conv_5x5": {"kernel": 5},
        "conv_7x7": {"kernel": 7},
        "grouped_conv_3x3": {"kernel": 3, "groups": 2},
        "dilated_conv_3x3": {"kernel": 3, "dilation": 2},
        "dilated_conv_5x5": {"kernel": 5, "dilation": 2},
    },
)
def relu_conv_bn(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    groups: int = 1,
    dilation: int = 1,
) -> nn.Module:
    """ReLU, convolution, batch norm"""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


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


def _norm_last(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    kernel: int = 3,
    groups: int = 1,
    dilation: int = 1,
    act: str = "none",
    norm: str = "batch",
    bias: bool = False,
) -> Tally:
    return t.conv(c, kernel, s, groups, bias).norm(a, norm)


@primitive(
    "conv_bn",
    cost=_norm_last,
    rule=grouped,
    attributes={
        "kernel": (3, 1, 5),
        "groups": (1, 2),
        "dilation": (1, 2),
        "bias": (False, True),
        "act": ("none", "relu"),
        "norm": NORMS,
    },
    variants={"conv_bn_relu_3x3": {"kernel": 3, "act": "relu"}},
)
def conv_bn(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    groups: int = 1,
    dilation: int = 1,
    act: Act = "none",
    norm: Norm = "batch",
    bias: bool = False,
) -> nn.Module:
    """Convolution, norm, activation: a stem, or the order of hand-designed networks"""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups, bias)
    parts = (convolution, normalisation(norm, c_out, affine), activation(act))
    return nn.Sequential(*(part for part in parts if not isinstance(part, nn.Identity)))


def _depthwise(t: Tally, c: int, s: int, a: bool, kernel: int = 3, dilation: int = 1) -> Tally:
    return t.conv(c, kernel, s, groups=t.c).norm(a)


@primitive(
    "depthwise_conv",
    cost=_depthwise,
    keeps=True,
    rule=grouped,
    attributes={"kernel": (3, 5, 7), "dilation": (1, 2)},
    variants={f"depthwise_conv_{k}x{k}": {"kernel": k} for k in (3, 5, 7)},
)
def depthwise_conv(
    c_in: int, c_out: int, stride: int = 1, affine: bool = True, kernel: int = 3, dilation: int = 1
) -> nn.Module:
    """ReLU, depthwise convolution, batch norm"""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups=c_in, bias=False)
    return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(c_out, affine=affine))


def _separable(t: Tally, c: int, s: int, a: bool, kernel: int = 3, dilation: int = 1) -> Tally:
    return t.conv(t.c, kernel, s, groups=t.c).conv(c).norm(a)


@primitive(
    "separable_conv",
    cost=_separable,
    rule=grouped,
    attributes={"kernel": (3, 5, 7), "dilation": (1, 2)},
    variants={
        **{f"separable_conv_{k}x{k}": {"kernel": k} for k in (3, 5, 7)},
        **{f"dil_conv_{k}x{k}": {"kernel": k, "dilation": 2} for k in (3, 5)},
    },
)
def separable_conv(
    c_in: int, c_out: int, stride: int = 1, affine: bool = True, kernel: int = 3, dilation: int = 1
) -> nn.Sequential:
    """ReLU, depthwise convolution, pointwise convolution, batch norm (Chollet 2017)"""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_in, kernel, stride, padding, dilation, groups=c_in, bias=False),
        nn.Conv2d(c_in, c_out, 1, bias=False),
        nn.BatchNorm2d(c_out, affine=affine),
    )


def _doubled(t: Tally, c: int, s: int, a: bool, kernel: int = 3) -> Tally:
    return _separable(_separable(t, t.c, s, a, kernel), c, 1, a, kernel)


@primitive(
    "doubled_separable_conv",
    cost=_doubled,
    rule=grouped,
    attributes={"kernel": (3, 5, 7)},
    variants={f"sep_conv_{k}x{k}": {"kernel": k} for k in (3, 5, 7)},
)
def doubled_separable_conv(
    c_in: int, c_out: int, stride: int = 1, affine: bool = True, kernel: int = 3
) -> nn.Module:
    """Two depthwise-separable convolutions in a row, the stride in the first (Zoph et al. 2018)"""
    return nn.Sequential(
        *separable_conv(c_in, c_in, stride, affine, kernel),
        *separable_conv(c_in, c_out, 1, affine, kernel),
    )


def _factorised(t: Tally, c: int, s: int, a: bool, kernel: int = 7) -> Tally:
    return t.conv(c, (1, kernel), (1, s)).conv(c, (kernel, 1), (s, 1)).norm(a)


@primitive(
    "factorised_conv",
    cost=_factorised,
    rule=grouped,
    attributes={"kernel": (7, 3)},
    variants={
        "conv_1x3_3x1": {"kernel": 3},
        "conv_1x7_7x1": {"kernel": 7},
        "conv_7x1_1x7": {"kernel": 7},
    },
)
def factorised_conv(
    c_in: int, c_out: int, stride: int = 1, affine: bool = True, kernel: int = 7
) -> nn.Module:
    """ReLU, a 1 x k then a k x 1 convolution, batch norm (Zoph et al. 2018)"""
    reach = kernel // 2
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(c_in, c_out, (1, kernel), (1, stride), (0, reach), bias=False),
        nn.Conv2d(c_out, c_out, (kernel, 1), (stride, 1), (reach, 0), bias=False),
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
    if stride == 1:
        return relu_conv_bn(c_in, c_out, 1, affine, kernel=1)
    return FactorizedReduction(c_in, c_out, affine)
