"""AlexNet (Krizhevsky, Sutskever, Hinton, NeurIPS 2012), its ablations, and the one-column form of 2014.

The network on two graphics cards has 60,965,224 parameters and 724,406,816 multiply-adds on 227x227 pixels:
665,784,864 of them in its convolutions. Sizes and paddings are those of Caffe's bvlc_alexnet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn

from nas.primitives.regular import lrn as response_norm

from .family import baseline, initialise, normal, one_of, smallest

FINAL = 6  # side of the maps that the first linear layer sees


class Variant(NamedTuple):
    """What differs between the publications: channels, padding of conv1, defaults; and the side of the
    smallest input that leaves something for the third pooling.
    """

    channels: tuple[int, ...]
    padding: int
    groups: int
    lrn: bool
    smallest: int


VARIANTS = {
    "original": Variant((96, 256, 384, 384, 256), padding=0, groups=2, lrn=True, smallest=39),
    "owt": Variant((64, 192, 384, 256, 256), padding=2, groups=1, lrn=False, smallest=63),
    "owt_paper": Variant((64, 192, 384, 384, 256), padding=2, groups=1, lrn=False, smallest=63),
}


def classifier(features: int, widths: Sequence[int], *, dropout: float, classes: int) -> nn.Sequential:
    """Hidden linear layers of `widths`, each with ReLU and dropout, and a last one: (batch, features, ...) ->
    (batch, classes).
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for width in widths:
        layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


@baseline(small={"fc_width": 32, "classes": 10, "input": (3, 67, 67)})
def alexnet(
    *,
    variant: Literal["original", "owt", "owt_paper"] = "original",
    groups: int | None = None,
    conv3_conv4: bool = True,
    fc6: bool = True,
    fc7: bool = True,
    fc_width: int = 4096,
    lrn: bool | None = None,
    dropout: float = 0.5,
    classes: int = 1000,
    input: Sequence[int] = (3, 227, 227),
) -> nn.Module:
    """AlexNet: (batch, channels, height, width) -> (batch, classes). Overlapping poolings, 3x3 of stride 2.

    variant: ``original``, the paper of 2012 as Caffe has it: conv1 without padding, poolings that round up
        (the paper's 224 pixels do not give its 55x55 maps, 227 do); ``owt``, Krizhevsky's "one weird trick"
        of 2014 as torchvision has it, for 224 pixels: one column of other widths, no normalisation. Its 256
        channels of conv4 are those of Krizhevsky's own code; ``owt_paper`` has the 384 of his paper.
    groups: of conv2, conv4 and conv5; the variant's by default, 2 or 1. lrn: whether local response
        normalisation follows conv1 and conv2; the variant's by default, yes or no.
    conv3_conv4, fc6, fc7: whether these layers are there (ablations of Zeiler & Fergus 2014, table 3).
        fc_width: units of fc6 and of fc7, where there are any.
    Maps are averaged to 6x6 before the first linear layer where the input's size leaves others. Start:
    weights N(0, 0.01^2), biases 1 in conv2, conv4, conv5 and the hidden linear layers, else 0 (section 5).
    Raises ValueError for groups that do not divide the channels, and for inputs below 39 pixels (63 in the
    variants of 2014).
    """
    one_of("variant", variant, VARIANTS)
    usual = VARIANTS[variant]
    smallest(input, usual.smallest)
    widths = usual.channels
    groups = usual.groups if groups is None else groups
    if groups < 1 or any(width % groups for width in widths):
        raise ValueError(f"groups must divide the channels {list(widths)}, not {groups}: take 1 or 2")
    norm = usual.lrn if lrn is None else lrn

    def pool(channels: int, normalised: bool) -> list[nn.Module]:
        before = [response_norm(channels, channels)] if normalised else []
        return [*before, nn.MaxPool2d(3, 2, ceil_mode=variant == "original")]

    first, second, third, fourth, fifth = widths
    middle: list[nn.Module] = []
    if conv3_conv4:
        middle = [nn.Conv2d(second, third, 3, padding=1), nn.ReLU()]
        middle += [nn.Conv2d(third, fourth, 3, padding=1, groups=groups), nn.ReLU()]
    network = nn.Sequential(
        nn.Conv2d(input[0], first, 11, 4, usual.padding), nn.ReLU(), *pool(first, norm),
        nn.Conv2d(first, second, 5, padding=2, groups=groups), nn.ReLU(), *pool(second, norm),
        *middle,
        nn.Conv2d(fourth if conv3_conv4 else second, fifth, 3, padding=1, groups=groups), nn.ReLU(),
        *pool(fifth, False),
        nn.AdaptiveAvgPool2d(FINAL),
        classifier(fifth * FINAL**2, [fc_width] * (fc6 + fc7), dropout=dropout, classes=classes),
    )  # fmt: skip
    initialise(network, conv=normal(0.01), linear=normal(0.01))
    ones(network)
    return network


def ones(network: nn.Module) -> None:
    """Biases of 1 where section 5 has them: ReLUs with positive inputs learn from the first step."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    *hidden, _ = [module for module in network.modules() if isinstance(module, nn.Linear)]
    for module in (convolutions[1], *convolutions[3:-1], convolutions[-1], *hidden):
        assert isinstance(module.bias, torch.Tensor)
        nn.init.ones_(module.bias)
