"""SqueezeNet (Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, 2016): AlexNet's accuracy in 1.25M parameters.

Version 1.0, that of the paper, has 1,248,424 parameters and, in the authors' file for 227x227 pixels,
861,339,936 multiply-adds; version 1.1 of their release has 1,235,496 and 349,151,936 on 224x224.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator
from torch import Tensor, nn

from nas.primitives.head import GlobalAveragePool
from nas.primitives.mobile import fire

from .family import baseline, caffe_xavier, initialise, one_of, smallest

Version = Annotated[Literal["1.0", "1.1"], BeforeValidator(str)]  # 1.0 without quotes is a number in YAML
FIRST = {"1.0": (96, 7), "1.1": (64, 3)}  # channels and kernel of conv1
POOLED = {"1.0": (4, 8), "1.1": (3, 5)}  # number of the fire module behind which a pooling stands
SMALLEST = {"1.0": 21, "1.1": 17}  # side of an input that leaves something for the last pooling


class Bypassed(nn.Module):
    """A fire module and what goes around it, added (section 6): shapes as in the fire module."""

    def __init__(self, fire: nn.Module, bypass: nn.Module) -> None:
        super().__init__()
        self.fire = fire
        self.bypass = bypass

    def forward(self, x: Tensor) -> Tensor:
        return self.fire(x) + self.bypass(x)


def around(fire: nn.Module, c_in: int, c_out: int, bypass: str | None) -> nn.Module:
    """The fire module with its bypass: the input itself where channels agree, a 1x1 convolution in the
    complex form where they do not, or none.
    """
    if bypass is None or (bypass == "simple" and c_in != c_out):
        return fire
    return Bypassed(fire, nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1))


@baseline(small={"version": "1.1", "classes": 10, "input": (3, 32, 32)})
def squeezenet(
    *,
    version: Version = "1.0",
    bypass: Literal["simple", "complex"] | None = None,
    squeeze_ratio: float = 0.125,
    share_3x3: float = 0.5,
    padding: int | None = None,
    dropout: float = 0.5,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """SqueezeNet: (batch, channels, height, width) -> (batch, classes).

    version: ``1.0``, or ``1.1`` with a smaller conv1 and earlier poolings. bypass: ``simple`` around the fire
        modules that keep the number of channels (3, 5, 7, 9); ``complex``: around the others too, by 1x1
        convolutions (section 6).
    squeeze_ratio, share_3x3: channels that a fire module squeezes to, as a part of those of either of its
        expansions together, and the part of the latter that are 3x3 (SR and pct3x3 of section 5).
    padding: of the last 1x1 convolution. The authors' file of version 1.0, which is for 227x227 pixels, has 1
        (a ring of pixels that see the bias alone); their 1.1 and all later code have 0. By default 1 for that
        version and input, else 0.
    Poolings round up, as in Caffe. Start: U(-a, a) with a = sqrt(3 / fan in), in the last convolution
    N(0, 0.01^2), biases 0 (the authors' files). Raises ValueError for parts that leave no channel, and for
    inputs too small for three poolings.
    """
    one_of("version", version, FIRST)
    one_of("bypass", bypass, (None, "simple", "complex"))
    smallest(input, SMALLEST[version])
    for name, part, most in (("squeeze_ratio", squeeze_ratio, 1.0), ("share_3x3", share_3x3, 0.99)):
        if not 0.01 <= part <= most:
            raise ValueError(f"{name} must lie between 0.01 and {most}, not {part}")
    if padding is None:
        padding = int(version == "1.0" and tuple(input[1:]) == (227, 227))
    c_in, kernel = FIRST[version]
    layers = [nn.Conv2d(input[0], c_in, kernel, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    for number in range(2, 10):  # fire2 to fire9
        c_out = 128 * (number // 2)
        module = fire(c_in, c_out, squeeze=int(c_out * squeeze_ratio), wide=round(c_out * share_3x3))
        layers.append(around(module, c_in, c_out, bypass))
        if number in POOLED[version]:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
        c_in = c_out
    last = nn.Conv2d(c_in, classes, 1, padding=padding)
    network = nn.Sequential(*layers, nn.Dropout(dropout), last, nn.ReLU(), GlobalAveragePool())
    initialise(network, conv=caffe_xavier)
    nn.init.normal_(last.weight, std=0.01)
    return network
