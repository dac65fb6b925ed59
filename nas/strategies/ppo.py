"""PPO (Schulman et al. 2017): the policy gradient of NASNet's search (Zoph et al., CVPR 2018, appendix A.1).

Each batch of results is used several times; the ratio of new to old probability is clipped, so that the
policy stays near the one that proposed them.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from nas.execution import Trial
from nas.search_space import Architecture
from nas.strategies.policy import Kind
from nas.strategies.policy_gradient import PolicyGradient
from nas.strategies.strategy import STRATEGIES

Count = Annotated[int, Field(ge=1)]
RATES: dict[Kind, float] = {"tabular": 0.1, "lstm": 0.005}


@STRATEGIES.register("ppo", budget="100trials")
class PPO(PolicyGradient):
    """PPO: a policy learns from batches of results, with clipped steps

    The reward is a rank (`Reward`), so no setting depends on the scale of the goal.

    Args:
        policy: ``tabular``, a logit for each option of each row, or ``lstm``, each decision given those
            before it, as NASNet has.
        lr: of Adam; 0.1 for a table and 0.005 for an LSTM if it is not given.
        batch: results in an update.
        passes: over each batch.
        clip: the ratio of probabilities counts between 1 - clip and 1 + clip (NASNet: 0.2).
        decay: of the moving average of rewards that is the baseline (NASNet: 0.95).
        entropy: weight of the policy's entropy, in nats, beside the reward (NASNet: 1e-5).
        epochs: of training for each candidate.
    """

    def __init__(
        self,
        policy: Kind = "tabular",
        lr: Annotated[float, Field(gt=0)] | None = None,
        batch: Count = 5,
        passes: Count = 5,
        clip: Annotated[float, Field(gt=0, lt=1)] = 0.2,
        decay: Annotated[float, Field(ge=0, lt=1)] = 0.95,
        entropy: Annotated[float, Field(ge=0)] = 1e-5,
        epochs: Count = 5,
    ) -> None:
        super().__init__(policy, decay, epochs)
        self.lr, self.entropy = lr or RATES[policy], entropy
        self.batch, self.passes, self.clip = batch, passes, clip
        self._batch: list[tuple[Architecture, float, float | None]] = []  # with advantage, log-probability
        self._proposed: dict[int, float] = {}  # log-probabilities of what was pending before an update

    def begin(self) -> None:
        super().begin()
        self.optimizer = torch.optim.Adam(self.policy.parameters(), self.lr)

    def learn(self, trial: Trial, advantage: float) -> None:
        self._batch.append((trial.architecture, advantage, self._proposed.pop(trial.number, None)))
        if len(self._batch) == self.batch:
            self._keep_pending()
            self._update()
            self._batch = []

    def _keep_pending(self) -> None:
        """Write down how likely the policy, before it changes, makes what was asked since the last update."""
        late = [trial for number, trial in self.pending.items() if number not in self._proposed]
        if late:
            with torch.no_grad():
                chances = self.policy.log_prob([trial.architecture for trial in late])
            self._proposed.update(zip((trial.number for trial in late), chances.tolist(), strict=True))

    def _update(self) -> None:
        chosen = self.policy.layout.chosen([architecture for architecture, _, _ in self._batch])
        advantage = torch.tensor([each for _, each, _ in self._batch], dtype=torch.float64)
        with torch.no_grad():  # what has no log-probability was proposed by the present policy
            present = self.policy.measure(chosen, spread=False)[0].tolist()
        old = torch.tensor(
            [now if then is None else then for (_, _, then), now in zip(self._batch, present, strict=True)],
            dtype=torch.float64,
        )
        for _ in range(self.passes):
            log_prob, entropy = self.policy.measure(chosen, spread=self.entropy > 0)
            ratio = (log_prob - old).exp()
            clipped = ratio.clamp(1 - self.clip, 1 + self.clip)
            gain = torch.minimum(ratio * advantage, clipped * advantage) + self.entropy * entropy
            self.optimizer.zero_grad()
            (-gain.mean()).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
