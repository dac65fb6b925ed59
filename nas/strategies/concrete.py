"""Discrete choices as smooth samples: the Gumbel-softmax (Jang et al.; Maddison et al., ICLR 2017).

Noise is drawn on the CPU, so that an epoch draws the same on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nas.search_space.decision import Decision
from nas.strategies.shared_weights import scopes


def gumbel_like(alpha: Tensor) -> Tensor:
    """Noise of alpha's shape: argmax(alpha + noise) is a sample of softmax(alpha)."""
    smallest = torch.finfo(torch.float32).tiny
    return -torch.empty(alpha.shape).exponential_().clamp_min_(smallest).log().to(alpha)


def one_hot(decision: Decision, table: Tensor) -> Tensor:
    """1 at the largest entry of each row; of all rows, where one of them is kept."""
    rows = scopes(decision, table.detach())
    hard = torch.zeros_like(rows).scatter_(1, rows.argmax(1, keepdim=True), 1.0)
    return hard.view_as(table)
