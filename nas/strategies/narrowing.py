"""Narrowing: which options are left when a progressive search gives up the weaker ones."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from nas.search_space.decision import Decision

Kept = Annotated[float, Field(gt=0, le=1)]  # a share of the options


def left(decision: Decision, share: float) -> int:
    """How many options a `share` of them is, rounded up. Two at least: giving up alone decides nothing."""
    return min(len(decision.options), max(2, math.ceil(share * len(decision.options))))


def strongest(decision: Decision, table: Tensor, count: int) -> Tensor:
    """The places (rows, count) of the strongest options of each row; one of them is legal."""
    legal = torch.tensor([option not in decision.never for option in decision.options], device=table.device)
    best = table.masked_fill(~legal, -math.inf).argmax(-1, keepdim=True)
    return table.scatter(-1, best, math.inf).topk(count, dim=-1).indices.sort(-1).values


def truths(decision: Decision, places: Tensor) -> Tensor:
    """Places (rows, count) as truth values (rows, options), on the CPU: a supernet asks them in Python."""
    return torch.zeros(decision.rows, len(decision.options), dtype=torch.bool).scatter_(1, places.cpu(), True)
