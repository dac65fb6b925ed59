"""DCGAN (Radford, Metz, Chintala, ICLR 2016): a generator and a discriminator of convolutions alone.

For 64x64 pictures they have 3,576,704 and 2,765,568 parameters, 104,628,224 and 103,817,216 multiply-adds, in
the form of the authors' Torch code, which PyTorch's example repeats: half the paper's channels, 4x4 kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log2
from typing import Literal

from torch import nn

from .family import baseline, initialise, normal, one_of

Part = Literal["generator", "discriminator"]


def doublings(picture: Sequence[int]) -> int:
    """How often 4x4 pixels double to the picture's. ValueError unless that is a square of 8, 16, 32 ..."""
    height, width = picture[1:]
    if height != width or height < 8 or height & (height - 1):
        raise ValueError(f"pictures must be squares of 8, 16, 32, 64 ... pixels, not {height}x{width}")
    return int(log2(height)) - 2


def generator(latent: int, picture: Sequence[int], width: int) -> nn.Sequential:
    """(batch, latent, 1, 1) -> pictures in [-1, 1] of (batch, *picture)."""
    times = doublings(picture)
    channels = [width * 2**i for i in reversed(range(times))]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, channels[0], 4, bias=False)]
    for c_in, c_out in zip(channels, [*channels[1:], picture[0]], strict=True):
        layers += [nn.BatchNorm2d(c_in), nn.ReLU(), nn.ConvTranspose2d(c_in, c_out, 4, 2, 1, bias=False)]
    return nn.Sequential(*layers, nn.Tanh())


def discriminator(picture: Sequence[int], width: int, classes: int) -> nn.Sequential:
    """(batch, *picture) -> (batch, classes), before any sigmoid."""
    channels = [width * 2**i for i in range(doublings(picture))]
    layers: list[nn.Module] = [nn.Conv2d(picture[0], width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for c_in, c_out in pairwise(channels):
        layers += [nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], classes, 4, bias=False), nn.Flatten())


@baseline(small={"width": 8, "output": (3, 16, 16), "input": (100, 1, 1)})
def gan(
    *,
    part: Part = "generator",
    width: int = 64,
    output: Sequence[int] | None = None,
    classes: int | None = None,
    input: Sequence[int] = (100, 1, 1),
) -> nn.Module:
    """One part of a DCGAN.

    part: ``generator``, from `input` numbers (n, 1, 1), which are drawn from a distribution, to a picture;
        ``discriminator``, from a picture (channels, height, width) to a logit that is high for real ones.
    width: channels next to the picture; they double with every halving of the size. output: the generator's
        picture, (3, 64, 64) by default. classes: outputs of the discriminator, 1 by default.
    Start: weights N(0, 0.02^2), of batch norms N(1, 0.02^2) (section 4 and the authors' code). Raises
    ValueError for a picture that is no square of 8, 16, 32 ... pixels, and for arguments of the other part.
    """
    one_of("part", part, ("generator", "discriminator"))
    if part == "generator":
        if classes is not None:
            raise ValueError(f"classes belong to part=discriminator, a generator has none: drop {classes}")
        if tuple(input[1:]) != (1, 1):
            raise ValueError(f"the input of a generator is (numbers, 1, 1), not {tuple(input)}")
        network = generator(input[0], output or (3, 64, 64), width)
    else:
        if output is not None:
            raise ValueError(f"output belongs to part=generator, a discriminator gives logits: drop {output}")
        network = discriminator(input, width, 1 if classes is None else classes)
    initialise(network, conv=normal(0.02))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=0.02)
    return network
