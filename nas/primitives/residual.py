"""Residual blocks: basic, bottleneck, ResNeXt, pre-activation and wide, with the shortcuts A, B and C.

He et al. 2016 (resnet50: 25,557,032 parameters); He et al. 2016b (norm and activation before each
convolution); Zagoruyko & Komodakis 2016 (wide); Xie et al. 2017 (ResNeXt); Hu et al. 2018 (squeeze-excite).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd, prod
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from nas.primitives.gates import SqueezeExcite, squeeze, squeeze_width
from nas.primitives.layers import NORMS, Act, Norm, activation, normalisation
from nas.primitives.primitive import Tally, primitive

Shortcut = Literal["A", "B", "C"]
StrideIn = Literal["3x3", "1x1"]
SHORTCUTS: tuple[str, ...] = ("B", "A", "C")
STRIDES_IN: tuple[str, ...] = ("3x3", "1x1")
SE: Mapping[str, Any] = {"se": 1 / 16, "norm": "batch", "preact": False}  # Hu et al. 2018
FORMS = {
    "shortcut": SHORTCUTS,
    "act": ("relu", "silu"),
    "norm": NORMS,
    "se": (0.0, 0.5),
    "preact": (False, True),
}


class Conv(NamedTuple):
    """A convolution of the branch."""

    out: int
    kernel: int
    stride: int = 1
    groups: int = 1


class Form(NamedTuple):
    """What residual blocks have in common, as their attributes say it."""

    shortcut: Shortcut = "B"
    act: Act = "relu"
    norm: Norm = "batch"
    se: float = 0.0
    preact: bool = False
    dropout: float = 0.0

    def projects(self, c_in: int, convs: Sequence[Conv]) -> bool:
        """Whether the shortcut is a 1x1 convolution."""
        changes = c_in != convs[-1].out or prod(conv.stride for conv in convs) > 1
        return self.shortcut == "C" or (self.shortcut == "B" and changes)


class PaddedShortcut(nn.Module):
    """Option A (He et al. 2016): every stride-th pixel, and zeros for the channels that there were not.

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)).
    """

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.more = c_out - c_in

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


class ResidualBlock(nn.Module):
    """The activation of branch + shortcut (He et al. 2016); or their plain sum, with norm and activation
    before each convolution (He et al. 2016b). The first of these then comes before a shortcut that is a
    convolution, too, and that has no norm of its own.

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)).
    """

    def __init__(self, c_in: int, convs: Sequence[Conv], affine: bool, form: Form) -> None:
        super().__init__()
        c_out, stride = convs[-1].out, prod(conv.stride for conv in convs)
        parts = _branch(c_in, convs, affine, form)
        shared = 2 if form.preact else 0
        self.first = nn.Sequential(*parts[:shared])
        self.branch = nn.Sequential(*parts[shared:])
        self.projects = form.projects(c_in, convs)
        self.shortcut: nn.Module = nn.Identity()
        if self.projects:
            projection = nn.Conv2d(c_in, c_out, 1, stride, bias=False)
            norm = [] if form.preact else [normalisation(form.norm, c_out, affine)]
            self.shortcut = nn.Sequential(projection, *norm)
        elif (c_in, stride) != (c_out, 1):
            self.shortcut = PaddedShortcut(c_in, c_out, stride)
        self.last = nn.Identity() if form.preact else activation(form.act)

    def forward(self, x: Tensor) -> Tensor:
        ready = self.first(x)
        shortcut = self.shortcut(ready if self.projects else x)
        y: Tensor = self.last(self.branch(ready) + shortcut)
        return y


def _branch(c_in: int, convs: Sequence[Conv], affine: bool, form: Form) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for place, conv in enumerate(convs, 1):
        last = place == len(convs)
        if form.preact:
            parts += [normalisation(form.norm, c_in, affine), activation(form.act)]
        if last and form.dropout:
            parts.append(nn.Dropout(form.dropout))
        padding = conv.kernel // 2
        parts.append(
            nn.Conv2d(c_in, conv.out, conv.kernel, conv.stride, padding, groups=conv.groups, bias=False)
        )
        c_in = conv.out
        if not form.preact:
            parts += [normalisation(form.norm, c_in, affine), *([] if last else [activation(form.act)])]
    if form.se:
        parts.append(SqueezeExcite(c_in, squeeze_width(c_in, form.se)))
    return parts


def _cost(t: Tally, convs: Sequence[Conv], affine: bool, form: Form) -> Tally:
    branch, shortcut = t.branch(), t.branch()
    for conv in convs:
        if form.preact:
            branch.norm(affine, form.norm)
        branch.conv(conv.out, conv.kernel, conv.stride, conv.groups)
        if not form.preact:
            branch.norm(affine, form.norm)
    if form.se:
        squeeze(branch, squeeze_width(branch.c, form.se))
    if form.projects(t.c, convs):
        shortcut.conv(branch.c, 1, prod(conv.stride for conv in convs))
        if not form.preact:
            shortcut.norm(affine, form.norm)
    return t.join(shortcut, branch, out=branch.c)


def _lawful(
    c_in: int,
    c_out: int,
    stride: int,
    shortcut: Shortcut = "B",
    cardinality: int = 1,
    stride_in: StrideIn = "3x3",
    dropout: float = 0.0,
    **others: object,
) -> str | None:
    if shortcut not in SHORTCUTS:
        return f"there are the shortcuts A, B and C, not {shortcut}"
    if stride_in not in STRIDES_IN:
        return f"the stride is in the 3x3 or in the first 1x1 convolution, not in {stride_in}"
    if shortcut == "A" and c_out < c_in:
        return f"shortcut A adds zeros and cannot go from {c_in} channels to {c_out}: use B"
    if cardinality < 1:
        return f"cardinality is a number of groups: at least 1, not {cardinality}"
    if not 0 <= dropout < 1:
        return f"dropout is the probability of zero, in [0, 1), not {dropout}"
    return None


def _inner(c_out: int, expansion: float) -> int:
    return max(1, round(c_out * expansion))


def _basic(c_out: int, stride: int, expansion: float) -> tuple[Conv, ...]:
    return Conv(_inner(c_out, expansion), 3, stride), Conv(c_out, 3)


def _basic_cost(t: Tally, c: int, s: int, a: bool, expansion: float = 1.0, **form: Any) -> Tally:
    return _cost(t, _basic(c, s, expansion), a, Form(**form))


@primitive(
    "basic_block",
    cost=_basic_cost,
    rule=_lawful,
    attributes={"expansion": (1.0, 0.5), "dropout": (0.0, 0.3), **FORMS},
    variants={
        "preact_basic_block": {"preact": True},
        "wide_block": {"preact": True, "dropout": 0.3},
        "se_basic_block": SE,
    },
)
def basic_block(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    expansion: float = 1.0,
    shortcut: Shortcut = "B",
    act: Act = "relu",
    norm: Norm = "batch",
    se: float = 0.0,
    preact: bool = False,
    dropout: float = 0.0,
) -> nn.Module:
    """Two 3x3 convolutions and a shortcut (He et al. 2016)

    `expansion`: inner channels in units of c_out. `shortcut` (He et al. 2016): ``A`` pads with zeros, ``B``
    is a 1x1 convolution where the shape changes, ``C`` always. `se`: the part of the channels that remains in
    a squeeze-excite at the end of the branch; 0: none. `preact`: norm and activation before each convolution,
    none after the sum, so that a network ends with a `bn_relu` (He et al. 2016b). `dropout`: before the
    second convolution (Zagoruyko & Komodakis 2016).
    """
    return ResidualBlock(
        c_in, _basic(c_out, stride, expansion), affine, Form(shortcut, act, norm, se, preact, dropout)
    )


def _bottleneck(
    c_out: int, stride: int, expansion: float, groups: tuple[int, int], stride_in: StrideIn
) -> tuple[Conv, ...]:
    cardinality, width = groups
    inner = cardinality * width or _inner(c_out, expansion)
    first, second = (1, stride) if stride_in == "3x3" else (stride, 1)
    return Conv(inner, 1, first), Conv(inner, 3, second, gcd(cardinality, inner)), Conv(c_out, 1)


def _bottleneck_cost(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    expansion: float = 0.25,
    cardinality: int = 1,
    width: int = 0,
    stride_in: StrideIn = "3x3",
    **form: Any,
) -> Tally:
    return _cost(t, _bottleneck(c, s, expansion, (cardinality, width), stride_in), a, Form(**form))


@primitive(
    "bottleneck_block",
    cost=_bottleneck_cost,
    rule=_lawful,
    attributes={
        "expansion": (0.25, 0.5),
        "cardinality": (1, 3),
        "width": (0, 4),
        "stride_in": STRIDES_IN,
        **FORMS,
    },
    variants={
        "preact_bottleneck_block": {"preact": True},
        "se_bottleneck_block": SE,
        "resnext_block": {"cardinality": 32, "expansion": 0.5},
        "se_resnext_block": {"cardinality": 32, "expansion": 0.5, **SE},
    },
)
def bottleneck_block(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    expansion: float = 0.25,
    cardinality: int = 1,
    width: int = 0,
    stride_in: StrideIn = "3x3",
    shortcut: Shortcut = "B",
    act: Act = "relu",
    norm: Norm = "batch",
    se: float = 0.0,
    preact: bool = False,
) -> nn.Module:
    """1x1, 3x3 and 1x1 convolution and a shortcut (He et al. 2016; in groups: Xie et al. 2017)

    `expansion`: inner channels in units of c_out; or `width` channels in each of `cardinality` groups of the
    3x3 convolution. Without `width`, the number of groups is reduced to what divides the inner channels.
    `stride_in`: the convolution that has the stride, ``1x1`` in the first release. `shortcut`, `se` and
    `preact`: as in `basic_block`.
    """
    convs = _bottleneck(c_out, stride, expansion, (cardinality, width), stride_in)
    return ResidualBlock(c_in, convs, affine, Form(shortcut, act, norm, se, preact))
