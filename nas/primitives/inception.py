"""Inception modules: convolutions of several sizes side by side, concatenated or added to the input.

One list of paths describes each module; the layers and their cost are read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.layers import NORMS, Act, Norm, activation, normalisation
from nas.primitives.primitive import Tally, primitive

Far = Literal["5x5", "3x3_3x3", "1x3_3x1", "1x7_7x1"]
Pool = Literal["max", "avg"]
Kernel = tuple[int, int]
ONE, THREE, FIVE = (1, 1), (3, 3), (5, 5)
NEAR: dict[str, tuple[Kernel, ...]] = {  # the kernels of the path that sees 3x3, by the argument `far`
    "5x5": (THREE,),
    "3x3_3x3": (THREE,),
    "1x3_3x1": ((1, 3), (3, 1)),
    "1x7_7x1": ((1, 7), (7, 1)),
}
FAR: dict[str, tuple[Kernel, ...]] = {  # of the path that sees farther
    "5x5": (FIVE,),
    "3x3_3x3": (THREE, THREE),
    "1x3_3x1": ((3, 1), (1, 3)) * 2,
    "1x7_7x1": ((7, 1), (1, 7)) * 2,
}
TRIED_NORMS = tuple(norm for norm in NORMS if norm != "layer")  # which makes zero of a path of one channel


class Path(NamedTuple):
    """Convolutions in a row, each a kernel and its channels out; `pool`: a 3x3 pooling comes first."""

    convs: tuple[tuple[Kernel, int], ...]
    pool: str = ""

    @property
    def out(self) -> int:
        """Channels out."""
        return self.convs[-1][1]

    def steps(self, stride: int) -> list[tuple[Kernel, int, int]]:
        """(kernel, channels out, stride): the pool has the stride, or else the last convolution."""
        last = len(self.convs) - 1
        return [
            (kernel, out, stride if i == last and not self.pool else 1)
            for i, (kernel, out) in enumerate(self.convs)
        ]


class Style(NamedTuple):
    """What surrounds every convolution."""

    affine: bool = True
    norm: Norm = "batch"
    bias: bool = False
    act: Act = "relu"


class Paths(nn.Module):
    """Paths side by side, concatenated: (batch, c_in, h, w) -> (batch, sum of channels, h', w')."""

    def __init__(self, c_in: int, stride: int, paths: Mapping[str, Path], style: Style) -> None:
        super().__init__()
        self.paths = nn.ModuleDict({name: _layers(c_in, stride, path, style) for name, path in paths.items()})

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([path(x) for path in self.paths.values()], dim=1)


def _layers(c: int, stride: int, path: Path, style: Style) -> nn.Sequential:
    layers: list[nn.Module] = []
    if path.pool == "max":
        layers.append(nn.MaxPool2d(3, stride, padding=1))
    elif path.pool == "avg":
        layers.append(nn.AvgPool2d(3, stride, padding=1, count_include_pad=False))
    for kernel, out, step in path.steps(stride):
        padding = (kernel[0] // 2, kernel[1] // 2)
        layers.append(nn.Conv2d(c, out, kernel, step, padding, bias=style.bias))
        layers += [normalisation(style.norm, out, style.affine), activation(style.act)]
        c = out
    return nn.Sequential(*layers)


def _count(t: Tally, stride: int, paths: Mapping[str, Path], style: Style) -> Tally:
    """Adds `Paths` to the tally."""
    return t.join(*(_count_path(t.branch(), stride, path, style) for path in paths.values()))


def _count_path(t: Tally, stride: int, path: Path, style: Style) -> Tally:
    t.pool(stride if path.pool else 1)
    for kernel, out, step in path.steps(stride):
        t.conv(out, kernel, step, bias=style.bias).norm(style.affine, style.norm)
    return t


def _convs(
    reduced: int, kernels: tuple[Kernel, ...], between: int, out: int
) -> tuple[tuple[Kernel, int], ...]:
    """A 1x1 reduction (0: none), then `kernels` with `between` channels between them and `out` at the end."""
    reduction = ((ONE, reduced),) if reduced else ()
    return (*reduction, *((kernel, between) for kernel in kernels[:-1]), (kernels[-1], out))


def _width(width: float, of: int) -> int:
    """A width: channels, or below 1 a share of `of`; 0 stays 0."""
    # At least two: the scale of a lone channel is lost in the next norm.
    return max(2, round(width * of)) if 0 < width < 1 else int(width)


class Widths(NamedTuple):
    """The arguments of an inception module that give its paths; see `inception`."""

    b1: float = 0.25
    r3: float = 0.75
    b3: float = 0.5
    r5: float = 0.5
    b5: float = 0.125
    pool_proj: float = 0.125
    far: str = "5x5"
    pool: str = "max"

    def outs(self, c_in: int, c_out: int) -> dict[str, int]:
        """Channels out of each path: the given ones, and shares of what those leave."""
        asked = {"b1": self.b1, "b3": self.b3, "b5": self.b5, "pool": self.pool_proj or c_in}
        shares = {name: width for name, width in asked.items() if 0 < width < 1}
        outs = {name: int(width) for name, width in asked.items() if width >= 1}
        left = c_out - sum(outs.values())
        outs |= {name: max(1, int(left * share / sum(shares.values()))) for name, share in shares.items()}
        if shares:  # the largest share takes what rounding leaves
            outs[max(shares, key=lambda name: shares[name])] += c_out - sum(outs.values())
        return {name: outs[name] for name in asked if name in outs}

    def paths(self, c_in: int, c_out: int) -> dict[str, Path]:
        """The module's paths by name."""
        outs, paths = self.outs(c_in, c_out), {}
        for name, reduced, kernels in (
            ("b1", 0, (ONE,)),
            ("b3", self.r3, NEAR[self.far]),
            ("b5", self.r5, FAR[self.far]),
        ):
            if name in outs:
                reduced = _width(reduced, outs[name])
                between = outs[name] if self.far == "3x3_3x3" else reduced or outs[name]
                paths[name] = Path(_convs(reduced, kernels, between, outs[name]))
        paths["pool"] = Path(((ONE, outs["pool"]),) if self.pool_proj else (), self.pool)
        return paths


def _only_widths(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in ("norm", "bias", "act", "scale")}


def _divides(c_in: int, c_out: int, stride: int, **given: Any) -> str | None:
    form = Widths(**_only_widths(given))
    outs = form.outs(c_in, c_out)
    least = min(form.r3, form.r5, form.b1, form.b3, form.b5, form.pool_proj)
    if least < 0 or min(outs.values()) < 1:
        if not form.pool_proj and c_out < c_in + 3:
            return (
                f"the pool without pool_proj passes its {c_in} channels on, so {c_out} out are too few: "
                f"have at least {c_in + 3}, or use inception, which projects them"
            )
        return f"{c_out} channels out cannot be divided into {outs}: give more, or other widths"
    total = sum(outs.values())
    if total != c_out:
        return f"paths of {outs} have {total} channels, not {c_out}: make one a share, such as 0.5"
    return None


def _inception(
    t: Tally, c: int, s: int, a: bool, norm: Norm = "batch", bias: bool = False, **given: Any
) -> Tally:
    return _count(t, s, Widths(**_only_widths(given)).paths(t.c, c), Style(a, norm, bias))


@primitive(
    "inception",
    cost=_inception,
    rule=_divides,
    attributes={
        "b1": (0.25, 0, 2),
        "r3": (0.75, 0, 3),
        "b3": (0.5, 2),
        "r5": (0.5, 0, 2),
        "b5": (0.125, 2),
        "pool_proj": (0.125, 3),
        "far": ("5x5", "3x3_3x3", "1x3_3x1", "1x7_7x1"),
        "pool": ("max", "avg"),
        "norm": TRIED_NORMS,
        "bias": (False, True),
        "act": ("relu", "silu"),
    },
    variants={
        "inception_naive": {"r3": 0, "r5": 0, "pool_proj": 0},
        "inception_v2": {"far": "3x3_3x3", "b3": 0.25, "b5": 0.375},
        "inception_v3": {"far": "1x7_7x1", "b3": 0.25, "b5": 0.25, "pool_proj": 0.25},
    },
)
def inception(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    b1: float = 0.25,
    r3: float = 0.75,
    b3: float = 0.5,
    r5: float = 0.5,
    b5: float = 0.125,
    pool_proj: float = 0.125,
    far: Far = "5x5",
    pool: Pool = "max",
    norm: Norm = "batch",
    bias: bool = False,
    act: Act = "relu",
) -> nn.Module:
    """Inception module: 1x1, 3x3, 5x5 and a pool side by side (Szegedy et al. 2015; 2016)

    `b1`, `b3`, `b5`, `pool_proj`: channels out of the four paths, c_out together; `r3`, `r5`: of the 1x1
    reductions. At 0 there is no such convolution, and a pool without projection passes its input on. A path
    below 1 is a share of the channels that the others leave, a reduction below 1 a share of its path. `far`:
    the path of 5x5 is two 3x3 (version 2); or it is 1xn and nx1 twice, and that of 3x3 once (version 3), with
    as many channels between them as the reduction has. The last convolution of a path, or the pool, has the
    stride.
    """
    widths = Widths(b1, r3, b3, r5, b5, pool_proj, far, pool)
    return Paths(c_in, stride, widths.paths(c_in, c_out), Style(affine, norm, bias, act))


class ResidualWidths(NamedTuple):
    """The arguments of an Inception-ResNet block that give its paths; see `inception_resnet`."""

    b1: float = 0.1
    r3: float = 0.1
    b3: float = 0.1
    r5: float = 0.1
    m5: float = 0.15
    b5: float = 0.2
    far: str = "3x3_3x3"

    def paths(self, c_out: int) -> dict[str, Path]:
        """The block's paths by name."""
        b1, r3, b3, r5, m5, b5 = (
            _width(width, c_out) for width in (self.b1, self.r3, self.b3, self.r5, self.m5, self.b5)
        )
        pair = (THREE, THREE) if self.far == "3x3_3x3" else NEAR[self.far]
        paths = {"b1": Path(_convs(0, (ONE,), 0, b1))}
        if b3:
            paths["b3"] = Path(_convs(r3, (THREE,), 0, b3))
        return {**paths, "b5": Path(_convs(r5, pair, m5, b5))}


class InceptionResidual(nn.Module):
    """Adds to the input what paths side by side make of it, scaled, then an activation (Szegedy 2017).

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)). The paths are brought to c_out
    channels by a 1x1 convolution without a norm. Where the shape changes, so does the input, by a strided 1x1
    convolution and a norm (in the published networks it never does).
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, paths: Mapping[str, Path], style: Style, *, scale: float
    ) -> None:
        super().__init__()
        self.paths = Paths(c_in, stride, paths, style._replace(bias=False))
        self.restore = nn.Conv2d(sum(path.out for path in paths.values()), c_out, 1, bias=style.bias)
        same = stride == 1 and c_in == c_out
        self.shortcut = (
            nn.Identity() if same else conv_bn(c_in, c_out, stride, style.affine, 1, norm=style.norm)
        )
        self.act = activation(style.act)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.shortcut(x) + self.scale * self.restore(self.paths(x)))
        return y


def _inception_resnet(
    t: Tally, c: int, s: int, a: bool, norm: Norm = "batch", bias: bool = True, **given: Any
) -> Tally:
    paths = ResidualWidths(**_only_widths(given)).paths(c)
    main = _count(t.branch(), s, paths, Style(a, norm)).conv(c, bias=bias)
    same = s == 1 and t.c == c
    return t.join(*([] if same else [t.branch().conv(c, 1, s).norm(a, norm)]), main, out=c)


def _has_paths(c_in: int, c_out: int, stride: int, **given: Any) -> str | None:
    form = ResidualWidths(**_only_widths(given))
    if min(form.b1, form.m5, form.b5) <= 0 or min(form.r3, form.b3, form.r5) < 0:
        return (
            f"b1 {form.b1}, m5 {form.m5} and b5 {form.b5} must be positive, r3 {form.r3}, b3 {form.b3} and "
            f"r5 {form.r5} at least 0, which means that there is no such convolution"
        )
    return None


@primitive(
    "inception_resnet_a",
    cost=_inception_resnet,
    rule=_has_paths,
    attributes={
        "b1": (0.1, 3),
        "r3": (0.1, 0, 3),
        "b3": (0.1, 0, 3),
        "r5": (0.1, 0, 3),
        "m5": (0.15, 3),
        "b5": (0.2, 3),
        "far": ("3x3_3x3", "1x3_3x1", "1x7_7x1"),
        "scale": (0.17, 1.0),
        "norm": TRIED_NORMS,
        "bias": (True, False),
        "act": ("relu", "silu"),
    },
    variants={
        "inception_resnet_b": {
            "far": "1x7_7x1",
            **{"b1": 0.1667, "b3": 0, "r5": 0.1111, "m5": 0.1389, "b5": 0.1667},
            "scale": 0.1,
        },
        "inception_resnet_c": {
            "far": "1x3_3x1",
            **{"b1": 0.094, "b3": 0, "r5": 0.094, "m5": 0.109, "b5": 0.125},
            "scale": 0.2,
        },
    },
)
def inception_resnet(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    b1: float = 0.1,
    r3: float = 0.1,
    b3: float = 0.1,
    r5: float = 0.1,
    m5: float = 0.15,
    b5: float = 0.2,
    far: Literal["3x3_3x3", "1x3_3x1", "1x7_7x1"] = "3x3_3x3",
    scale: float = 0.17,
    norm: Norm = "batch",
    bias: bool = True,
    act: Act = "relu",
) -> nn.Module:
    """Inception-ResNet block: paths side by side, scaled and added to the input (Szegedy et al. 2017)

    `b1`; `r3`, `b3` (0: no such path, in blocks B and C); `r5`, `m5`, `b5`: channels of the convolutions of
    the three paths (1x1; 1x1, 3x3; 1x1 and the pair `far`), below 1 shares of c_out. `bias`: of the 1x1 that
    restores c_out channels.
    """
    paths = ResidualWidths(b1, r3, b3, r5, m5, b5, far).paths(c_out)
    return InceptionResidual(c_in, c_out, stride, paths, Style(affine, norm, bias, act), scale=scale)
