"""Units of ShuffleNet v1 and v2, whose channels are shuffled between the paths, and the Xception-like choice
of Single Path One-Shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nas.primitives.conv import FORMS, conv_bn, grouped
from nas.primitives.layers import Act, Norm, activation
from nas.primitives.primitive import Tally, primitive

Downsample = Literal["halves", "authors"]


def interleave(x: Tensor, groups: int) -> Tensor:
    """The channel shuffle: the first channel of every group, then the second ones, ...; same shape."""
    batch, channels, height, width = x.shape
    apart = x.reshape(batch, groups, channels // groups, height, width)
    return apart.transpose(1, 2).reshape(x.shape)


def widens(c_in: int, c_out: int, stride: int) -> bool:
    """Whether the shape changes: then the unit adds channels to what it passes on."""
    return stride > 1 or c_in != c_out


class GroupedShuffle(nn.Module):
    """Grouped 1x1 to a bottleneck, shuffle, depthwise 3x3, grouped 1x1 (ShuffleNet, Zhang 2018).

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)). Added to the input where that
    has the shape of the output; else concatenated to it, average-pooled at stride 2.
    """

    def __init__(
        self, c_in: int, c_out: int, stride: int, affine: bool, *, groups: int, first: int, **form: Any
    ) -> None:
        super().__init__()
        self.groups, self.widens = groups, widens(c_in, c_out, stride)
        width, made = _bottleneck(c_out, groups), c_out - c_in if self.widens else c_out
        norm = form["norm"]
        self.reduce = conv_bn(c_in, width, 1, affine, 1, groups=first, **form)
        self.depthwise = conv_bn(width, width, stride, affine, 3, groups=width, norm=norm)
        self.restore = conv_bn(width, made, 1, affine, 1, groups=groups, norm=norm)
        self.shortcut = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.act = activation(form["act"])

    def forward(self, x: Tensor) -> Tensor:
        y = self.restore(self.depthwise(interleave(self.reduce(x), self.groups)))
        same = self.shortcut(x)
        joined: Tensor = self.act(torch.cat([same, y], dim=1) if self.widens else same + y)
        return joined


def _bottleneck(c_out: int, groups: int) -> int:
    """A quarter of c_out, rounded up to what `groups` divide (in the published networks nothing to round)."""
    return -(-max(1, c_out // 4) // groups) * groups


def _groupable(
    c_in: int, c_out: int, stride: int, groups: int = 4, first_group: bool = True, **others: object
) -> str | None:
    wider = widens(c_in, c_out, stride)
    if wider and c_out <= c_in:
        return f"its {c_in} channels are passed on: more must come out, not {c_out}; put a conv_1x1 before it"
    if groups < 1:
        return f"groups are at least 1, not {groups}"
    return grouped(c_in if first_group else groups, c_out - c_in if wider else c_out, stride, 1, groups)


def _shuffle_v1(
    t: Tally,
    c: int,
    s: int,
    a: bool,
    groups: int = 4,
    first_group: bool = True,
    act: str = "relu",
    norm: str = "batch",
) -> Tally:
    width, made = _bottleneck(c, groups), c - t.c if widens(t.c, c, s) else c
    main = t.branch().conv(width, groups=groups if first_group else 1).norm(a, norm)
    main.conv(width, 3, s, groups=width).norm(a, norm).conv(made, groups=groups).norm(a, norm)
    return t.join(main, out=c)


@primitive(
    "shuffle_v1",
    cost=_shuffle_v1,
    rule=_groupable,
    attributes={"groups": (4, 1, 2), "first_group": (True, False), **FORMS},
)
def shuffle_v1(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    groups: int = 4,
    first_group: bool = True,
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """ShuffleNet unit: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1 (Zhang et al. 2018)

    The bottleneck has c_out / 4 channels, as in the authors' code. `first_group`: whether the first 1x1 is
    grouped too (not in the first unit of the published networks, into which 24 channels come). Where the
    shape changes, c_out - c_in channels are concatenated to the input, which stride 2 pools.
    """
    first = groups if first_group else 1
    return GroupedShuffle(c_in, c_out, stride, affine, groups=groups, first=first, act=act, norm=norm)


class Shuffle(NamedTuple):
    """The arguments of a ShuffleNet v2 unit, and the widths that follow from them."""

    kernel: int = 3
    expand: float = 1.0
    downsample: Downsample = "halves"
    act: Act = "relu"
    norm: Norm = "batch"
    xception: bool = False

    def kept(self, c_in: int, c_out: int, stride: int) -> int:
        """Channels that the path beside the main one gives."""
        halves = self.downsample == "halves" or not widens(c_in, c_out, stride)
        return c_out // 2 if halves else c_in

    def widths(self, c_in: int, c_out: int, stride: int) -> tuple[int, ...]:
        """Channels before, between and after the convolutions of the main path that mix channels."""
        enter = c_in if widens(c_in, c_out, stride) else c_in - c_in // 2
        inside = round(c_out // 2 * self.expand)
        made = c_out - self.kept(c_in, c_out, stride)
        return (enter, inside, inside, made) if self.xception else (enter, inside, made)

    def pairs(self, widths: Sequence[int], stride: int, affine: bool) -> nn.Sequential:
        """Depthwise (the first one strided) and pointwise convolutions in turn, from width to width."""
        convolutions = []
        for i, (narrow, wide) in enumerate(pairwise(widths)):
            down = 1 if i else stride
            convolutions += [
                conv_bn(narrow, narrow, down, affine, self.kernel, groups=narrow, norm=self.norm),
                conv_bn(narrow, wide, 1, affine, 1, act=self.act, norm=self.norm),
            ]
        return nn.Sequential(*convolutions)

    def layers(self, t: Tally, widths: Sequence[int], stride: int, affine: bool) -> Tally:
        """Adds `pairs` to a tally."""
        for i, (narrow, wide) in enumerate(pairwise(widths)):
            t.conv(narrow, self.kernel, 1 if i else stride, groups=narrow).norm(affine, self.norm)
            t.conv(wide).norm(affine, self.norm)
        return t


class ShuffleUnit(nn.Module):
    """Two paths side by side whose channels are then interleaved (ShuffleNet v2, Ma 2018; Guo 2020).

    (batch, c_in, h, w) -> (batch, c_out, ceil(h / stride), ceil(w / stride)). Where the shape stays, the main
    path works on one half of the channels and the other passes; else both paths work on all of them.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, affine: bool, form: Shuffle) -> None:
        super().__init__()
        kept, widths = form.kept(c_in, c_out, stride), form.widths(c_in, c_out, stride)
        self.passed = 0 if widens(c_in, c_out, stride) else kept
        self.project = nn.Identity() if self.passed else form.pairs((c_in, kept), stride, affine)
        first = conv_bn(widths[0], widths[1], 1, affine, 1, act=form.act, norm=form.norm)
        self.first = nn.Identity() if form.xception else first
        self.main = form.pairs(widths if form.xception else widths[1:], stride, affine)

    def forward(self, x: Tensor) -> Tensor:
        beside, main = (x[:, : self.passed], x[:, self.passed :]) if self.passed else (x, x)
        return interleave(torch.cat([self.project(beside), self.main(self.first(main))], dim=1), 2)


def _unit(t: Tally, c: int, s: int, a: bool, **given: Any) -> Tally:
    form = Shuffle(**given)
    widths, paths = form.widths(t.c, c, s), []
    if widens(t.c, c, s):
        paths.append(form.layers(t.branch(), (t.c, form.kept(t.c, c, s)), s, a))
    main = Tally(widths[0], t.h, t.w)
    if not form.xception:
        main.conv(widths[1]).norm(a, form.norm)
    paths.append(form.layers(main, widths if form.xception else widths[1:], s, a))
    return t.join(*paths, out=c)


def _xception(t: Tally, c: int, s: int, a: bool, **given: Any) -> Tally:
    return _unit(t, c, s, a, xception=True, **given)


def _divisible(c_in: int, c_out: int, stride: int, **given: Any) -> str | None:
    form = Shuffle(**given)
    if c_out % 2:
        return f"its two paths are interleaved: an even number of channels out, not {c_out}"
    if min(form.widths(c_in, c_out, stride)) < 1:
        return (
            f"{c_in} channels in and {c_out} out leave the main path none with downsample "
            f"{form.downsample!r} and expand {form.expand}: have more out, or another downsample or expand"
        )
    return grouped(c_in, c_out, stride, form.kernel)


SETTINGS = {"expand": (1.0, 0.5, 1.4), "downsample": ("halves", "authors"), **FORMS}


@primitive(
    "shuffle_v2",
    cost=_unit,
    rule=_divisible,
    attributes={"kernel": (3, 5, 7), **SETTINGS},
    variants={f"shuffle_v2_{k}x{k}": {"kernel": k} for k in (3, 5, 7)},
)
def shuffle_v2(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    expand: float = 1.0,
    downsample: Downsample = "halves",
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """ShuffleNet v2 unit: a half of the channels goes through 1x1, depthwise, 1x1 (Ma et al. 2018)

    Where the stride is 2, or the width changes, both paths see all channels. `downsample`: then each gives a
    half of c_out, or as in the authors' code the projection keeps c_in and the main path gives the others.
    `expand`: inner width over c_out / 2.
    """
    return ShuffleUnit(c_in, c_out, stride, affine, Shuffle(kernel, expand, downsample, act, norm))


@primitive("shuffle_xception", cost=_xception, rule=_divisible, attributes={"kernel": (3, 5), **SETTINGS})
def shuffle_xception(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    kernel: int = 3,
    expand: float = 1.0,
    downsample: Downsample = "halves",
    act: Act = "relu",
    norm: Norm = "batch",
) -> nn.Module:
    """ShuffleNet v2 unit whose main path is three depthwise-pointwise pairs (Guo et al. 2020)

    The "Xception" choice of Single Path One-Shot. Arguments as in `shuffle_v2`.
    """
    form = Shuffle(kernel, expand, downsample, act, norm, xception=True)
    return ShuffleUnit(c_in, c_out, stride, affine, form)
