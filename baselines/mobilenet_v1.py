"""MobileNet (Howard et al. 2017): depthwise-separable convolutions in a row, scaled by one multiplier.

At width 1 and 224x224 pixels it has 4,231,976 parameters and 568,740,352 multiply-adds (table 6: 4.2 and 569
million), and with ordinary convolutions 29,294,088 and 4,867,293,184 (table 4: 29.3 and 4866 million).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.mobile import depthwise_separable

from .family import baseline, initialise, truncated

# Table 1: channels and stride of each block. The table's stride 2 of the last block is a slip: 7x7 stays.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
LEAST = 8  # channels, in the authors' code


class Pooled(nn.Module):
    """Layers, global average pooling, a head: (batch, channels, height, width) -> (batch, classes)."""

    def __init__(self, features: Iterable[nn.Module], *head: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.head = nn.Sequential(*head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))


@baseline(small={"width": 0.25, "classes": 10, "input": (3, 64, 64)})
def mobilenet_v1(
    *,
    width: float = 1.0,
    dropout: float = 0.001,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """MobileNet (table 1).

    width: multiplies all channels, which are rounded down, to at least 8 as in TF-slim. dropout: before the
    classifier; the rate and the initial weights, N(0, 0.09^2) cut at two deviations, are those of TF-slim.
    Only the channels of `input` shape the network. Raises ValueError for a width that is not positive.
    """
    return _mobilenet(depthwise_separable, width, dropout, classes, input[0])


@baseline(small={"width": 0.25, "classes": 10, "input": (3, 64, 64)})
def conv_mobilenet(
    *,
    width: float = 1.0,
    dropout: float = 0.001,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """MobileNet with one 3x3 convolution and norm in place of each separable one ("Conv MobileNet", table 4).

    Arguments, initial weights and errors as in `mobilenet_v1`.
    """
    return _mobilenet(_full, width, dropout, classes, input[0])


def _full(c_in: int, c_out: int, stride: int) -> nn.Module:
    return conv_bn(c_in, c_out, stride, act="relu")


def _mobilenet(
    block: Callable[[int, int, int], nn.Module], width: float, dropout: float, classes: int, channels: int
) -> nn.Module:
    if width <= 0:
        raise ValueError(f"width multiplies the channels and is above 0, not {width}")
    c_in = max(int(32 * width), LEAST)
    layers = [conv_bn(channels, c_in, 2, act="relu")]
    for out, stride in BLOCKS:
        c_out = max(int(out * width), LEAST)
        layers.append(block(c_in, c_out, stride))
        c_in = c_out
    network = Pooled(layers, nn.Dropout(dropout), nn.Linear(c_in, classes))
    initialise(network, conv=truncated(0.09), linear=truncated(0.09))
    return network
