"""Inception-ResNet (Szegedy et al., AAAI 2017): inception modules that are added to their input.

Version 2 as released has 55,843,464 parameters and takes 13,155,794,016 multiply-adds for 299x299.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torch import nn

from nas.primitives.inception import inception_resnet as residual

from .family import baseline, he_in, initialise, one_of, smallest
from .inception import (
    LEAST,
    Branches,
    Form,
    InceptionNetwork,
    chain,
    conv,
    pooled,
    reduction,
    stem,
)
from .inception_v4 import stem as stem_of_v4


class Widths(NamedTuple):
    """Channels of one version; blocks: the keywords of the primitive `inception_resnet`."""

    a: Mapping[str, int]  # figures 10 and 16
    b: Mapping[str, int]  # figures 11 and 17
    c: Mapping[str, int]  # figures 13 and 19
    to_17: Mapping[str, int]  # figure 7 and table 1
    to_8: tuple[int, int]  # figures 12 and 18: of the second branch; of the third one, after its first 3x3


VERSIONS = {
    1: Widths(
        a={"b1": 32, "r3": 32, "b3": 32, "r5": 32, "m5": 32, "b5": 32},
        b={"b1": 128, "b3": 0, "r5": 128, "m5": 128, "b5": 128},
        c={"b1": 192, "b3": 0, "r5": 192, "m5": 192, "b5": 192},
        to_17={"k": 192, "l": 192, "m": 256, "n": 384},
        to_8=(256, 256),
    ),
    2: Widths(
        a={"b1": 32, "r3": 32, "b3": 32, "r5": 32, "m5": 48, "b5": 64},
        b={"b1": 192, "b3": 0, "r5": 128, "m5": 160, "b5": 192},
        c={"b1": 192, "b3": 0, "r5": 192, "m5": 224, "b5": 256},
        to_17={"k": 256, "l": 256, "m": 384, "n": 384},
        to_8=(288, 320),
    ),
}
LAYERS = {"paper": {1: (5, 10, 5), 2: (5, 10, 5)}, "released": {1: (5, 10, 6), 2: (10, 20, 10)}}


def _stem(channels: int, version: int, form: Form) -> tuple[list[nn.Module], int]:
    """The layers before the first block, and their channels out."""
    if version == 1:
        return [*stem(channels), conv(192, 256, 3, "halve")], 256  # figure 14
    if form == "paper":
        return stem_of_v4(channels), 384
    module = Branches(  # as the first of Inception-v3, 96 channels where that has 64 and 64 where it has 32
        conv(192, 96), chain(192, (48, 1), (64, 5)), chain(192, (64, 1), (96, 3), (96, 3)), pooled(192, 64)
    )
    return [*stem(channels), nn.MaxPool2d(3, stride=2), module], 320


def _to_8(c: int, second: int, third: int) -> nn.Module:
    return Branches(
        chain(c, (256, 1), (384, 3, "halve")),
        chain(c, (256, 1), (second, 3, "halve")),
        chain(c, (256, 1), (second, 3), (third, 3, "halve")),
        nn.MaxPool2d(3, stride=2),
    )


def _embedding(c: int, dropout: float) -> nn.Module:
    """Brings the mean over height and width to 512 channels, normalised: (batch, 512, 1, 1)."""
    down = nn.Conv2d(c, 512, 1, bias=False)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout), down, nn.BatchNorm2d(512))


@baseline(small={"layers": (1, 1, 1), "classes": 10, "input": (3, 75, 75)})
def inception_resnet(
    *,
    version: Literal[1, 2] = 2,
    form: Form = "released",
    layers: Sequence[int] | None = None,
    dropout: float = 0.2,
    classes: int = 1000,
    input: Sequence[int] = (3, 299, 299),
) -> nn.Module:
    """Inception-ResNet, version 1 or 2: blocks A on 35x35, B on 17x17 and C on 8x8.

    form: the ``paper`` (figures 7 and 10 to 19; where figures 17 to 19 print 1154 and 2048 channels, the sums
    1152 and 2144 are meant) or what was ``released``. Of version 2 that is the authors' network
    (TensorFlow-Slim): another stem, twice the blocks, the last one without ReLU and not scaled, 1536 channels
    at the end. Of version 1 the authors released nothing; the usual one is Sandberg's, written for FaceNet: a
    sixth block C of that kind, and 512 channels with batch norm before the classifier. layers: blocks A, B
    and C, if not those of the form. dropout: before the classifier. Weights start as in He et al. 2015 (Slim:
    cut normal). Height and width of `input` must be at least 75; only its channels shape the network. Raises
    ValueError for smaller ones, and if layers are not three numbers of at least 1.
    """
    one_of("version", version, VERSIONS)
    one_of("form", form, LAYERS)
    smallest(input, LEAST)
    counts = LAYERS[form][version] if layers is None else layers
    if len(counts) != 3 or min(counts) < 1:
        raise ValueError(f"layers must be three numbers of at least 1, of blocks A, B, C, not {list(counts)}")
    widths = VERSIONS[version]
    parts, c = _stem(input[0], version, form)
    parts += [residual(c, c, far="3x3_3x3", scale=0.17, **widths.a) for _ in range(counts[0])]
    parts.append(reduction(c, **widths.to_17))
    c += widths.to_17["m"] + widths.to_17["n"]
    parts += [residual(c, c, far="1x7_7x1", scale=0.1, **widths.b) for _ in range(counts[1])]
    parts.append(_to_8(c, *widths.to_8))
    c += 384 + sum(widths.to_8)
    parts += [residual(c, c, far="1x3_3x1", scale=0.2, **widths.c) for _ in range(counts[2])]
    if form == "released":
        parts[-1].scale, parts[-1].act = 1.0, nn.Identity()
        parts.append(conv(c, 1536) if version == 2 else _embedding(c, dropout))
        c, dropout = (1536, dropout) if version == 2 else (512, 0.0)
    network = InceptionNetwork(parts, width=c, classes=classes, dropout=dropout)
    initialise(network, conv=he_in, linear=he_in)
    return network
