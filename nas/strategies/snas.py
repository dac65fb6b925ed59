"""SNAS (Xie, Zheng, Liu, Lin, "SNAS: Stochastic Neural Architecture Search", ICLR 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from nas.strategies.concrete import gumbel_like
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import Batch, Mixing, Positive
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("snas", budget="50epochs")
@dataclass(eq=False)
class SNAS(Differentiable):
    """SNAS: weights and alphas descend one loss, through samples of a concrete distribution

    A row's weights are drawn as softmax((alpha + Gumbel noise) / temperature) (equation 5). There is one
    level: the gradient of the training loss moves both (section 2.2), so the validation part is only looked
    at, and a step costs one pass forward and backward. As the temperature falls, samples become one-hot, and
    the mixture becomes the network that is derived. The paper searches for 150 epochs; its resource
    constraint is left out.

    Args:
        temperature, temperature_min: of the first and of the last epoch, linear in between (the authors'
            code: 1, 0.03).
    """

    temperature: Positive = 1.0
    temperature_min: Positive = 0.03

    def begin_epoch(self, number: int) -> None:
        share = number / max(1, self.horizon - 1)
        self.present = self.temperature + share * (self.temperature_min - self.temperature)

    def drawn(self, *, detached: bool) -> Mixing:
        """A sample of the concrete distribution of each row; detached or not, the loss is one."""
        tables = {}
        for decision in self.task.space.decisions:
            alpha = self.alphas[decision.name]
            tables[decision.name] = self.table(decision, (alpha + gumbel_like(alpha)) / self.present)
        return Mixing(tables)

    def step(self, train: Batch, valid: Batch) -> tuple[Tensor, Tensor]:
        """A step of both on the training batch."""
        self.alpha_optimizer.zero_grad(set_to_none=True)
        told = self.weight_step(train)
        if not self.warming(self.epoch):
            self.group.average([alpha.grad for alpha in self.alphas.values() if alpha.grad is not None])
            self.alpha_optimizer.step()
        return told
