"""DenseNet (Huang, Liu, van der Maaten, Weinberger, CVPR 2017): every layer reads what all before it made.

For small images DenseNet-BC (L=100, k=12) has 769,162 parameters and takes 287,929,692 multiply-adds; for
ImageNet DenseNet-121 has 7,978,856 and takes 2,834,161,664.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.dense import dense_layer, dense_transition
from nas.primitives.head import bn_relu

from .family import baseline, he, initialise, one_of

LAYERS = {  # layers a block: table 1, the four of growth 32; 161 has 48
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),  # 265 by the count that the other names follow
}


class DenseNet(nn.Module):
    """A stem, dense blocks with transitions between them, batch norm, ReLU, global average pooling, linear.

    (batch, channels, height, width) -> (batch, classes). A transition halves height and width, rounded down,
    and keeps the share `theta` of the channels.
    """

    def __init__(
        self,
        stem: nn.Module,
        layers: Sequence[int],
        *,
        c: int,
        growth: int,
        bottleneck: int,
        theta: float,
        dropout: float,
        classes: int,
    ) -> None:
        super().__init__()
        parts = [stem]
        for block, count in enumerate(layers):
            if block:
                kept = max(1, int(c * theta))
                parts += [_dropping(dense_transition(c, kept), dropout), nn.AvgPool2d(2)]
                c = kept
            for _ in range(count):
                layer = dense_layer(c, c + growth, bottleneck=bottleneck)
                layer.branch = _dropping(layer.branch, dropout)
                parts.append(layer)
                c += growth
        self.features = nn.Sequential(*parts, bn_relu(c, c))
        self.classifier = nn.Linear(c, classes)
        initialise(self, conv=he)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))


def _dropping(layers: nn.Module, rate: float) -> nn.Module:
    """The layers, with dropout behind every convolution."""
    if not rate:
        return layers
    dropped = []
    for layer in layers.children():
        dropped += [layer, nn.Dropout(rate)] if isinstance(layer, nn.Conv2d) else [layer]
    return nn.Sequential(*dropped)


def _check(*, k: int, theta: float, init_channels: int) -> None:
    if min(k, init_channels) < 1:
        raise ValueError(
            f"k and init_channels are counts of channels: at least 1, not {k} and {init_channels}"
        )
    if not 0 < theta <= 1:
        raise ValueError(f"theta is the share of channels that a transition keeps: in (0, 1], not {theta}")


@baseline(small={"L": 10, "k": 4, "input": (3, 16, 16)})
def densenet_cifar(
    *,
    L: int = 100,
    k: int = 12,
    bc: bool = True,
    theta: float | None = None,
    init_channels: int | None = None,
    dropout: float = 0.0,
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """The dense network of `L` layers and growth `k`, three blocks of equal length.

    bc: bottlenecks, 1x1 convolutions to 4k channels before the 3x3 ones: with theta=0.5 DenseNet-BC, with
    theta=1 DenseNet-B; without `bc` DenseNet, or with theta=0.5 DenseNet-C. theta: the share of channels that
    a transition keeps; by default 0.5 with `bc`, else 1. init_channels: of the first convolution; by default
    as in the paper 2k with `bc`, else 16 (the authors' later code has 2k for all). dropout: behind all
    convolutions but the first; 0.2 in the paper where the data are not augmented. Convolutions start as
    in He et al. 2015. Only the channels of `input` shape the network. Raises ValueError for a depth that is
    not 6n + 4 with `bc`, 3n + 4 without.
    """
    if theta is None:
        theta = 0.5 if bc else 1.0
    if init_channels is None:
        init_channels = 2 * k if bc else 16
    _check(k=k, theta=theta, init_channels=init_channels)
    period = 6 if bc else 3
    count = max(1, round((L - 4) / period))
    if period * count + 4 != L:
        raise ValueError(
            f"L must be {period}n + 4 with bc={bc}, not {L}; the nearest is {period * count + 4}"
        )
    stem = nn.Conv2d(input[0], init_channels, 3, padding=1, bias=False)
    return DenseNet(
        stem,
        [count] * 3,
        c=init_channels,
        growth=k,
        bottleneck=4 if bc else 0,
        theta=theta,
        dropout=dropout,
        classes=classes,
    )


@baseline(small={"depth": 17, "layers": (1, 2, 2, 1), "k": 8, "classes": 10, "input": (3, 64, 64)})
def densenet_imagenet(
    *,
    depth: int = 121,
    k: int | None = None,
    init_channels: int | None = None,
    theta: float = 0.5,
    layers: Sequence[int] | None = None,
    dropout: float = 0.0,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """The dense network of `depth` layers with bottlenecks (DenseNet-BC, section 3 and table 1).

    k: growth; by default 48 at depth 161, else 32. init_channels: of the first convolution; by default 2k.
    theta: the share of channels that a transition keeps. layers: of each block, if not those of the paper.
    dropout: behind all convolutions but the first. Convolutions start as in He et al. 2015. Only the channels
    of `input` shape the network. Raises ValueError for a depth without published layers, and for layers that
    do not add up to the depth.
    """
    if layers is None:
        one_of("depth (unless layers are given)", depth, LAYERS)
        layers = LAYERS[depth]
    total = 2 * sum(layers) + len(layers) + 1
    if not layers or min(layers) < 1 or (total != depth and tuple(layers) != LAYERS.get(depth)):
        raise ValueError(
            f"layers {list(layers)} make {total} layers, not depth {depth}: twice their sum, a transition "
            "after all blocks but the last, the first convolution and the classifier"
        )
    if k is None:
        k = 48 if depth == 161 else 32
    if init_channels is None:
        init_channels = 2 * k
    _check(k=k, theta=theta, init_channels=init_channels)
    stem = nn.Sequential(
        conv_bn(input[0], init_channels, 2, kernel=7, act="relu"), nn.MaxPool2d(3, stride=2, padding=1)
    )
    form = {"c": init_channels, "growth": k, "bottleneck": 4, "theta": theta, "dropout": dropout}
    return DenseNet(stem, layers, classes=classes, **form)
