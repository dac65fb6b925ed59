"""Residual networks that lose whole branches at random in training (Huang, Sun, Liu, Sedra, Weinberger 2016).

The network is that of He et al. 2016: with 110 layers and shortcuts of option A, 1,727,962 parameters and,
with every block kept, 252,887,680 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from nas.primitives.conv import conv_bn

from .family import baseline, one_of
from .resnet import Block, ResNet, residual, small_stages, stages

Decay = Literal["linear", "uniform"]


class RandomDepth(nn.Module):
    """A residual block that is only its shortcut, for a whole batch, with probability 1 - `survival`
    (equation 2); in evaluation its branch always counts, times `survival` (equation 5).

    Shapes as in the block. A branch that is dropped is not computed, and its parameters get no gradient.
    """

    def __init__(self, block: nn.Module, survival: float) -> None:
        super().__init__()
        self.branch, self.shortcut, self.last = block.branch, block.shortcut, block.last
        self.survival = survival

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        if not self.training:
            return self.last(shortcut + self.survival * self.branch(x))
        if self.survival < 1 and torch.rand((), device="cpu").item() >= self.survival:
            return self.last(shortcut)
        return self.last(shortcut + self.branch(x))

    def extra_repr(self) -> str:
        return f"survival={self.survival:g}"


def survivals(blocks: int, p_L: float, decay: Decay) -> list[float]:
    """The probability of each block, first to last: 1 - l / L * (1 - p_L) (equation 4), or p_L for all."""
    if decay == "uniform":
        return [p_L] * blocks
    return [1 - place / blocks * (1 - p_L) for place in range(1, blocks + 1)]


@baseline(small={"depth": 8, "p_L": 1.0, "input": (3, 16, 16)})  # with p_L 1 every branch gets its gradient
def stochastic_depth(
    *,
    depth: int = 110,
    block: Block = "basic",
    shortcut: Literal["A", "B", "C"] = "A",
    widths: Sequence[int] = (16, 32, 64),
    p_L: float = 0.5,
    decay: Decay = "linear",
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """`resnet_cifar` with stochastic depth; the paper has 110 and 1202 layers.

    shortcut: as in `resnet`, but there must be one. p_L: the probability that the last branch is kept.
        decay: the others' probability falls linearly from 1 to p_L, or is ``uniform``, p_L for all of them.
    The paper's code averages 2x2 pixels where option A takes one of them; that costs the same.
    Only the channels of `input` shape the network. Raises ValueError for a depth or a name that does not
    exist, and for a p_L outside (0, 1].
    """
    one_of("decay", decay, ("linear", "uniform"))
    if not 0 < p_L <= 1:
        raise ValueError(f"p_L is the probability that the last branch is kept, in (0, 1], not {p_L}")
    outs, counts = small_stages(depth, block=block, shortcut=shortcut, widths=widths)
    whole = stages(widths[0], outs, counts, partial(residual, block=block, shortcut=shortcut))
    blocks = [
        RandomDepth(each, survival)
        for each, survival in zip(whole, survivals(len(whole), p_L, decay), strict=True)
    ]
    return ResNet(conv_bn(input[0], widths[0], act="relu"), blocks, width=outs[-1], classes=classes)
