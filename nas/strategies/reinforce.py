"""REINFORCE (Williams 1992): a policy that makes the decisions of good architectures more likely.

With an LSTM it is the search of Zoph & Le (ICLR 2017), with a table the one of NAS-Bench-201 (Dong & Yang,
ICLR 2020), which reports 93.85 +- 0.37 on CIFAR-10 for 12,000 s of training.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from nas.execution import Trial
from nas.strategies.policy import Kind, Tabular
from nas.strategies.policy_gradient import PolicyGradient
from nas.strategies.strategy import STRATEGIES

# In a table plain steps are a result's own reward and no more; the weights of an LSTM need Adam's scales.
OPTIMIZERS: dict[Kind, tuple[type[torch.optim.Optimizer], float]] = {
    "tabular": (torch.optim.SGD, 0.3),
    "lstm": (torch.optim.Adam, 0.005),
}


@STRATEGIES.register("reinforce", budget="100trials")
class Reinforce(PolicyGradient):
    """REINFORCE: a policy learns from each result which decisions are good

    The gradient is (reward - baseline) * grad log p(architecture), under the policy at the time of the
    result. The reward is a rank (`Reward`), so no setting depends on the scale of the goal.

    Args:
        policy: ``tabular``, a logit for each option of each row, or ``lstm``, each decision given those
            before it (Zoph & Le 2017).
        lr: 0.3 for a table, by plain gradient steps, and 0.005 for an LSTM, by Adam, if it is not given.
        decay: of the moving average of rewards that is the baseline.
        entropy: weight of the policy's entropy, in nats, beside the reward.
        epochs: of training for each candidate.
    """

    def __init__(
        self,
        policy: Kind = "tabular",
        lr: Annotated[float, Field(gt=0)] | None = None,
        decay: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        entropy: Annotated[float, Field(ge=0)] = 0.0,
        epochs: Annotated[int, Field(ge=1)] = 5,
    ) -> None:
        super().__init__(policy, decay, epochs)
        self.lr, self.entropy = lr, entropy

    def begin(self) -> None:
        super().begin()
        make, usual = OPTIMIZERS[self.kind]
        self.rate = self.lr or usual
        self.optimizer = make(self.policy.parameters(), lr=self.rate)  # type: ignore[call-arg]

    def learn(self, trial: Trial, advantage: float) -> None:
        if isinstance(self.policy, Tabular) and not self.entropy:  # plain steps, as the optimizer's
            self.policy.ascend(trial.architecture, self.rate * advantage)
            return
        chosen = self.policy.layout.chosen([trial.architecture])
        log_prob, entropy = self.policy.measure(chosen, spread=self.entropy > 0)
        self.optimizer.zero_grad()
        (-(advantage * log_prob + self.entropy * entropy).sum()).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
