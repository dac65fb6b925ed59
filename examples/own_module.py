"""Modules of one's own as operations: any class or function that takes some of c_in, c_out, stride, affine.

`examples/own_module.yaml` searches around them. They have no closed-form cost, so they are built and counted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Edges(nn.Module):
    """A front end that is given and stays: (batch, c_in, h, w) -> (batch, c_out, h, w)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(3 * c_in, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        across = nn.functional.pad(x, (1, 0, 0, 0))[..., :-1] - x
        down = nn.functional.pad(x, (0, 0, 1, 0))[..., :-1, :] - x
        projected: Tensor = self.project(torch.cat([x, across, down], dim=1))
        return projected


class Gated(nn.Module):
    """A convolution that is opened and closed by another: an option of the search."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        self.value = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)
        self.gate = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.value(x) * self.gate(x).sigmoid())
        return normed
