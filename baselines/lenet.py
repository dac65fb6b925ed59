"""LeNet-5 (LeCun, Bottou, Bengio, Haffner, Proceedings of the IEEE 1998), and the forms that later code has.

The network of the paper has 60,000 trainable parameters (section II.B): C3 sees the maps of S2 by table I,
the subsampling layers learn a coefficient and a bias a map, and the last layer measures distances to ten
drawings of the digits. Later code has a dense C3, plain pooling and a linear last layer: 61,706 parameters.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import groupby
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from .family import baseline, he_in, initialise, one_of, xavier

SIDE = 32  # of the input; digits of 28x28 are centred in it, so that C5 sees the ends of strokes whole
CODE = (7, 12)  # width and height of a drawing: 84 pixels, a unit of F6 each
# Table I: map i of C3 sees these maps of S2. Three in a row, four in a row, four in two pairs, all.
TABLE_1 = (
    *(tuple((i + j) % 6 for j in range(3)) for i in range(6)),
    *(tuple((i + j) % 6 for j in range(4)) for i in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
# The ten digits on 7x12 pixels, # is +1 and . is -1: figure 3 in kind, drawn anew.
DIGITS = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...##.. .#####. .#####. .....#. ####### ...###. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ....##. ##..... ..##... ##...## ##...## ##...##
##...## .####.. .....## .....## ...###. ##..... .##.... .....## ##...## ##...##
##...## ...##.. .....## .....## ..####. ######. ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..####. .##.##. .....## ######. ....##. ..###.. .######
##...## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. .##.##. .....##
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## ....##.
.##.##. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ...##..
..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .###...
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


class Squash(nn.Module):
    """1.7159 tanh(2 a / 3), appendix A: 1 at 1 and -1 at -1, which is where its curvature is largest."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The sum of four pixels, times a coefficient, plus a bias, both learned a map (section II.B, layer S2).

    (batch, maps, h, w) -> (batch, maps, h // 2, w // 2).
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((maps, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(maps, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.coefficient * (4 * nn.functional.avg_pool2d(x, 2)) + self.bias


class TableConv(nn.Module):
    """5x5 convolution in which output map i sees the input maps table[i] and no others.

    (batch, c, h, w) -> (batch, len(table), h - 4, w - 4). It has the weights of the connections that exist:
    maps that see equally many form one grouped convolution of what was gathered for them. Maps of equal
    number must be neighbours in the table.
    """

    def __init__(self, table: Sequence[Sequence[int]]) -> None:
        super().__init__()
        parts = [list(part) for _, part in groupby(table, key=len)]
        self.parts = nn.ModuleList(
            nn.Conv2d(sum(map(len, part)), len(part), 5, groups=len(part)) for part in parts
        )
        for number, part in enumerate(parts):
            self.register_buffer(f"sees{number}", torch.tensor([i for seen in part for i in seen]))

    def forward(self, x: Tensor) -> Tensor:
        gathered = (x.index_select(1, getattr(self, f"sees{i}")) for i in range(len(self.parts)))
        return torch.cat([part(maps) for part, maps in zip(self.parts, gathered, strict=True)], dim=1)


class Distances(nn.Module):
    """Minus the squared distance to each class's code of +-1: (batch, 84) -> (batch, classes).

    The radial basis functions of equation 7, whose centres stay as they are. For ten classes, whatever they
    are, the codes are drawings of the digits; for other numbers they come from a generator with a fixed seed.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", torch.tensor(codes(classes)))

    def forward(self, x: Tensor) -> Tensor:
        return -(x.unsqueeze(1) - self.codes).square().sum(dim=2)


def codes(classes: int) -> list[list[float]]:
    """84 values of +-1 for each class."""
    if classes != 10:
        generator = random.Random(1998)
        return [[generator.choice((-1.0, 1.0)) for _ in range(prod(CODE))] for _ in range(classes)]
    lines = [line.split() for line in DIGITS.split("\n") if line]
    return [[1.0 if pixel == "#" else -1.0 for line in lines for pixel in line[i]] for i in range(10)]


def uniform(network: nn.Module) -> None:
    """U(-2.4 / F, 2.4 / F) for all weights and biases of a unit with F inputs, appendix A."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | Subsampling):
            inputs = 4 if isinstance(module, Subsampling) else module.weight[0].numel()
            for values in module.parameters(recurse=False):
                nn.init.uniform_(values, -2.4 / inputs, 2.4 / inputs)


@baseline(small={"classes": 10, "input": (1, 28, 28)})
def lenet5(
    *,
    c3: Literal["sparse", "dense"] = "sparse",
    subsampling: Literal["trainable", "avgpool", "maxpool"] = "trainable",
    head: Literal["rbf_fixed", "fc"] = "rbf_fixed",
    act: Literal["squash", "relu"] = "squash",
    in_channels: int | None = None,
    classes: int = 10,
    input: Sequence[int] = (1, 32, 32),
) -> nn.Module:
    """LeNet-5: (batch, channels, height, width) -> logits (batch, classes). The defaults are the paper's.

    c3: ``sparse`` by table I (1,516 parameters), ``dense`` every map sees all (2,416).
    subsampling: ``trainable`` with the activation behind it, or a plain pooling.
    head: ``rbf_fixed``: logits are minus the squared distances to fixed codes, so that cross-entropy is the
        paper's criterion (equation 9) but for the constant exp(-j) in its sum, which bounds the penalty of
        wrong classes; ``fc``: a linear layer.
    act: ``squash`` (1.7159 tanh(2 a / 3)) or ``relu``.
    in_channels: need not be said, it is that of `input`.
    Smaller inputs are padded to 32x32 with the pixels of their border; larger ones give C5 more positions,
    all of which F6 sees. Start: U(-2.4 / F, 2.4 / F) for F inputs (appendix A) where subsampling and head are
    both the paper's; in the other forms such small weights learn nothing for epochs, and the start is Glorot
    and Bengio's, or with ReLUs that of He et al. 2015. Raises ValueError for in_channels that are not those
    of `input`, and for ReLUs before fixed codes, whose -1 they never reach.
    """
    one_of("c3", c3, ("sparse", "dense"))
    one_of("subsampling", subsampling, ("trainable", "avgpool", "maxpool"))
    one_of("head", head, ("rbf_fixed", "fc"))
    one_of("act", act, ("squash", "relu"))
    if in_channels not in (None, input[0]):
        raise ValueError(f"in_channels must be {input[0]}, as in the input {tuple(input)}, not {in_channels}")
    if head == "rbf_fixed" and act == "relu":
        raise ValueError("head=rbf_fixed has targets of -1 and 1, which act=relu never reaches: take head=fc")
    activation = Squash if act == "squash" else nn.ReLU

    def smaller(maps: int) -> list[nn.Module]:
        if subsampling == "trainable":
            return [Subsampling(maps), activation()]
        return [nn.AvgPool2d(2) if subsampling == "avgpool" else nn.MaxPool2d(2)]

    height, width = (((max(size, SIDE) - 4) // 2 - 4) // 2 - 4 for size in input[1:])
    f6 = prod(CODE)
    network = nn.Sequential(
        *border(input),
        nn.Conv2d(input[0], 6, 5), activation(), *smaller(6),  # C1, S2
        TableConv(TABLE_1) if c3 == "sparse" else nn.Conv2d(6, 16, 5), activation(), *smaller(16),  # C3, S4
        nn.Conv2d(16, 120, 5), activation(),  # C5
        nn.Flatten(), nn.Linear(120 * height * width, f6), activation(),  # F6
        Distances(classes) if head == "rbf_fixed" else nn.Linear(f6, classes),
    )  # fmt: skip
    if (subsampling, head) == ("trainable", "rbf_fixed"):
        uniform(network)
    else:
        start = xavier if act == "squash" else he_in
        initialise(network, conv=start, linear=start)
    return network


def border(input: Sequence[int]) -> list[nn.Module]:
    """What pads both sides to 32, evenly; nothing where the picture is large enough.

    It repeats the outermost pixels: the background of a digit, whatever number that is after normalising.
    """
    missing = [max(0, SIDE - size) for size in (input[2], input[1])]
    if not any(missing):
        return []
    across, down = missing
    return [nn.ReplicationPad2d((across // 2, across - across // 2, down // 2, down - down // 2))]
