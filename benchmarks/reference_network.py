"""A network of cells that DARTS found, as one would write it by hand: modules and loops, and only torch.

Its convolutions are those of `reference_darts.py`, with scale and shift in their norms. The reference that
training is measured against. With DARTS_V2, 36 channels and 20 cells it has 3,349,342 parameters, without the
second classifier that the paper trains it with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from reference_darts import FactorizedReduction, relu_conv_norm, separable
from torch import Tensor, nn

Edges = Sequence[tuple[str, int]]  # (operation, which state it reads), two of each node
DARTS_V2: tuple[Edges, Edges] = (
    [("sep_conv_3x3", 0), ("sep_conv_3x3", 1), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1),
     ("skip_connect", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("dil_conv_3x3", 2)],
    [("max_pool_3x3", 0), ("max_pool_3x3", 1), ("max_pool_3x3", 1), ("skip_connect", 2),
     ("max_pool_3x3", 0), ("skip_connect", 2), ("max_pool_3x3", 1), ("skip_connect", 2)],
)  # fmt: skip


def operation(name: str, c: int, stride: int) -> nn.Module:
    """As a network has it when it is trained alone: norms with scale and shift, none behind pools."""
    kernel = 5 if name.endswith("5x5") else 3
    match name:
        case "skip_connect":
            return nn.Identity() if stride == 1 else FactorizedReduction(c, c_out=c, affine=True)
        case "max_pool_3x3":
            return nn.MaxPool2d(3, stride, padding=1)
        case "avg_pool_3x3":
            return nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        case "dil_conv_3x3" | "dil_conv_5x5":
            return nn.Sequential(*separable(c, kernel=kernel, stride=stride, dilation=2, affine=True))
        case "sep_conv_3x3" | "sep_conv_5x5":
            first = separable(c, kernel=kernel, stride=stride, affine=True)
            return nn.Sequential(*first, *separable(c, kernel=kernel, stride=1, affine=True))
    raise ValueError(f"no operation {name!r}")


class Cell(nn.Module):
    def __init__(
        self, c: int, inputs: tuple[int, int], edges: Edges, *, reduction: bool, after: bool
    ) -> None:
        """`inputs`: channels of the two cells before; `after`: the last one of them is a reduction."""
        super().__init__()
        shrink = FactorizedReduction if after else relu_conv_norm
        self.preprocess0 = shrink(inputs[0], c_out=c, affine=True)
        self.preprocess1 = relu_conv_norm(inputs[1], c_out=c, affine=True)
        self.sources = [source for _, source in edges]
        self.edges = nn.ModuleList(
            operation(name, c, 2 if reduction and source < 2 else 1) for name, source in edges
        )

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        states = [self.preprocess0(before_last), self.preprocess1(last)]
        for i in range(0, len(self.edges), 2):
            first, second = (self.edges[j](states[self.sources[j]]) for j in (i, i + 1))
            states.append(first + second)
        return torch.cat(states[2:], dim=1)


class Network(nn.Module):
    """Images (batch, 3, height, width) -> (batch, classes)."""

    def __init__(
        self, C: int = 36, *, layers: int = 20, classes: int = 10, cells: tuple[Edges, Edges] = DARTS_V2
    ) -> None:
        super().__init__()
        width = 3 * C
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        reductions, inputs = (layers // 3, 2 * layers // 3), (width, width)
        self.cells = nn.ModuleList()
        for i in range(layers):
            reduction, after = i in reductions, i - 1 in reductions
            C *= 2 if reduction else 1
            self.cells.append(Cell(C, inputs, cells[reduction], reduction=reduction, after=after))
            inputs = (inputs[1], 4 * C)
        self.classifier = nn.Linear(inputs[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        before_last = last = self.stem(x)
        for cell in self.cells:
            before_last, last = last, cell(before_last, last)
        return self.classifier(last.mean(dim=(2, 3)))


def step(network: nn.Module, x: Tensor, y: Tensor, optimizer: torch.optim.Optimizer, clip: float) -> None:
    """Of training: cross-entropy, gradients of at most this norm."""
    optimizer.zero_grad()
    F.cross_entropy(network(x), y).backward()
    nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()
