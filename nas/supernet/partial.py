"""Partial: a part of the channels is searched, the others pass by (PC-DARTS, Xu et al., ICLR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.graph import Hole
from nas.network import Runner
from nas.supernet.active import idle
from nas.supernet.mixture import Weights, run


class Partial:
    """One of `share` parts of the channels goes through a mixture, the rest past it (equation 2).

    The rest has the weight that the edge has as a whole, is pooled where the mixture halves the size, and the
    channels are shuffled so that the next mixture meets others (section 3.2).

    Args:
        mixture: of operations with a `share`-th of the channels.
        hole: which row of which decision the operation is.
        stride: of the operations.
    """

    mixed = True

    def __init__(self, mixture: Runner, hole: Hole, share: int, stride: int) -> None:
        self.mixture = mixture
        self.hole = hole
        self.share = share
        self.stride = stride

    def __call__(self, x: Tensor, *, weights: Weights) -> Tensor:
        mixed = None if idle(self.mixture, weights) else run(self.mixture, (self.part(x),), weights)
        return self.beside(mixed, x, weights)

    def part(self, x: Tensor) -> Tensor:
        """The channels that are searched."""
        return x[:, : x.shape[1] // self.share]

    def beside(self, mixed: Tensor | None, x: Tensor, weights: Weights) -> Tensor:
        """What the mixture gave, None for zero, with the other channels of x."""
        rest = x[:, x.shape[1] // self.share :]
        rest = rest * torch.stack(weights[self.hole.decision][self.hole.row]).sum()
        if self.stride > 1:
            rest = nn.functional.max_pool2d(rest, self.stride, self.stride, ceil_mode=True)
        if mixed is None:
            mixed = rest.new_zeros(()).expand(len(rest), x.shape[1] // self.share, *rest.shape[2:])
        return nn.functional.channel_shuffle(torch.cat([mixed, rest], 1), self.share)
