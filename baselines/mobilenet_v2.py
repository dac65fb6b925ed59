"""MobileNetV2 (Sandler et al. 2018): inverted residuals with linear bottlenecks.

At width 1 and 224x224 pixels it has 3,504,872 parameters (3,470,760 without the batch norms: TF-slim prints
3.47 million) and 300,774,272 multiply-adds (300 million). At width 1.4 the counts are those of TF-slim, 6.06
and 582 million; the paper's 6.9 and 585 million are not those of the released network.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.mobile import inverted_residual
from nas.search_space.mobile import rounded

from .family import baseline, initialise, truncated
from .mobilenet_v1 import Pooled

# Table 2: expansion, channels, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip


@baseline(small={"width": 0.25, "last": 64, "classes": 10, "input": (3, 64, 64)})
def mobilenet_v2(
    *,
    width: float = 1.0,
    round_to: int = 8,
    last: int | None = None,
    dropout: float = 0.2,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """MobileNetV2 (table 2).

    width: multiplies the channels, which are rounded to the nearest multiple of `round_to`, or to the next
    one where that is more than a tenth too few. last: channels that the classifier reads; 1280 up to width 1,
    beyond it 1280 times the width. dropout: before the classifier; the rate and the initial weights,
    N(0, 0.09^2) cut at two deviations, are those of TF-slim. Only the channels of `input` shape the network.
    Raises ValueError for a width that is not positive, and a `round_to` or `last` below 1.
    """
    if round_to < 1:
        raise ValueError(f"round_to is what the channels are multiples of: at least 1, not {round_to}")
    features = max(1280, rounded(1280 * width, round_to)) if last is None else last
    if features < 1:
        raise ValueError(f"last is the number of channels that the classifier reads: at least 1, not {last}")
    c_in = rounded(32 * width, round_to)
    layers = [conv_bn(input[0], c_in, 2, act="relu6")]
    for expand, channels, blocks, stride in STAGES:
        c_out = rounded(channels * width, round_to)
        for place in range(blocks):
            layers.append(inverted_residual(c_in, c_out, 1 if place else stride, expand=expand))
            c_in = c_out
    layers.append(conv_bn(c_in, features, kernel=1, act="relu6"))
    network = Pooled(layers, nn.Dropout(dropout), nn.Linear(features, classes))
    initialise(network, conv=truncated(0.09), linear=truncated(0.09))
    return network
