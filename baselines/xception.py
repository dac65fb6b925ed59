"""Xception (Chollet, CVPR 2017): depthwise-separable convolutions in residual modules.

22,855,952 parameters, as the paper prints, and 8,357,403,496 multiply-adds for 299x299.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nas.primitives.conv import conv_bn, separable_conv

from .family import baseline, initialise, xavier
from .inception import InceptionNetwork, chain


class XceptionModule(nn.Module):
    """Separable convolutions in a row, added to their input: (batch, c_in, h, w) -> (batch, last of widths).

    With `pool`, max pooling halves height and width, rounded up, and a strided 1x1 convolution the input's.
    """

    def __init__(self, c_in: int, widths: Sequence[int], *, pool: bool) -> None:
        super().__init__()
        layers = [
            separable_conv(before, after) for before, after in zip((c_in, *widths[:-1]), widths, strict=True)
        ]
        self.main = nn.Sequential(*layers, *([nn.MaxPool2d(3, 2, 1)] if pool else []))
        self.shortcut = conv_bn(c_in, widths[-1], 2, kernel=1) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x) + self.shortcut(x)


@baseline(small={"middle": 1, "classes": 10, "input": (3, 48, 48)})
def xception(
    *,
    middle: int = 8,
    dropout: float = 0.5,
    classes: int = 1000,
    input: Sequence[int] = (3, 299, 299),
) -> nn.Module:
    """Xception (figure 5); its first two convolutions are not padded.

    middle: modules of the middle flow. dropout: before the classifier. Weights start as in Glorot & Bengio
    2010, the default of Keras, in which the author's code is written. Only the channels of `input` shape the
    network. Raises ValueError for fewer than no modules.
    """
    if middle < 0:
        raise ValueError(f"middle is a number of modules: at least 0, not {middle}")
    last = separable_conv(1024, 1536)[1:]  # no ReLU on the sum before it
    parts = [
        chain(input[0], (32, 3, "halve"), (64, 3, "valid")),
        XceptionModule(64, (128, 128), pool=True),
        XceptionModule(128, (256, 256), pool=True),
        XceptionModule(256, (728, 728), pool=True),
        *(XceptionModule(728, (728, 728, 728), pool=False) for _ in range(middle)),
        XceptionModule(728, (728, 1024), pool=True),
        last,
        separable_conv(1536, 2048),
        nn.ReLU(),
    ]
    network = InceptionNetwork(parts, width=2048, classes=classes, dropout=dropout)
    initialise(network, conv=xavier, linear=xavier)
    return network
