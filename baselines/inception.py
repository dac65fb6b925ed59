"""Inception with batch norm (Ioffe & Szegedy, ICML 2015) and Inception-v3 (Szegedy et al., CVPR 2016).

BN-Inception has 11,295,240 parameters and takes 2,032,600,064 multiply-adds for 224x224; Inception-v3 has
23,834,568 and takes 5,713,216,096 for 299x299. The parts that Inception-v4 and Inception-ResNet share with it
are here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.gates import SqueezeExcite
from nas.primitives.head import GlobalAveragePool
from nas.primitives.inception import inception

from .family import baseline, he_in, initialise, one_of, smallest, truncated

Kernel = int | tuple[int, int]
How = Literal["same", "valid", "halve"]
Step = tuple[int, Kernel] | tuple[int, Kernel, How]
Form = Literal["released", "paper"]
LEAST = 75  # pixels of a side: of fewer, convolutions without padding leave nothing
MODULES = (  # Ioffe & Szegedy, figure 5: 1x1; reduction, 3x3; reduction, twice 3x3; pool, projection
    (64, 64, 64, 64, 96, "avg", 32),
    (64, 64, 96, 64, 96, "avg", 64),
    (0, 128, 160, 64, 96, "max", 0),  # of stride 2, as where there is no projection again
    (224, 64, 96, 96, 128, "avg", 128),
    (192, 96, 128, 96, 128, "avg", 128),
    (160, 128, 160, 128, 160, "avg", 96),
    (96, 128, 192, 160, 192, "avg", 96),
    (0, 128, 192, 192, 256, "max", 0),
    (352, 192, 320, 160, 224, "avg", 128),
    (352, 192, 320, 192, 224, "max", 128),
)


class InceptionNetwork(nn.Module):
    """Parts in a row, global average pooling, dropout, a linear layer.

    (batch, channels, height, width) -> (batch, classes). `heads` are auxiliary classifiers for training: the
    first reads what the first part makes, the second what the second makes.
    """

    def __init__(
        self,
        parts: Iterable[nn.Module],
        *,
        width: int,
        classes: int,
        dropout: float = 0.0,
        heads: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.heads = nn.ModuleList(heads)
        self.end = nn.Sequential(GlobalAveragePool(), nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return self.end(x)

    def outputs(self, x: Tensor) -> list[Tensor]:
        """The logits, then those of the auxiliary classifiers."""
        auxiliary = []
        for place, part in enumerate(self.parts):
            x = part(x)
            if place < len(self.heads):
                auxiliary.append(self.heads[place](x))
        return [self.end(x), *auxiliary]


class Branches(nn.Module):
    """Concatenates what its branches make of the same input, along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def conv(c_in: int, c_out: int, kernel: Kernel = 1, how: How = "same") -> nn.Module:
    """Convolution, batch norm, ReLU. `how`: padded to the same size, or not padded (``valid``), or not padded
    and of stride 2 (``halve``).
    """
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (height // 2, width // 2) if how == "same" else 0
    convolution = nn.Conv2d(c_in, c_out, (height, width), 2 if how == "halve" else 1, padding, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(c_out), nn.ReLU())


def chain(c_in: int, *steps: Step) -> nn.Module:
    """Convolutions in a row; of each its channels out, kernel and, if not ``same``, how."""
    widths = [c_in, *(step[0] for step in steps)]
    return nn.Sequential(*(conv(c, *step) for c, step in zip(widths, steps, strict=False)))


def pooled(c_in: int, c_out: int) -> nn.Module:
    """3x3 average pooling that keeps the size, then a 1x1 convolution."""
    return nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv(c_in, c_out))


def fork(c_in: int, c_out: int) -> nn.Module:
    """1x3 and 3x1 side by side, `c_out` channels each."""
    return Branches(conv(c_in, c_out, (1, 3)), conv(c_in, c_out, (3, 1)))


def reduction(c: int, *, k: int, l: int, m: int, n: int) -> nn.Module:  # noqa: E741, the paper's letters
    """From 35x35 to 17x17, c + m + n channels out: 3x3 (n), 1x1 - 3x3 - 3x3 (k, l, m), and a pool.

    Szegedy et al. 2017, figure 7 and table 1; Inception-v3 has the same.
    """
    return Branches(
        conv(c, n, 3, "halve"), chain(c, (k, 1), (l, 3), (m, 3, "halve")), nn.MaxPool2d(3, stride=2)
    )


def stem(channels: int) -> list[nn.Module]:
    """To 192 channels: from 299x299 to 71x71. Inception-v3 and both Inception-ResNets begin so."""
    return [
        chain(channels, (32, 3, "halve"), (32, 3, "valid"), (64, 3)),
        nn.MaxPool2d(3, stride=2),
        chain(64, (80, 1), (192, 3, "valid")),
    ]


def _separable(c_in: int, c_out: int) -> nn.Module:
    """7x7 of stride 2, as eight filters of each channel that a 1x1 convolution mixes; batch norm, ReLU."""
    deep = nn.Conv2d(c_in, 8 * c_in, 7, 2, 3, groups=c_in, bias=False)
    return nn.Sequential(deep, conv(8 * c_in, c_out))


@baseline(small={"se": True, "classes": 10, "input": (3, 32, 32)})
def inception_v2(
    *,
    se: bool = False,
    form: Form = "released",
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """Inception with batch norm: two 3x3 in place of 5x5, some strides of 2 inside the modules.

    form: as in the ``paper`` (figure 5 and the text below it), the first convolution is separable, modules 4c
    and 4d project their pools to 96 channels, and no convolution has biases. The ``released`` Caffe models,
    which all counts in the literature are of, have a full 7x7, 128 channels in these two places and, without
    `se`, biases before the batch norms. se: squeeze-excite of ratio 16 behind every module (Hu et al. 2018).
    Weights start as in He et al. 2015; the paper does not say. Szegedy et al. 2016 call another network
    Inception-v2: a step on the way to Inception-v3. Only the channels of `input` shape the network.
    """
    one_of("form", form, ("released", "paper"))
    bias = form == "released" and not se
    if form == "paper":
        first = _separable(input[0], 64)
    else:
        first = conv_bn(input[0], 64, 2, kernel=7, act="relu", bias=bias)
    parts = [
        first,
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        conv_bn(64, 64, kernel=1, act="relu", bias=bias),
        conv_bn(64, 192, act="relu", bias=bias),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
    ]
    c = 192
    for b1, r3, b3, r5, b5, pool, projected in MODULES:
        if projected == 96 and form == "released":
            projected = 128
        c_out = b1 + b3 + b5 + (projected or c)
        widths = {"b1": b1, "r3": r3, "b3": b3, "r5": r5, "b5": b5, "pool_proj": projected}
        form_of = {"far": "3x3_3x3", "pool": pool, "bias": bias}
        parts.append(inception(c, c_out, 1 if projected else 2, **widths, **form_of))
        parts += [SqueezeExcite(c_out, c_out // 16)] if se else []
        c = c_out
    network = InceptionNetwork([nn.Sequential(*parts)], width=c, classes=classes)
    initialise(network, conv=he_in)
    return network


class Head(nn.Module):
    """The auxiliary classifier of Inception-v3: (batch, 768, height, width) -> (batch, classes).

    Pooling of 5x5 with stride 3 makes 5x5 of 17x17. Maps that are too small for it are averaged to 5x5, so
    that every input has a head of the same parameters.
    """

    def __init__(self, c_in: int, classes: int) -> None:
        super().__init__()
        self.features = chain(c_in, (128, 1), (768, 5, "valid"))
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) >= 17:
            x = nn.functional.avg_pool2d(x, 5, stride=3)
        else:
            x = nn.functional.adaptive_avg_pool2d(x, 5)
        return self.classifier(self.features(x).mean(dim=(2, 3)))


def _wide(c: int, pool: int) -> nn.Module:
    """On 35x35: 224 + pool channels out (Szegedy et al. 2016, figure 5; as released, with 5x5)."""
    return Branches(
        conv(c, 64), chain(c, (48, 1), (64, 5)), chain(c, (64, 1), (96, 3), (96, 3)), pooled(c, pool)
    )


def _long(c: int, narrow: int) -> nn.Module:
    """On 17x17: 768 channels out, 7x7 as 1x7 and 7x1 between `narrow` channels (figure 6)."""
    row, column = (narrow, (1, 7)), (narrow, (7, 1))
    return Branches(
        conv(c, 192),
        chain(c, (narrow, 1), row, (192, (7, 1))),
        chain(c, (narrow, 1), column, row, column, (192, (1, 7))),
        pooled(c, 192),
    )


def _forked(c: int) -> nn.Module:
    """On 8x8: 2048 channels out (figure 7)."""
    near = nn.Sequential(conv(c, 384), fork(384, 384))
    far = nn.Sequential(chain(c, (448, 1), (384, 3)), fork(384, 384))
    return Branches(conv(c, 320), near, far, pooled(c, 192))


@baseline(small={"aux": True, "classes": 10, "input": (3, 75, 75)})
def inception_v3(
    *,
    aux: bool = False,
    dropout: float = 0.2,
    classes: int = 1000,
    input: Sequence[int] = (3, 299, 299),
) -> nn.Module:
    """Inception with 7x7 and 3x3 convolutions factorised, as in its release (section 10 and tables 3 and 4).

    aux: an auxiliary classifier with batch norm behind the last module on 17x17; see `outputs`. dropout:
    before the classifier. Weights start as in He et al. 2015, normal in place of cut normal, and in the
    auxiliary classifier at 0.01 and 0.001, as the authors' code has it (TensorFlow-Slim). Height and width of
    `input` must be at least 75; only its channels shape the network. Raises ValueError for smaller ones.
    """
    smallest(input, LEAST)
    on_35 = [_wide(192, 32), _wide(256, 64), _wide(288, 64)]
    on_17 = [_long(768, narrow) for narrow in (128, 160, 160, 192)]
    shrink = Branches(
        chain(768, (192, 1), (320, 3, "halve")),
        chain(768, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, "halve")),
        nn.MaxPool2d(3, stride=2),
    )
    parts = [
        nn.Sequential(
            *stem(input[0]),
            nn.MaxPool2d(3, stride=2),
            *on_35,
            reduction(288, k=64, l=96, m=96, n=384),
            *on_17,
        ),
        nn.Sequential(shrink, _forked(1280), _forked(2048)),
    ]
    heads = [Head(768, classes)] if aux else []
    network = InceptionNetwork(parts, width=2048, classes=classes, dropout=dropout, heads=heads)
    initialise(network, conv=he_in, linear=he_in)
    for head in heads:
        initialise(head.features[1], conv=truncated(0.01))
        initialise(head.classifier, linear=truncated(0.001))
    return network
