"""Skeletons: what stands around the cells of a cell space: stem, order and widths of the cells, classifiers.
No torch.

All agree on the order: each cell reads the two before it, and those at one third and two thirds of the depth
halve height and width and double the channels. With the counting of cells used here (stem cells apart,
reduction cells included) that holds of DARTS (20), NASNet-A 6 @ 4032 (20) and 4 @ 1056 (14), PNASNet-5 (12)
and ENAS (17).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from nas.graph import Builder, Graph


class Place(NamedTuple):
    """Where a cell stands.

    Attributes:
        name: prefix of the names of its nodes.
        before: the older of the two states that it reads.
        last: the newer one.
        width: its channels.
        reduce: it halves height and width.
        shrunk: `last` is half as large as `before` already.
        raw: the channels of `before` if the cell reads it as it comes; 0: it is brought to the cell's width.
        side: of `last`, in pixels.
    """

    name: str
    before: str
    last: str
    width: int
    reduce: bool = False
    shrunk: bool = False
    raw: int = 0
    side: int = 0


class Scale(NamedTuple):
    """What a user says of the size of a network.

    Attributes:
        channels: of the first cells.
        cells: in all, without cells of a stem.
        classes: outputs of the classifier.
        stem: ``cifar``, or ``imagenet`` for larger images.
        auxiliary: whether there is a second classifier, used in training.
        stem_channels: of NASNet's stem for ImageNet.
        skip: the cell behind a reduction reads what the reduction read as its older state, instead of its
            newer one.
    """

    channels: int
    cells: int
    classes: int
    stem: str = "cifar"
    auxiliary: bool = False
    stem_channels: int = 32
    skip: bool = False


Cell = Callable[[Builder, Place], str]  # writes a cell, returns the name of its output


def stack(b: Builder, cell: Cell, start: Place, scale: Scale) -> Iterator[tuple[int, str]]:
    """Write the cells, from `start` on; gives the place in the row and the output of each."""
    place = start
    for index in range(scale.cells):
        reduce = index in (scale.cells // 3, 2 * scale.cells // 3)
        width = place.width * 2 if reduce else place.width
        place = place._replace(name=f"cells.{index}", width=width, reduce=reduce)
        output = cell(b, place)
        yield index, output
        before = place.before if scale.skip and reduce else place.last
        side = halved(place.side) if reduce else place.side
        place = place._replace(before=before, last=output, shrunk=reduce, raw=0, side=side)


def darts_skeleton(b: Builder, cell: Cell, scale: Scale) -> Graph:
    """The skeleton of DARTS (Liu, Simonyan, Yang 2019), for CIFAR and for ImageNet."""
    start = _darts_start(b, scale)
    heads: tuple[str, ...] = ()
    last = start.last
    for index, last in stack(b, cell, start, scale):
        if scale.auxiliary and index == 2 * scale.cells // 3:
            heads = (_darts_auxiliary(b, last, scale),)
    pooled = b("pool", "global_avg_pool", last)
    b("classifier", "linear", pooled, out=scale.classes)
    return b.graph(auxiliary=heads)


def _darts_start(b: Builder, scale: Scale) -> Place:
    """The stem: one convolution, or three of stride 2; and the two states that the first cell reads."""
    c = scale.channels
    if scale.stem == "cifar":
        x = b("stem", "conv_bn_3x3", "input", out=3 * c, affine=True)
        return Place("", x, x, c)
    x = b("stem0", "conv_bn_3x3", "input", out=c // 2, stride=2, affine=True)
    first = b("stem1", "conv_3x3", x, out=c, stride=2, affine=True)
    return Place("", first, b("stem2", "conv_3x3", first, out=c, stride=2, affine=True), c, shrunk=True)


def _darts_auxiliary(b: Builder, x: str, scale: Scale) -> str:
    """The published heads: of CIFAR for 8x8 pixels; of ImageNet for 7x7, without a norm after its second
    convolution.
    """
    cifar = scale.stem == "cifar"
    stride, classes = 3 if cifar else 2, scale.classes
    return b("auxiliary", "auxiliary_head", x, out=classes, stride=stride, affine=True, second_norm=cifar)


def nasnet_skeleton(b: Builder, cell: Cell, scale: Scale) -> Graph:
    """The skeleton of NASNet (Zoph et al. 2018) and PNASNet (Liu et al. 2018), for CIFAR and for ImageNet.

    For ImageNet two reduction cells, of a quarter and half of the channels, are part of the stem: three
    halvings in all, before the cells that `scale` counts. Where the released code has a 1x1 convolution of
    stride 2 for an identity that halves, here is a factorised reduction, of the same size; and on CIFAR both
    inputs of the first cell are brought to its width, where there the older one comes as it is.
    """
    start = _nasnet_start(b, cell, scale)
    heads: tuple[str, ...] = ()
    last = start.last
    for index, last in stack(b, cell, start, scale):
        if scale.auxiliary and index == 2 * scale.cells // 3 - 1:
            heads = (picture_head(b, last, scale.classes, halved(start.side)),)
    return relu_head(b, last, scale.classes, heads)


def _nasnet_start(b: Builder, cell: Cell, scale: Scale) -> Place:
    """The stem, and the two states that the first cell reads."""
    c, side = scale.channels, min(b.input[1:])
    if scale.stem == "cifar":
        x = b("stem", "conv_bn_3x3", "input", out=3 * c, affine=True)
        return Place("", x, x, c, side=side)
    if c % 4 or c < 8:
        raise ValueError(
            f"the first cell of the stem has a quarter of the channels, and at least 2: {c} should be a "
            "multiple of 4, from 8 on"
        )
    x = b("stem", "unpadded_conv_bn", "input", out=scale.stem_channels, stride=2, affine=True)
    side = (side - 1) // 2
    first = Place("stems.0", x, x, c // 4, reduce=True, raw=scale.stem_channels, side=side)
    side = halved(side)
    second = Place("stems.1", x, cell(b, first), c // 2, reduce=True, shrunk=True, side=side)
    return Place("", second.last, cell(b, second), c, shrunk=True, side=halved(side))


def enas_skeleton(b: Builder, cell: Cell, scale: Scale) -> Graph:
    """The skeleton of ENAS's cells (Pham et al. 2018), for CIFAR: no classifier has a bias."""
    c = scale.channels
    x = b("stem", "conv_bn_3x3", "input", out=3 * c, affine=True)
    heads: tuple[str, ...] = ()
    last, side = x, halved(halved(min(b.input[1:])))
    for index, last in stack(b, cell, Place("", x, x, c), scale):
        if scale.auxiliary and index == min(2 * scale.cells // 3, scale.cells - 2) + 1:
            heads = (picture_head(b, last, scale.classes, side, own=True),)
    return relu_head(b, last, scale.classes, heads, bias=False)


def relu_head(b: Builder, x: str, classes: int, heads: tuple[str, ...] = (), *, bias: bool = True) -> Graph:
    """The end of a network whose cells end in sums: ReLU, global pooling, classifier."""
    x = b("pool", "global_avg_pool", b("last", "relu", x))
    b("classifier", "linear", x, out=classes, bias=bias)
    return b.graph(auxiliary=heads)


def picture_head(b: Builder, x: str, classes: int, side: int, *, own: bool = False) -> str:
    """A second classifier whose last convolution is as large as what pooling leaves of `side` pixels.

    `own`: as in ENAS, where that convolution has "same" padding and the classifier no bias.
    """
    size = max(1, (side - 5) // 3 + 1)
    heading = partial(b, "auxiliary", "picture_head", x, out=classes, stride=3, affine=True)
    return heading(kernel=size, bias=not own, same=own)


def halved(side: int) -> int:
    """The side of what a stride of 2 leaves."""
    return -(-side // 2)
