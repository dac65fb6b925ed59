"""VGG (Simonyan & Zisserman, ICLR 2015): columns A to E of table 1, with batch norm, and for small pictures.

D, known as VGG-16, has 138,357,544 parameters and 15,470,264,320 multiply-adds. C has 16 layers as well, but
three of them are 1x1 convolutions: 133,638,952 and 11,770,888,192.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from nas.primitives.head import GlobalAveragePool
from nas.primitives.regular import lrn as response_norm

from .alexnet import classifier
from .family import baseline, he, initialise, normal, one_of, smallest

Config = Literal["A", "B", "C", "D", "E"]
CHANNELS = (64, 128, 256, 512, 512)
STAGES = {  # kernels of the convolutions of each stage
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3),) * 5,
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
}
FINAL = 7  # side of the maps that the first linear layer sees


def features(c_in: int, config: Config, *, bn: bool, lrn: bool, width: float) -> tuple[list[nn.Module], int]:
    """The convolutions and poolings, (batch, c_in, h, w) -> (batch, c, h // 32, w // 32); and c."""
    one_of("config", config, STAGES)
    if int(CHANNELS[0] * width) < 1:
        raise ValueError(f"width must leave a channel of the first {CHANNELS[0]}, not {width}")
    layers: list[nn.Module] = []
    for kernels, channels in zip(STAGES[config], CHANNELS, strict=True):
        c_out = int(channels * width)
        for kernel in kernels:
            layers += [
                nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2),
                *([nn.BatchNorm2d(c_out)] if bn else []),
                nn.ReLU(),
                *([response_norm(c_out, c_out)] if lrn and not layers else []),
            ]
            c_in = c_out
        layers.append(nn.MaxPool2d(2))
    return layers, c_in


@baseline(small={"config": "A", "width": 0.125, "fc_width": 16, "classes": 10, "input": (3, 32, 32)})
def vgg(
    *,
    config: Config = "D",
    bn: bool = False,
    lrn: bool = False,
    width: float = 1.0,
    fc_width: int = 4096,
    dropout: float = 0.5,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """The column of that letter, for ImageNet: (batch, channels, height, width) -> (batch, classes).

    config: A has 11 layers, B 13, C and D 16, E 19.
    lrn: local response normalisation behind the first convolution, as in column A-LRN, with AlexNet's
        constants. bn: batch norm behind every convolution, which keeps its bias; the paper has none,
        torchvision's vgg16_bn and its like do.
    width: multiplies the channels of all convolutions. fc_width: units of both hidden linear layers.
    Maps are averaged to 7x7 before the first linear layer where the input's size leaves others. Start:
    weights of convolutions as in He et al. 2015, of linear layers N(0, 0.01^2), biases 0. (The paper started
    A with N(0, 0.01^2) and the deeper ones from a trained A, and found later that Glorot's start needs no
    such help.) Raises ValueError for inputs below 32 pixels.
    """
    smallest(input, 32)
    layers, c_out = features(input[0], config, bn=bn, lrn=lrn, width=width)
    hidden = classifier(c_out * FINAL**2, [fc_width] * 2, dropout=dropout, classes=classes)
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(FINAL), hidden)
    initialise(network, conv=he, linear=normal(0.01))
    return network


@baseline(small={"config": "A", "width": 0.125, "input": (3, 32, 32)})
def vgg_cifar(
    *,
    config: Config = "D",
    bn: bool = True,
    lrn: bool = False,
    width: float = 1.0,
    head: Sequence[int] = (),
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """The column of that letter on small pictures: (batch, channels, height, width) -> (batch, classes).

    Not in the paper: after five poolings one pixel of 32x32 is left, and the head is smaller.
    head: units of hidden linear layers, each followed by ReLU and dropout of half of its values; none in the
        usual form, which is one linear layer on 512 channels; (512, 512) and (4096, 4096) are found too.
    The other arguments and the start: as in `vgg`. Larger pictures are averaged before the head. Raises
    ValueError for inputs below 32 pixels.
    """
    smallest(input, 32)
    layers, c_out = features(input[0], config, bn=bn, lrn=lrn, width=width)
    last = classifier(c_out, head, dropout=0.5, classes=classes)
    network = nn.Sequential(*layers, GlobalAveragePool(), last)
    initialise(network, conv=he, linear=normal(0.01))
    return network
