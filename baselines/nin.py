"""Network in Network (Lin, Chen, Yan, ICLR 2014): 1x1 convolutions, and averages in place of linear layers.

On CIFAR-10 it has 966,986 parameters and 222,486,528 multiply-adds; the form for ImageNet
is that of the authors' Caffe model, with 7,595,176 and 1,100,188,800.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from nas.primitives.head import GlobalAveragePool

from .family import baseline, he_in, initialise, one_of, smallest

# Kernel and stride of a stage's first convolution, and the channels of all; the last one has the classes.
CIFAR = ((5, 1, (192, 160, 96)), (5, 1, (192, 192, 192)), (3, 1, (192, 192)))
IMAGENET = ((11, 4, (96, 96, 96)), (5, 1, (256, 256, 256)), (3, 1, (384, 384, 384)), (3, 1, (1024, 1024)))
SMALLEST = {"imagenet": 39, "cifar10": 4, "cifar100": 4, "svhn": 4}  # side of an input that leaves a pixel
STAGES = {"imagenet": IMAGENET, "cifar10": CIFAR, "cifar100": CIFAR, "svhn": CIFAR}


def perceptrons(c_in: int, channels: Sequence[int], kernel: int, stride: int) -> list[nn.Module]:
    """An "mlpconv" layer: a convolution and 1x1 convolutions, with ReLUs. A strided one has no padding."""
    layers: list[nn.Module] = []
    for place, c_out in enumerate(channels):
        size = 1 if place else kernel
        padding = 0 if size == 1 or stride > 1 else size // 2
        layers += [nn.Conv2d(c_in, c_out, size, 1 if place else stride, padding), nn.ReLU()]
        c_in = c_out
    return layers


def between(dataset: str, place: int) -> list[nn.Module]:
    """What stands behind stage `place`: 3x3 poolings of stride 2 that round up, and dropout."""
    if dataset == "imagenet":
        return [nn.MaxPool2d(3, 2, ceil_mode=True), *([nn.Dropout(0.5)] if place == 2 else [])]
    pool = nn.AvgPool2d(3, 2, ceil_mode=True) if place else nn.MaxPool2d(3, 2, ceil_mode=True)
    return [pool, nn.Dropout(0.5)]


@baseline(small={"dataset": "cifar10", "classes": 10, "input": (3, 16, 16)})
def nin(
    *,
    dataset: Literal["imagenet", "cifar10", "cifar100", "svhn"] = "cifar10",
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """Network in Network: (batch, channels, height, width) -> (batch, classes).

    dataset: which of two forms: ``imagenet`` (four stages, conv1 11x11 of stride 4), or that of the paper's
        small pictures (three stages), which is the same for cifar10, cifar100 and svhn. It sets neither
        `classes` nor `input`; of `input` only the channels shape the network.
    All poolings round up, as in Caffe: from 224 pixels 54, 27, 13, 6. The last convolution has a ReLU and its
    maps are averaged, so logits are not negative. Half of the values are dropped between the stages of the
    small form, and before the last stage of the large one. The paper leaves the start open; here it is that
    of He et al. 2015, N(0, 2 / fan in). Raises ValueError for inputs below 4 (imagenet: 39) pixels.
    """
    one_of("dataset", dataset, STAGES)
    smallest(input, SMALLEST[dataset])
    *inner, (kernel, stride, hidden) = STAGES[dataset]
    layers: list[nn.Module] = []
    c_in = input[0]
    for place, (size, step, channels) in enumerate(inner):
        layers += [*perceptrons(c_in, channels, size, step), *between(dataset, place)]
        c_in = channels[-1]
    layers += [*perceptrons(c_in, (*hidden, classes), kernel, stride), GlobalAveragePool()]
    network = nn.Sequential(*layers)
    initialise(network, conv=he_in)
    return network
