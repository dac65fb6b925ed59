"""DrNAS (Chen, Wang, Cheng, Tang, Hsieh, ICLR 2021): mixing weights drawn from a Dirichlet distribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet, kl_divergence

from nas.search_space import SearchSpace
from nas.search_space.decision import Decision
from nas.strategies.differentiable import Differentiable
from nas.strategies.narrowing import Kept, left, strongest, truths
from nas.strategies.shared_weights import Count, Mixing, Positive, Rate, Share, scopes
from nas.strategies.strategy import STRATEGIES, Task
from nas.supernet import Supernet


@STRATEGIES.register("drnas", budget="50epochs")
@dataclass(eq=False)
class DrNAS(Differentiable):
    """DrNAS: mixing weights are drawn from a Dirichlet distribution, whose concentration is learnt

    The concentration of a row is elu(alpha) + 1; a step draws its weights, with the pathwise derivative, and
    a distance to the uniform distribution, concentration 1, keeps it exploring. The table that is reported
    and derived from is the mean. After half of the epochs the weaker half of each row's options is given up
    (the paper's progressive architecture learning), but never so that one option is left.

    The defaults are the paper's for CIFAR-10, where 10 of 25 epochs before and after that train the weights
    alone. What differs: the part of the channels that is searched stays the same (the paper: a sixth, then
    a quarter), and the distance is the square of the Euclidean one.

    Args:
        partial: one of so many channels is searched, as in PC-DARTS; 1: all of them.
        regulariser: to the uniform distribution: squared ``distance`` of the concentrations, or ``kl``.
        strength: of the regulariser.
        kept: the share of the options that is left after half of the epochs; 1: all, no progress.
    """

    warmup: Share = 0.4
    lr: Positive = 0.1
    lr_min: Rate = 0.0
    alpha_lr: Positive = 6e-4
    alpha_weight_decay: Rate = 0.0
    partial: Count = 4
    regulariser: Literal["distance", "kl"] = "distance"
    strength: Rate = 1e-3
    kept: Kept = 0.5

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        if self.regulariser != DrNAS.regulariser and not self.strength:
            raise ValueError(
                f"strategy.regulariser={self.regulariser} counts for nothing while strategy.strength is 0: "
                f"set strategy.strength, to {DrNAS.strength} for instance"
            )

    def prepare(self, task: Task) -> None:
        super().prepare(task)
        self.places = {  # of the options that are left: (rows, how many)
            d.name: torch.arange(len(d.options), device=self.device).expand(d.rows, -1)
            for d in task.space.decisions
        }

    def build(self) -> Supernet:
        return Supernet(self.task.space, partial=self.partial, **self.form)

    def warming(self, number: int) -> bool:
        """Whether the epoch is one of the first of its half."""
        half = self.horizon // 2
        done, whole = (number, half) if number < half else (number - half, self.horizon - half)
        return done < int(self.warmup * whole)

    def begin_epoch(self, number: int) -> None:
        if number == self.horizon // 2 > 0 and self.kept < 1:
            for d in self.task.space.decisions:
                table = self.table(d, self.alphas[d.name].detach())
                self.places[d.name] = strongest(d, table, left(d, self.kept))
            self.active = {d.name: truths(d, self.places[d.name]) for d in self.task.space.decisions}

    def table(self, decision: Decision, alpha: Tensor) -> Tensor:
        """The mean of the distribution."""
        return self.spread(decision, alpha, lambda beta: beta / beta.sum(-1, keepdim=True))

    def drawn(self, *, detached: bool) -> Mixing:
        tables = {}
        for d in self.task.space.decisions:
            alpha = self.alphas[d.name].detach() if detached else self.alphas[d.name]
            tables[d.name] = self.spread(d, alpha, lambda beta: dirichlet(beta).rsample())
        return Mixing(tables, self.active)

    def penalty(self) -> Tensor | float:
        found: Tensor | float = 0.0
        for d in self.task.space.decisions if self.strength else ():
            beta = self.concentration(d, self.alphas[d.name])
            if self.regulariser == "kl":
                found = found + kl_divergence(dirichlet(beta), dirichlet(torch.ones_like(beta))).sum()
            else:
                found = found + (beta - 1).square().sum()
        return self.strength * found

    def concentration(self, decision: Decision, alpha: Tensor) -> Tensor:
        """elu(alpha) + 1 of the options that are left, a row for each distribution.

        Where one of several rows is kept, rows and options are one choice, of one distribution.
        """
        beta = (nn.functional.elu(alpha) + 1).clamp_min(1e-6).gather(1, self.places[decision.name])
        return scopes(decision, beta)

    def spread(self, decision: Decision, alpha: Tensor, share: Callable[[Tensor], Tensor]) -> Tensor:
        """A table with what `share` makes of the concentrations; zero for options that were given up."""
        places = self.places[decision.name]
        shares = share(self.concentration(decision, alpha)).view(places.shape)
        return torch.zeros_like(alpha).scatter(1, places, shares)

    def state(self) -> dict[str, Any]:
        return super().state() | {"places": self.places}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.places = {name: places.to(self.device) for name, places in state["places"].items()}


def dirichlet(beta: Tensor) -> Dirichlet:
    """The distributions of these concentrations; checking the arguments would wait for the device."""
    return Dirichlet(beta, validate_args=False)
