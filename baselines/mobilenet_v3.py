"""MobileNetV3 (Howard et al. 2019): found by search and by hand, with squeeze-excite and hard swish.

At 224x224 pixels the large network has 5,483,032 parameters and 216,589,760 multiply-adds (TF-slim: 5.4 and
217 million), the small one 2,542,856 and 56,510,400 (table 3: 2.5 and 56 million).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from torch import nn

from nas.primitives.conv import conv_bn
from nas.primitives.mobile import inverted_residual
from nas.search_space.mobile import rounded

from .family import baseline, initialise, one_of, truncated
from .mobilenet_v1 import Pooled

Size = Literal["large", "small"]


class Row(NamedTuple):
    """Consecutive blocks: how many, kernel, expansion, channels, stride of the first one, and whether they
    have squeeze-excite and hard swish.
    """

    blocks: int
    kernel: int
    expand: float
    channels: int
    stride: int
    squeeze: bool
    swish: bool


# Tables 1 and 2. Expansions are hidden channels over those that come in, as in the authors' code.
LARGE = (
    Row(1, 3, 1, 16, 1, False, False),
    Row(1, 3, 4, 24, 2, False, False),
    Row(1, 3, 3, 24, 1, False, False),
    Row(3, 5, 3, 40, 2, True, False),
    Row(1, 3, 6, 80, 2, False, True),
    Row(1, 3, 2.5, 80, 1, False, True),
    Row(2, 3, 2.3, 80, 1, False, True),
    Row(2, 3, 6, 112, 1, True, True),
    Row(3, 5, 6, 160, 2, True, True),
)
SMALL = (
    Row(1, 3, 1, 16, 2, True, False),
    Row(1, 3, 4.5, 24, 2, False, False),
    Row(1, 3, 3.67, 24, 1, False, False),
    Row(1, 5, 4, 40, 2, True, True),
    Row(2, 5, 6, 40, 1, True, True),
    Row(2, 5, 3, 48, 1, True, True),
    Row(3, 5, 6, 96, 2, True, True),
)
SIZES = {"large": (LARGE, 960, 1280), "small": (SMALL, 576, 1024)}  # blocks, last convolution, its features
FULL_STEM = 0.75  # below this width the first convolution keeps its 16 channels, in timm


@baseline(small={"size": "small", "width": 0.5, "last": 64, "classes": 10, "input": (3, 64, 64)})
def mobilenet_v3(
    *,
    size: Size = "large",
    width: float = 1.0,
    minimalistic: bool = False,
    last: int | None = None,
    dropout: float = 0.2,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """MobileNetV3 (tables 1 and 2).

    width: multiplies the channels, which are rounded to multiples of 8 as in MobileNetV2; hidden channels
    follow from the rounded ones. minimalistic: without squeeze-excite, hard swish and 5x5 convolutions, as
    released beside the paper's networks. last: features that the classifier reads, 1280 or 1024 at every
    width, as in TF-slim (torchvision multiplies them, too). dropout: before the classifier; the rate and the
    initial weights, N(0, 0.09^2) cut at two deviations, are those of TF-slim. Only the channels of `input`
    shape the network. Raises ValueError for a width that is not positive, and a `last` below 1.
    """
    one_of("size", size, get_args(Size))
    rows, wide, features = SIZES[size]
    features = features if last is None else last
    if features < 1:
        raise ValueError(f"last is the number of features that the classifier reads: at least 1, not {last}")
    act = "relu" if minimalistic else "hard_swish"
    c_in = 16 if width < FULL_STEM else rounded(16 * width)
    layers = [conv_bn(input[0], c_in, 2, act=act)]
    for row in rows:
        c_out = rounded(row.channels * width)
        for place in range(row.blocks):
            stride = 1 if place else row.stride
            layers.append(_block(row, c_in, c_out, stride, minimalistic=minimalistic))
            c_in = c_out
    wide = rounded(wide * width)
    layers.append(conv_bn(c_in, wide, kernel=1, act=act))
    swish = nn.ReLU() if minimalistic else nn.Hardswish()
    head = (nn.Linear(wide, features), swish, nn.Dropout(dropout), nn.Linear(features, classes))
    network = Pooled(layers, *head)
    initialise(network, conv=truncated(0.09), linear=truncated(0.09))
    return network


def _block(row: Row, c_in: int, c_out: int, stride: int, *, minimalistic: bool) -> nn.Module:
    return inverted_residual(
        c_in,
        c_out,
        stride,
        kernel=3 if minimalistic else row.kernel,
        expand=row.expand,
        expand_round=8,
        se=0.25 if row.squeeze and not minimalistic else 0.0,
        se_of="hidden",
        se_round=8,
        gate="hard_sigmoid",
        act="hard_swish" if row.swish and not minimalistic else "relu",
    )
