"""ProxylessNAS (Cai, Zhu, Han, ICLR 2019): one path at a time, by binary gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.strategies.differentiable import Differentiable
from nas.strategies.expected_cost import ExpectedCost, Measure, expected_cost
from nas.strategies.shared_weights import TINY, Batch, Mixing, Positive, Rate, Share, scopes, told
from nas.strategies.strategy import STRATEGIES, Task


@STRATEGIES.register("proxyless", budget="50epochs")
@dataclass(eq=False)
class Proxyless(Differentiable):
    """ProxylessNAS: binary gates run one path, or two to learn which is better; cost in the loss

    A step of the weights draws one option in each row by its probability and runs that path alone (equations
    2 and 3). A step of the alphas draws two options in each row and opens one of the two; the gradient of the
    gates stands for that of the probabilities (equation 4), so that only two are run; then the pair's alphas
    are moved together, so that the other options keep their probabilities (section 3.2). The loss has a term
    for the expected cost of the network (section 3.3).

    The alphas are trained as in the paper for CIFAR-10 (Adam, rate 0.006); the weights as in DARTS. What
    differs: the term of cost, too, moves probability within the pair alone, and none is asked for by default.
    The metrics of an epoch are those of the derived path. Of two widths that are drawn, the widest of the
    space runs, with its channels masked.

    Args:
        cost: what the term counts: multiply-adds, parameters, or the milliseconds that the operations take
            alone on the device of the search. Those are measured at the start, so that searches with equal
            seeds differ as far as they do; a search that is taken up keeps its own.
        strength: what a network as expensive as one drawn uniformly adds to the loss; 0: no such term.
    """

    alpha_lr: Positive = 6e-3
    alpha_betas: tuple[Share, Share] = (0.0, 0.999)
    alpha_weight_decay: Rate = 0.0
    cost: Measure = "macs"
    strength: Rate = 0.0

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.compile:
            yield "proxyless draws other options for each step, which strategy.compile cannot follow"

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        if self.cost != Proxyless.cost and not self.strength:
            raise ValueError(
                f"strategy.cost={self.cost} counts for nothing while strategy.strength is 0: set "
                "strategy.strength, to 0.1 for instance"
            )

    def prepare(self, task: Task) -> None:
        super().prepare(task)
        if self.strength:
            self.price(expected_cost(task.space, self.cost, seed=task.seed, device=self.device))

    def price(self, expected: ExpectedCost) -> None:
        """Take these costs, and what a network costs that is drawn uniformly."""
        even = {name: torch.ones_like(alpha) for name, alpha in self.alphas.items()}
        self.expected, self.typical = expected, expected(even).clamp_min(TINY)

    def pairs(self, decision: Decision) -> Tensor:
        """Truth values: two options, drawn by their probabilities without putting back, in each row.

        Where one of several rows is kept, rows and options are one choice, of which two are drawn.
        """
        table = self.table(decision, self.alphas[decision.name].detach())
        chances = scopes(decision, table)
        noisy = chances.log() - torch.empty_like(chances).exponential_().log()  # Gumbel: its top are draws
        two = noisy.topk(min(2, chances.shape[1]), dim=1).indices
        return torch.zeros_like(chances).scatter_(1, two, 1.0).view_as(table) > 0

    def gates(self, decision: Decision, among: Tensor | None = None) -> Tensor:
        """One option drawn in each row, of those that are `among`: 1 there, 0 elsewhere.

        The gradient is that of the probabilities, renormalised among them.
        """
        alpha: Tensor = self.alphas[decision.name]
        if among is not None:
            alpha = alpha.masked_fill(~among, -torch.inf)
        chances = scopes(decision, self.table(decision, alpha))
        hard = torch.zeros_like(chances).scatter_(1, chances.detach().multinomial(1), 1.0)
        return (hard + (chances - chances.detach())).view_as(alpha)

    def drawn(self, *, detached: bool) -> Mixing:
        decisions = self.task.space.decisions
        if detached:
            gates = {d.name: self.gates(d).detach() for d in decisions}
            return Mixing(gates, told(gates))
        self.pair = {d.name: self.pairs(d) for d in decisions}
        return Mixing({d.name: self.gates(d, self.pair[d.name]) for d in decisions}, told(self.pair))

    def alpha_step(self, train: Batch, valid: Batch) -> None:
        """Descend, then move each pair so that the sum of its probabilities is what it was."""
        before = {name: alpha.detach().clone() for name, alpha in self.alphas.items()}
        super().alpha_step(train, valid)
        with torch.no_grad():
            for d in self.task.space.decisions:
                alpha, pair = self.alphas[d.name], self.pair[d.name]
                alpha.copy_(torch.where(pair, rescaled(d, before[d.name], alpha, pair), before[d.name]))

    def penalty(self) -> Tensor | float:
        if not self.strength:
            return 0.0
        tables = {d.name: self.within_pair(d) for d in self.task.space.decisions}
        return self.strength * self.expected(tables) / self.typical

    def within_pair(self, decision: Decision) -> Tensor:
        """The table of a decision, with the gradient that moves probability within the pair alone."""
        alpha, pair = self.alphas[decision.name], self.pair[decision.name]
        table = self.table(decision, alpha.detach())
        two = self.table(decision, alpha.masked_fill(~pair, -torch.inf))
        both = scopes(decision, table * pair).sum(1, keepdim=True)
        return torch.where(pair, both * two, table)

    def state(self) -> dict[str, Any]:
        if not self.strength:
            return super().state()
        costs = {"constant": self.expected.constant, "options": dict(self.expected.options)}
        return super().state() | {"costs": costs}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        if self.strength:
            self.price(replace(self.expected, **state["costs"]))

    def evaluated(self) -> Mixing | Architecture:
        return self.path(self.best())


def rescaled(decision: Decision, before: Tensor, after: Tensor, pair: Tensor) -> Tensor:
    """`after`, moved so that the pair has the sum of exponentials that it has `before`."""
    both = [scopes(decision, alpha.masked_fill(~pair, -torch.inf)) for alpha in (before, after)]
    old, new = (alpha.logsumexp(1, keepdim=True) for alpha in both)
    return after + (old - new)
