"""Blocks for small devices: depthwise-separable, inverted residual and its fused form, fire."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nas.primitives.conv import FORMS, conv_bn, grouped
from nas.primitives.gates import GATES, SqueezeExcite, squeeze, squeeze_width
from nas.primitives.layers import ACTS, NORMS, Act, Gate, Norm, Residual
from nas.primitives.primitive import Tally, primitive

SqueezeOf = Literal["input", "hidden"]


def _separable(
    t: Tally, c: int, s: int, a: bool, kernel: int = 3, act: str = "relu", norm: str = "batch"
) -> Tally:
    return t.conv(t.c, kernel, s, groups=t.c).norm(a, norm).conv(c).norm(a, norm)


@primitive("depthwise_separable", cost=_separable, rule=grouped, attributes={"kernel": (3, 5, 7), **FORMS})
def depthwise_separable(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """Depthwise and pointwise convolution, each with norm and activation (MobileNet, Howard et al. 2017)"""
    return nn.Sequential(
        conv_bn(c_in, c_in, stride, affine, kernel, groups=c_in, act=act, norm=norm),
        conv_bn(c_in, c_out, 1, affine, 1, act=act, norm=norm),
    )


class Inverted(NamedTuple):
    """The arguments of an inverted residual, and the widths that follow from them."""

    kernel: int = 3
    expand: float = 6
    se: float = 0.0
    se_of: SqueezeOf = "input"
    se_round: int = 1
    se_act: Act = "relu"
    gate: Gate = "sigmoid"
    act: Act = "relu6"
    norm: Norm = "batch"
    residual: bool = True
    expand_round: int = 1
    expand_always: bool = False

    @property
    def expands(self) -> bool:
        return self.expand != 1 or self.expand_always

    def hidden(self, c_in: int) -> int:
        """Channels between expansion and projection."""
        if self.expand_round == 1:
            return round(c_in * self.expand)
        return squeeze_width(c_in, self.expand, self.expand_round)

    def adds(self, c_in: int, c_out: int, stride: int) -> bool:
        """Whether the input, which has the shape of the output then, is added to it."""
        return self.residual and stride == 1 and c_in == c_out

    def squeeze(self, c_in: int) -> int:
        """Channels of the squeeze; 0: there is none."""
        seen = c_in if self.se_of == "input" else self.hidden(c_in)
        return squeeze_width(seen, self.se, self.se_round) if self.se else 0

    def gated(self, c_in: int, channels: int) -> nn.Module:
        """The squeeze-excite on `channels`, or nothing."""
        width = self.squeeze(c_in)
        return SqueezeExcite(channels, width, act=self.se_act, gate=self.gate) if width else nn.Identity()


def _invertible(c_in: int, c_out: int, stride: int, **given: Any) -> str | None:
    form = Inverted(**given)
    if form.hidden(c_in) < 1:
        return f"expand {form.expand} leaves none of {c_in} channels: it is the hidden width over that"
    if not 0 <= form.se <= 1 or form.se_round < 1:
        return f"se is a fraction from 0 to 1 and se_round at least 1, got {form.se} and {form.se_round}"
    return grouped(c_in, c_out, stride, form.kernel)


def _inverted(t: Tally, c: int, s: int, a: bool, **given: Any) -> Tally:
    form = Inverted(**given)
    hidden, width = form.hidden(t.c), form.squeeze(t.c)
    if form.expands:
        t.conv(hidden).norm(a, form.norm)
    t.conv(hidden, form.kernel, s, groups=hidden).norm(a, form.norm)
    return squeeze(t, width).conv(c).norm(a, form.norm)


INVERTED = {
    "kernel": (3, 5, 7),
    "se": (0.0, 0.5),
    "se_of": ("input", "hidden"),
    "se_round": (1, 8),
    "se_act": ("relu", "silu"),
    "gate": GATES,
    "norm": NORMS,
    "residual": (True, False),
}


@primitive(
    "inverted_residual",
    cost=_inverted,
    rule=_invertible,
    attributes={
        **INVERTED,
        "expand": (6, 1, 3, 4.5),
        "act": ("relu6", "hard_swish", "silu"),
        "expand_round": (1, 8),
        "expand_always": (False, True),
    },
)
def inverted_residual(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    expand: float = 6,
    se: float = 0.0,
    se_of: SqueezeOf = "input",
    se_round: int = 1,
    se_act: Act = "relu",
    gate: Gate = "sigmoid",
    act: Act = "relu6",
    norm: Norm = "batch",
    residual: bool = True,
    expand_round: int = 1,
    expand_always: bool = False,
) -> nn.Module:
    """Inverted residual with kernel, expansion and squeeze-excite (Sandler et al. 2018; Howard et al. 2019)

    A 1x1 convolution expands, a depthwise one follows, channels are weighed, and a 1x1 convolution projects,
    without an activation. The input is added where it has the shape of the output.

    `expand`: hidden width over c_in, rounded to a multiple of `expand_round` (MobileNetV3: 8); at 1 there is
    no expansion, as in the first block of these networks, unless `expand_always` (FBNet, Wu et al. 2019).
    `se`: width of the squeeze as a fraction (0: no squeeze-excite) of the block's input (MnasNet,
    EfficientNet) or of its hidden width (MobileNetV3), rounded to a multiple of `se_round` (MobileNetV3: 8);
    `se_act`: the activation behind it (EfficientNet: silu).
    """
    squeezed = (se, se_of, se_round, se_act, gate)
    form = Inverted(kernel, expand, *squeezed, act, norm, residual, expand_round, expand_always)
    hidden = form.hidden(c_in)
    layers = {
        "expand": conv_bn(c_in, hidden, 1, affine, 1, act=act, norm=norm) if form.expands else nn.Identity(),
        "depthwise": conv_bn(hidden, hidden, stride, affine, kernel, groups=hidden, act=act, norm=norm),
        "squeeze": form.gated(c_in, hidden),
        "project": conv_bn(hidden, c_out, 1, affine, 1, norm=norm),
    }
    return Residual(layers, residual=form.adds(c_in, c_out, stride))


def _fused(t: Tally, c: int, s: int, a: bool, expand: float = 4, **given: Any) -> Tally:
    form = Inverted(expand=expand, **given)
    width = form.squeeze(t.c)
    if expand == 1:
        return squeeze(t, width).conv(c, form.kernel, s).norm(a, form.norm)
    t.conv(form.hidden(t.c), form.kernel, s).norm(a, form.norm)
    return squeeze(t, width).conv(c).norm(a, form.norm)


@primitive(
    "fused_inverted_residual",
    cost=_fused,
    rule=_invertible,
    attributes={**INVERTED, "expand": (4, 1, 2.5), "act": ("silu", "relu")},
)
def fused_inverted_residual(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    expand: float = 4,
    se: float = 0.0,
    se_of: SqueezeOf = "input",
    se_round: int = 1,
    se_act: Act = "relu",
    gate: Gate = "sigmoid",
    act: Act = "silu",
    norm: Norm = "batch",
    residual: bool = True,
) -> nn.Module:
    """Fused inverted residual: a k x k expansion, then 1x1 (EfficientNetV2, Tan & Le 2021)

    Arguments as in `inverted_residual`. Without expansion there is one k x k convolution, with an activation,
    as in the first stage of EfficientNetV2.
    """
    form = Inverted(kernel, expand, se, se_of, se_round, se_act, gate, act, norm, residual)
    hidden, layers = form.hidden(c_in), {}
    if expand != 1:
        layers["expand"] = conv_bn(c_in, hidden, stride, affine, kernel, act=act, norm=norm)
    layers["squeeze"] = form.gated(c_in, hidden)
    if expand != 1:
        layers["project"] = conv_bn(hidden, c_out, 1, affine, 1, norm=norm)
    else:
        layers["project"] = conv_bn(c_in, c_out, stride, affine, kernel, act=act, norm=norm)
    return Residual(layers, residual=form.adds(c_in, c_out, stride))


class Fire(nn.Module):
    """Squeezes by a 1x1 convolution, expands by 1x1 and 3x3 ones side by side (SqueezeNet, Iandola 2016).

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)); a max pooling in front takes
    the stride, as between the modules of the published network. `widths`: of squeeze, 1x1 and 3x3.
    """

    def __init__(
        self, c_in: int, stride: int, affine: bool, widths: tuple[int, int, int], **form: Any
    ) -> None:
        super().__init__()
        width, narrow, wide = widths
        self.pool = nn.MaxPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.squeeze = conv_bn(c_in, width, 1, affine, 1, **form)
        self.expand1 = conv_bn(width, narrow, 1, affine, 1, **form)
        self.expand3 = conv_bn(width, wide, 1, affine, 3, **form)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(self.pool(x))
        return torch.cat([self.expand1(squeezed), self.expand3(squeezed)], dim=1)


def _fire_widths(c_out: int, squeeze: float = 0.125, wide: float = 0.5) -> tuple[int, int, int]:
    """Channels of the squeeze and of the 1x1 and 3x3 expansions."""
    width = max(1, round(squeeze * c_out)) if squeeze < 1 else int(squeeze)
    reach = round(wide * c_out) if wide < 1 else int(wide)
    return width, c_out - reach, reach


def _burns(
    c_in: int, c_out: int, stride: int, squeeze: float = 0.125, wide: float = 0.5, **others: object
) -> str | None:
    _, narrow, reach = _fire_widths(c_out, squeeze, wide)
    if min(squeeze, narrow, reach) <= 0:
        return (
            f"squeeze {squeeze}, 1x1 {narrow} and 3x3 {reach} of {c_out} channels must all be positive: "
            "widths below 1 are fractions of c_out"
        )
    return None


def _fire(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    squeeze: float = 0.125,
    wide: float = 0.5,
    bias: bool = True,
    act: str = "relu",
    norm: str = "none",
) -> Tally:
    width, narrow, reach = _fire_widths(c, squeeze, wide)
    t.pool(s).conv(width, bias=bias).norm(a, norm)
    paths = t.branch().conv(narrow, bias=bias), t.branch().conv(reach, 3, bias=bias)
    return t.join(*(path.norm(a, norm) for path in paths))


@primitive(
    "fire",
    cost=_fire,
    rule=_burns,
    attributes={
        "squeeze": (0.125, 0.5, 3),
        "wide": (0.5, 0.25, 5),
        "bias": (True, False),
        "act": ACTS,
        "norm": ("none", "batch", "group", "layer"),
    },
)
def fire(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    squeeze: float = 0.125,
    wide: float = 0.5,
    bias: bool = True,
    act: Act = "relu",
    norm: Norm = "none",
) -> nn.Module:
    """Fire module: 1x1 squeeze, then 1x1 and 3x3 side by side (SqueezeNet, Iandola et al. 2016)

    `squeeze` and `wide` (the 3x3 part of c_out): channels, or below 1 fractions of c_out. At stride 2 a 3x3
    max pooling comes first.
    """
    widths = _fire_widths(c_out, squeeze, wide)
    return Fire(c_in, stride, affine, widths, bias=bias, act=act, norm=norm)
