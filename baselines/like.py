"""like(): the hand-designed network whose cost is like a given one, in parameters and multiply-adds.

It is the opponent of a found network. For the cost of a published network it is that network: for
269,722 parameters and 40,551,040 multiply-adds on 3x32x32, ResNet-20 (He et al. 2016); for 769,162 and
287,929,692, DenseNet-BC of 100 layers and growth 12 (Huang et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from math import log
from typing import Any

from nas.primitives import PRIMITIVES
from nas.primitives.primitive import Tally
from nas.search_space.mobile import rounded

from .mobilenet_v2 import STAGES
from .resnet import EXPANSION, WIDTHS, depth_of

Arguments = Mapping[str, Any]
LARGE = 96  # pixels from which on the families for ImageNet are taken
LEAST_DENSE = 4  # pixels: two poolings that round down must leave one
NEAR_PARAMS, NEAR_MACS = log(1.1), log(1.25)
GROWTHS = (12, 24, 32, 40)  # Huang et al. 2017, table 2
WIDENINGS = (1, 2, 4, 8, 10)  # Zagoruyko & Komodakis 2016, tables 4 and 5
MOBILE_WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.4)  # released with Sandler et al. 2018


@dataclass(frozen=True)
class Shape:
    """A family at one depth: members of growing width, of which some are published.

    arguments: of a width, what the family is built with, with a name. cost: of these arguments, added to a
    tally. widths: all of them, ascending.
    """

    family: str
    arguments: Callable[[Any], tuple[str, Arguments]]
    cost: Callable[..., Tally]
    widths: Sequence[Any]
    published: Sequence[Any]


@dataclass(frozen=True)
class Member:
    """A network with its cost; `departure`: |log| of its width over the nearest published one."""

    name: str
    arguments: Arguments
    params: int
    macs: int
    departure: float


def like(params: int, macs: int, *, classes: int, input: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """The control of like cost: its name, and what it is built with, its ``family`` first.

    Candidates are families for small images (residual, wide residual and DenseNet-BC networks), or from 96
    pixels on for ImageNet (MobileNet v2, ResNet), each at a few depths, and not so narrow that they would be
    no opponents. Of a depth enters the width whose parameters come nearest, as a ratio. Then, in this order:
    those within 10 % of `params`, or if there are none the nearest; of these, those within 25 % of `macs`, or
    if there are none the nearest; of these, the one whose width is nearest to a published one; among equals,
    the one of nearest cost. Nothing is random.
    """
    c, h, w = input
    chosen = _chosen(params, macs, classes, (c, h, w))
    return chosen.name, dict(chosen.arguments)


@lru_cache(maxsize=256)
def _chosen(params: int, macs: int, classes: int, input: tuple[int, int, int]) -> Member:
    members = [_nearest(shape, params, classes, input) for shape in shapes(input)]

    def off_params(member: Member) -> float:
        return abs(log(member.params / params))

    def off_macs(member: Member) -> float:
        return abs(log(member.macs / macs))

    close = [m for m in members if off_params(m) <= NEAR_PARAMS] or [min(members, key=off_params)]
    close = [m for m in close if off_macs(m) <= NEAR_MACS] or [min(close, key=off_macs)]
    return min(close, key=lambda m: (m.departure, off_params(m) + off_macs(m)))


def shapes(input: Sequence[int]) -> list[Shape]:
    """The families and depths for images of that size, in pixels."""
    side = min(input[1:])
    if side >= LARGE:
        return _imagenet()
    return [shape for shape in _small() if shape.family != "densenet_cifar" or side >= LEAST_DENSE]


def _nearest(shape: Shape, params: int, classes: int, input: tuple[int, int, int]) -> Member:
    """The member whose parameters are nearest. They grow with the width, but for published members (a ResNet
    of width 1 needs no projection in its last block): these are all counted, the others found by bisection.
    """
    count = partial(member, shape, classes=classes, input=input)
    free = [width for width in shape.widths if width not in shape.published]
    low, high = 0, len(free) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(free[middle]).params < params else (low, middle)
    found = [count(width) for width in (free[low], free[high], *shape.published)]
    return min(found, key=lambda m: abs(log(m.params / params)))


def member(shape: Shape, width: Any, *, classes: int, input: tuple[int, int, int]) -> Member:
    """The network of that width, with its cost in closed form."""
    name, arguments = shape.arguments(width)
    tally = shape.cost(Tally(*input), **arguments)
    tally.h = tally.w = 1
    tally.linear(classes)
    departure = min(abs(log(width / each)) for each in shape.published)
    return Member(name, {"family": shape.family, **arguments}, tally.params, tally.macs, departure)


def _after(t: Tally, name: str, c_out: int, stride: int = 1, **attributes: Any) -> Tally:
    """The tally with a primitive more."""
    done = PRIMITIVES[name].tally(t.c, t.h, t.w, c_out, stride, **attributes)
    return t.join(done, out=done.c)


def _stages(t: Tally, widths: Sequence[int], layers: Sequence[int], name: str, **attributes: Any) -> Tally:
    """Stages of residual blocks; the first block of each but the first has stride 2."""
    for stage, (width, count) in enumerate(zip(widths, layers, strict=True)):
        for place in range(count):
            t = _after(t, name, width, 2 if stage and not place else 1, **attributes)
    return t


# --- small images -------------------------------------------------------------------------------------------


@cache
def _small() -> list[Shape]:
    found = [
        Shape("resnet_cifar", partial(_residual, depth), _cost_residual, range(3, 257), (16,))
        for depth in (8, 14, 20, 26, 32, 44, 56, 110)
    ]
    found += [
        Shape("resnet_cifar_w64", partial(_wide_stem, depth), _cost_wide_stem, range(6, 257), (64,))
        for depth in (10, 18, 34)
    ]
    found += [
        Shape("wrn_cifar", partial(_wide, depth), _cost_wide, range(1, 21), WIDENINGS)
        for depth in (16, 22, 28, 40)
    ]
    found += [
        Shape("densenet_cifar", partial(_dense, depth), _cost_dense, range(6, 81), GROWTHS)
        for depth in (22, 40, 100, 190, 250)
    ]
    return found


def _residual(depth: int, width: int) -> tuple[str, Arguments]:
    return f"resnet{depth}-w{width}", {"depth": depth, "widths": [width, 2 * width, 4 * width]}


def _cost_residual(t: Tally, *, depth: int, widths: Sequence[int]) -> Tally:
    t = _after(t, "conv_bn", widths[0])
    return _stages(t, widths, [(depth - 2) // 6] * 3, "basic_block", shortcut="A")


def _wide_stem(depth: int, width: int) -> tuple[str, Arguments]:
    return f"resnet{depth}-w{width}", {"depth": depth, "widths": [width * 2**stage for stage in range(4)]}


def _cost_wide_stem(t: Tally, *, depth: int, widths: Sequence[int]) -> Tally:
    return _stages(_after(t, "conv_bn", widths[0]), widths, depth_of(depth)[0], "basic_block")


def _wide(depth: int, k: int) -> tuple[str, Arguments]:
    return f"wrn{depth}-{k}", {"depth": depth, "k": k}


def _cost_wide(t: Tally, *, depth: int, k: int) -> Tally:
    widths = [16 * k, 32 * k, 64 * k]
    return _stages(t.conv(16, 3), widths, [(depth - 4) // 6] * 3, "basic_block", preact=True).norm(True)


def _dense(depth: int, k: int) -> tuple[str, Arguments]:
    shared = {"bc": True, "theta": 0.5, "init_channels": 2 * k}
    return f"densenet{depth}-k{k}", {"L": depth, "k": k, **shared}


def _cost_dense(t: Tally, *, L: int, k: int, bc: bool, theta: float, init_channels: int) -> Tally:
    t.conv(init_channels, 3)
    for block in range(3):
        for _ in range((L - 4) // 6):
            t = _after(t, "dense_bottleneck_layer", t.c + k)
        if block < 2:
            t = _after(t, "dense_transition", int(t.c * theta))
            t.h, t.w = t.h // 2, t.w // 2
    return t.norm(True)


# --- ImageNet -----------------------------------------------------------------------------------------------


@cache
def _imagenet() -> list[Shape]:
    steps = [round(0.05 * step, 2) for step in range(1, 61)]
    found = [
        Shape("mobilenet_v2", _mobile, _cost_mobile, steps, MOBILE_WIDTHS),
        Shape("mobilenet_v2", _mobile_narrow, _cost_mobile, steps[:19], (1.0,)),
    ]
    found += [
        Shape("resnet", partial(_deep, depth), _cost_deep, steps[1:40], (1.0,))
        for depth in (18, 34, 50, 101, 152)
    ]
    return found


def _mobile(width: float) -> tuple[str, Arguments]:
    return f"mobilenet_v2-x{width:g}", {"width": width}


def _mobile_narrow(width: float) -> tuple[str, Arguments]:
    """With the last convolution narrower too, which has 1280 channels at every width below 1."""
    last = rounded(1280 * width, 8)
    return f"mobilenet_v2-x{width:g}-last{last}", {"width": width, "last": last}


def _cost_mobile(t: Tally, *, width: float, last: int | None = None) -> Tally:
    t = _after(t, "conv_bn", rounded(32 * width, 8), 2)
    for expand, channels, blocks, stride in STAGES:
        for place in range(blocks):
            c_out = rounded(channels * width, 8)
            t = _after(t, "inverted_residual", c_out, 1 if place else stride, expand=expand)
    return _after(t, "conv_bn", last or max(1280, rounded(1280 * width, 8)), kernel=1)


def _deep(depth: int, width: float) -> tuple[str, Arguments]:
    return f"resnet{depth}-x{width:g}", {"depth": depth, "width": width}


def _cost_deep(t: Tally, *, depth: int, width: float) -> Tally:
    layers, block = depth_of(depth)
    full = [each * EXPANSION[block] for each in WIDTHS]
    t = _after(t, "conv_bn", int(WIDTHS[0] * width), 2, kernel=7).pool(2)
    for stage, count in enumerate(layers):
        for place in range(count):
            last = stage == len(layers) - 1 and place == count - 1
            c_out = full[-1] if last else int(full[stage] * width)
            t = _after(t, f"{block}_block", c_out, 2 if stage and not place else 1)
    return t
