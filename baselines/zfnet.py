"""ZFNet (Zeiler & Fergus, ECCV 2014): AlexNet in one column, with a finer first layer.

Figure 3's network has 62,357,608 parameters and 1,168,032,896 multiply-adds; the one with 512, 1024 and 512
maps in layers 3 to 5 (table 3) has 107,627,624 and 2,476,704,896.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nas.primitives.regular import lrn as response_norm

from .alexnet import FINAL, classifier
from .family import baseline, initialise, normal, smallest

SMALLEST = 47  # side of an input that leaves something for the third pooling


@baseline(small={"conv345": (64, 64, 32), "fc_width": 32, "classes": 10, "input": (3, 64, 64)})
def zfnet(
    *,
    conv345: Sequence[int] = (384, 384, 256),
    fc_width: int = 4096,
    lrn: bool = True,
    dropout: float = 0.5,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """ZFNet: (batch, channels, height, width) -> (batch, classes).

    conv345: channels of layers 3 to 5. fc_width: units of layers 6 and 7; table 3 has 2048, 4096 and 8192.
    lrn: whether responses are normalised across maps behind the first two poolings; the paper does not give
        the constants, here they are AlexNet's.
    The paddings, which the paper does not give either, are those that make figure 3's maps of 110, 55, 26, 13
    and 6 pixels. Maps are averaged to 6x6 before layer 6 where the input's size leaves others. Start: weights
    N(0, 0.01^2), biases 0 (section 3.1). Raises ValueError unless conv345 are three numbers, and for inputs
    below 47 pixels.
    """
    if len(conv345) != 3:
        raise ValueError(f"conv345 are the channels of layers 3, 4 and 5: three numbers, not {list(conv345)}")
    smallest(input, SMALLEST)
    third, fourth, fifth = conv345

    def pool(channels: int) -> list[nn.Module]:
        behind = [response_norm(channels, channels)] if lrn else []
        return [nn.MaxPool2d(3, 2, ceil_mode=True), *behind]

    network = nn.Sequential(
        nn.Conv2d(input[0], 96, 7, 2, padding=1), nn.ReLU(), *pool(96),
        nn.Conv2d(96, 256, 5, 2), nn.ReLU(), *pool(256),
        nn.Conv2d(256, third, 3, padding=1), nn.ReLU(),
        nn.Conv2d(third, fourth, 3, padding=1), nn.ReLU(),
        nn.Conv2d(fourth, fifth, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(FINAL),
        classifier(fifth * FINAL**2, [fc_width] * 2, dropout=dropout, classes=classes),
    )  # fmt: skip
    initialise(network, conv=normal(0.01), linear=normal(0.01))
    return network
