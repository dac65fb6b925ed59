"""GoogLeNet (Szegedy et al., CVPR 2015): 22 layers of inception modules.

6,998,552 parameters and 1,582,671,872 multiply-adds for 224x224; with its two auxiliary classifiers, which
only training runs, 13,378,280 parameters. Pooling rounds up, as in Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.inception import FIVE, ONE, THREE, Path, Paths, Style

from .family import baseline, caffe_xavier, initialise, one_of, truncated
from .inception import InceptionNetwork

MODULES = {  # table 1: 1x1; reduction, 3x3; reduction, 5x5; projection of the pool
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED = ("4a", "5a")  # modules that a pool of stride 2 comes before
READ = ("4a", "4d", "5b")  # modules that a classifier reads


def _conv(c_in: int, c_out: int, stride: int = 1, *, kernel: int, bn: bool) -> nn.Module:
    norm = "batch" if bn else "none"
    return conv_bn(c_in, c_out, stride, kernel=kernel, act="relu", norm=norm, bias=not bn)


def _response_norm(bn: bool) -> list[nn.Module]:
    """Local response normalisation (Krizhevsky et al. 2012), which batch norm replaces."""
    return [] if bn else [nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)]


def _stem(channels: int, *, bn: bool) -> list[nn.Module]:
    return [
        _conv(channels, 64, 2, kernel=7, bn=bn),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        *_response_norm(bn),
        _conv(64, 64, kernel=1, bn=bn),
        _conv(64, 192, kernel=3, bn=bn),
        *_response_norm(bn),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
    ]


def _module(c_in: int, widths: Sequence[int], *, kernel: tuple[int, int], bn: bool) -> nn.Module:
    b1, r3, b3, r5, b5, pool = widths
    paths = {
        "b1": Path(((ONE, b1),)),
        "b3": Path(((ONE, r3), (THREE, b3))),
        "b5": Path(((ONE, r5), (kernel, b5))),
        "pool": Path(((ONE, pool),), "max"),
    }
    return Paths(c_in, 1, paths, Style(norm="batch" if bn else "none", bias=not bn))


class Head(nn.Module):
    """An auxiliary classifier (section 5): (batch, c_in, height, width) -> (batch, classes).

    Pooling of 5x5 with stride 3 makes 4x4 of 14x14. Maps of other sizes are averaged to 4x4, so that every
    input has a head of the same parameters.
    """

    def __init__(self, c_in: int, classes: int, *, bn: bool) -> None:
        super().__init__()
        self.reduce = _conv(c_in, 128, kernel=1, bn=bn)
        self.hidden = nn.Linear(128 * 4 * 4, 1024)
        self.end = nn.Sequential(nn.ReLU(), nn.Dropout(0.7), nn.Linear(1024, classes))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] == (14, 14):
            x = nn.functional.avg_pool2d(x, 5, stride=3)
        else:
            x = nn.functional.adaptive_avg_pool2d(x, 4)
        return self.end(self.hidden(self.reduce(x).flatten(1)))


@baseline(small={"bn": True, "branch5x5": 3, "aux": True, "classes": 10, "input": (3, 64, 64)})
def googlenet(
    *,
    bn: bool = False,
    branch5x5: Literal[3, 5] = 5,
    aux: bool = False,
    dropout: float = 0.4,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """GoogLeNet: the paper's, or with bn=True, branch5x5=3 the one that later libraries give this name.

    bn: batch norm in place of biases and of local response normalisation; the last pool is then 2x2, as in
    torchvision. branch5x5: the kernel of the branch that sees farthest; torchvision has 3 there, which its
    authors call a known slip. aux: auxiliary classifiers behind modules 4a and 4d; see `outputs`. dropout:
    before the classifier. Weights start uniform at variance 1 / fan in and biases of hidden layers at 0.2, as
    in Caffe's re-implementation (the paper does not say); with `bn` cut normal at 0.01, as in torchvision.
    Only the channels of `input` shape the network.
    """
    one_of("branch5x5", branch5x5, (3, 5))
    kernel = FIVE if branch5x5 == 5 else THREE
    layers, parts, ends, c = _stem(input[0], bn=bn), [], [], 192
    for name, widths in MODULES.items():
        if name in POOLED:
            layers.append(nn.MaxPool2d(2 if bn and name == "5a" else 3, stride=2, ceil_mode=True))
        layers.append(_module(c, widths, kernel=kernel, bn=bn))
        b1, _, b3, _, b5, pool = widths
        c = b1 + b3 + b5 + pool
        if name in READ:
            parts.append(nn.Sequential(*layers))
            ends.append(c)
            layers = []
    heads = [Head(end, classes, bn=bn) for end in ends[:-1]] if aux else []
    network = InceptionNetwork(parts, width=c, classes=classes, dropout=dropout, heads=heads)
    _start(network, heads, bn=bn)
    return network


def _start(network: nn.Module, heads: Sequence[Head], *, bn: bool) -> None:
    """The weights that `googlenet` tells of."""
    if bn:
        initialise(network, conv=truncated(0.01), linear=truncated(0.01))
        return
    initialise(network, conv=caffe_xavier, linear=caffe_xavier)
    hidden = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer in (*hidden, *(head.hidden for head in heads)):
        nn.init.constant_(layer.bias, 0.2)
