"""What the cells of NASNet, PNASNet and ENAS need beside the common operations: forms that change the width,
states that are taken as they are, stems without padding, second classifiers (Zoph et al. 2018; Liu et al.
2018; Pham et al. 2018).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nas.primitives.conv import FactorizedReduction, conv_bn, separable_conv
from nas.primitives.head import AuxiliaryHead
from nas.primitives.pool import avg_pool, max_pool
from nas.primitives.primitive import Tally, primitive

KERNELS = (3, 5, 7)
POOLS = {"max": max_pool, "avg": avg_pool}


def _widening(t: Tally, c: int, s: int, a: bool, kernel: int = 3) -> Tally:
    for stride in (s, 1):
        t.conv(t.c, kernel, stride, groups=t.c).conv(c).norm(a)
    return t


@primitive(
    "widening_sep_conv",
    cost=_widening,
    attributes={"kernel": KERNELS},
    variants={f"widening_sep_conv_{k}x{k}": {"kernel": k} for k in KERNELS},
)
def widening_sep_conv(
    c_in: int, c_out: int, stride: int = 1, affine: bool = True, kernel: int = 3
) -> nn.Module:
    """Two depthwise-separable convolutions, of which the first has the stride and the new width

    `doubled_separable_conv` changes the width in the second one; where it stays they are the same.
    """
    return nn.Sequential(
        *separable_conv(c_in, c_out, stride, affine, kernel), *separable_conv(c_out, c_out, 1, affine, kernel)
    )


@primitive(
    "widening_pool",
    cost=lambda t, c, s, a, kind="max", kernel=3: t.pool(s).conv(c).norm(a),
    attributes={"kind": ("max", "avg"), "kernel": KERNELS},
    variants={
        **{f"widening_max_pool_{k}x{k}": {"kind": "max", "kernel": k} for k in KERNELS},
        "widening_avg_pool_3x3": {"kind": "avg", "kernel": 3},
    },
)
def widening_pool(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kind: Literal["max", "avg"] = "max",
    kernel: int = 3,
) -> nn.Module:
    """Pooling, then a 1x1 convolution to the new width, norm"""
    pool = POOLS[kind](c_in, c_in, stride, affine, kernel)
    return nn.Sequential(pool, *conv_bn(c_in, c_out, 1, affine, kernel=1).children())


class Shifted(nn.Module):
    """A layer on its input with a row and a column of zeros before it, without the first row and column of
    what it gives.

    At stride 2 and an even size its windows then begin at the first pixel, as TensorFlow pads; an odd size is
    left alone. So the versions of NASNet for PyTorch compute it, a row and a column more than needed. At
    stride 1, where they do so too, nothing but the effort changes.
    """

    def __init__(self, layer: nn.Module, stride: int) -> None:
        super().__init__()
        self.layer = layer
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        top, left = (_shift(size, self.stride) for size in x.shape[2:])
        shifted: Tensor = self.layer(nn.functional.pad(x, (left, 0, top, 0)))
        return shifted[:, :, top:, left:]


def _shift(size: int, stride: int) -> int:
    return 1 if stride == 1 or size % 2 == 0 else 0


def _shifted(t: Tally, c: int, s: int, a: bool, kernel: int = 3) -> Tally:
    top, left = _shift(t.h, s), _shift(t.w, s)
    t.h, t.w = t.h + top, t.w + left
    t.conv(t.c, kernel, s, groups=t.c).conv(c).norm(a)
    t.h, t.w = t.h - top, t.w - left
    return t.conv(c, kernel, groups=c).conv(c).norm(a)


@primitive(
    "shifted_sep_conv",
    cost=_shifted,
    attributes={"kernel": KERNELS},
    variants={f"shifted_sep_conv_{k}x{k}": {"kernel": k} for k in KERNELS},
)
def shifted_sep_conv(
    c_in: int, c_out: int, stride: int = 1, affine: bool = True, kernel: int = 3
) -> nn.Module:
    """Two depthwise-separable convolutions, the first of them aligned as TensorFlow pads even sizes"""
    relu, depthwise, pointwise, norm = separable_conv(c_in, c_out, stride, affine, kernel)
    first = (relu, Shifted(nn.Sequential(depthwise, pointwise), stride), norm)
    return nn.Sequential(*first, *separable_conv(c_out, c_out, 1, affine, kernel))


@primitive(
    "shifted_pool",
    cost=lambda t, c, s, a, kind="max": t.pool(s),
    keeps=True,
    pool=True,
    attributes={"kind": ("max", "avg")},
    variants={f"shifted_{kind}_pool_3x3": {"kind": kind} for kind in ("max", "avg")},
)
def shifted_pool(
    c_in: int, c_out: int, stride: int = 1, affine: bool = True, kind: Literal["max", "avg"] = "max"
) -> nn.Module:
    """3x3 pooling, aligned as TensorFlow pads even sizes"""
    pool = POOLS[kind](c_in, c_out, stride)
    return pool if stride == 1 else Shifted(pool, stride)


@primitive("linear_preprocess", cost=lambda t, c, s, a: t.conv(c, 1, s).norm(a))
def linear_preprocess(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """1x1 convolution and norm, or a factorised reduction at stride 2, without an activation before

    It brings a state that no block reads to the shape of its cell's output.
    """
    if stride == 1:
        return conv_bn(c_in, c_out, 1, affine, kernel=1)
    reduction = FactorizedReduction(c_in, c_out, affine)
    reduction.add_module("relu", nn.Identity())
    return reduction


def _unpadded(t: Tally, c: int, s: int, a: bool) -> None:
    height, width = (t.h - 3) // s + 1, (t.w - 3) // s + 1
    weights = 9 * t.c * c
    t.params += weights
    t.macs += weights * height * width
    t.c, t.h, t.w = c, height, width
    t.norm(a)


@primitive("unpadded_conv_bn", cost=_unpadded, least=lambda stride: 3)
def unpadded_conv_bn(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """3x3 convolution without padding, norm: the size becomes floor((size - 3) / stride) + 1"""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, bias=False), nn.BatchNorm2d(c_out, affine=affine))


def _head(
    t: Tally, c: int, stride: int, affine: bool, kernel: int = 2, bias: bool = True, same: bool = False
) -> None:
    t.h, t.w = (t.h - 5) // stride + 1, (t.w - 5) // stride + 1
    t.conv(128).norm(affine)
    if not same:
        t.h, t.w = t.h - kernel + 1, t.w - kernel + 1
    t.conv(768, kernel).norm(affine)
    t.h = t.w = 1
    t.linear(c, bias)


@primitive(
    "picture_head",
    cost=_head,
    strides=(3,),
    least=lambda stride: 5 + stride,
    attributes={"kernel": (2, 1), "bias": (True, False), "same": (False, True)},
)
def picture_head(
    c_in: int,
    c_out: int,
    stride: int = 3,
    affine: bool = True,
    kernel: int = 2,
    bias: bool = True,
    same: bool = False,
) -> nn.Module:
    """A second classifier for training whose last convolution is as large as its picture

    (batch, c_in, h, w) -> (batch, c_out): `AuxiliaryHead` with a last convolution of `kernel`, with "same"
    padding (ENAS) or without (NASNet), and a classifier with or without a bias.
    """
    head = AuxiliaryHead(c_in, c_out, stride, affine)
    before = (kernel - 1) // 2 if same else 0
    after = kernel - 1 - before if same else 0
    head.features[5] = nn.Sequential(
        nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(128, 768, kernel, bias=False)
    )
    head.classifier = nn.Linear(768, c_out, bias)
    return head
