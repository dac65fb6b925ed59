"""GDAS (Dong & Yang, "Searching for a Robust Neural Architecture in Four GPU Hours", CVPR 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nas.strategies.concrete import gumbel_like, one_hot
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import Mixing, Positive, Tensors, told
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("gdas", budget="50epochs")
@dataclass(eq=False)
class GDAS(Differentiable):
    """GDAS: one operation an edge is drawn and run, by hard Gumbel-softmax

    A step costs the time and the memory of one path. Forward, a row's weights are one-hot (equation 3);
    backward, they are the softmax at temperature tau (equation 4), whose gradient comes through the operation
    that was run. The paper searches for 250 epochs. Its metrics are those of the likeliest path.

    Args:
        tau, tau_min: temperature of the first and of the last epoch, linear in between (the paper: 10, 0.1).
    """

    tau: Positive = 10.0
    tau_min: Positive = 0.1

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.compile:
            yield "gdas draws other options for each step, which strategy.compile cannot follow"

    def begin_epoch(self, number: int) -> None:
        share = number / max(1, self.horizon - 1)
        self.temperature = self.tau + share * (self.tau_min - self.tau)

    def drawn(self, *, detached: bool) -> Mixing:
        """One option of each row, at random; its weight is 1, with the gradient of the softmax."""
        tables: Tensors = {}
        hard: Tensors = {}
        for decision in self.task.space.decisions:
            alpha = self.alphas[decision.name]
            soft = self.table(decision, (alpha + gumbel_like(alpha)) / self.temperature)
            hard[decision.name] = chosen = one_hot(decision, soft)
            # Exactly 0 or 1 forward; what is not run has no gradient.
            tables[decision.name] = chosen if detached else chosen + chosen * (soft - soft.detach())
        return Mixing(tables, told(hard))

    def evaluated(self) -> Mixing:
        """The likeliest option of each row."""
        alphas = {decision: self.alphas[decision.name] for decision in self.task.space.decisions}
        hard = {decision.name: one_hot(decision, alpha) for decision, alpha in alphas.items()}
        return Mixing(hard, told(hard))
