"""Inception-v4 (Szegedy et al., AAAI 2017).

42,679,816 parameters and 12,253,974,624 multiply-adds for 299x299.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .family import baseline, he_in, initialise, smallest
from .inception import LEAST, Branches, InceptionNetwork, chain, conv, fork, pooled, reduction


def stem(channels: int) -> list[nn.Module]:
    """To 384 channels: from 299x299 to 35x35 (figure 3). The paper's Inception-ResNet-v2 begins so too."""
    long = ((64, 1), (64, (7, 1)), (64, (1, 7)), (96, 3, "valid"))
    return [
        chain(channels, (32, 3, "halve"), (32, 3, "valid"), (64, 3)),
        Branches(nn.MaxPool2d(3, stride=2), conv(64, 96, 3, "halve")),
        Branches(chain(160, (64, 1), (96, 3, "valid")), chain(160, *long)),
        Branches(conv(192, 192, 3, "halve"), nn.MaxPool2d(3, stride=2)),
    ]


def _a() -> nn.Module:
    """On 35x35: 384 channels (figure 4)."""
    return Branches(
        conv(384, 96), chain(384, (64, 1), (96, 3)), chain(384, (64, 1), (96, 3), (96, 3)), pooled(384, 96)
    )


def _b() -> nn.Module:
    """On 17x17: 1024 channels (figure 5)."""
    near = chain(1024, (192, 1), (224, (1, 7)), (256, (7, 1)))
    far = chain(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7)))
    return Branches(conv(1024, 384), near, far, pooled(1024, 128))


def _c() -> nn.Module:
    """On 8x8: 1536 channels (figure 6)."""
    near = nn.Sequential(conv(1536, 384), fork(384, 256))
    far = nn.Sequential(chain(1536, (384, 1), (448, (3, 1)), (512, (1, 3))), fork(512, 256))
    return Branches(conv(1536, 256), near, far, pooled(1536, 256))


@baseline(small={"layers": (1, 1, 1), "classes": 10, "input": (3, 75, 75)})
def inception_v4(
    *,
    layers: Sequence[int] = (4, 7, 3),
    dropout: float = 0.2,
    classes: int = 1000,
    input: Sequence[int] = (3, 299, 299),
) -> nn.Module:
    """Inception-v4 (figure 9).

    layers: modules A on 35x35, B on 17x17 and C on 8x8. dropout: before the classifier. Weights start as in
    He et al. 2015 (the authors' code, TensorFlow-Slim: cut normal). Height and width of `input` must be at
    least 75; only its channels shape the network. Raises ValueError for smaller ones, and if layers are not
    three numbers.
    """
    smallest(input, LEAST)
    if len(layers) != 3:
        raise ValueError(f"layers must be three numbers, of modules A, B and C, not {list(layers)}")
    to_8 = Branches(  # figure 8
        chain(1024, (192, 1), (192, 3, "halve")),
        chain(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, "halve")),
        nn.MaxPool2d(3, stride=2),
    )
    parts = [
        *stem(input[0]),
        *(_a() for _ in range(layers[0])),
        reduction(384, k=192, l=224, m=256, n=384),
        *(_b() for _ in range(layers[1])),
        to_8,
        *(_c() for _ in range(layers[2])),
    ]
    network = InceptionNetwork(parts, width=1536, classes=classes, dropout=dropout)
    initialise(network, conv=he_in, linear=he_in)
    return network
