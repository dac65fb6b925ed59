"""PolicyGradient: a policy proposes architectures, and learns how good each was among those before it."""

from __future__ import annotations

from abc import abstractmethod

from nas.execution import Result, Trial
from nas.strategies.ask_tell import AskTell
from nas.strategies.policy import Kind, policy, propose
from nas.strategies.reward import Reward


class PolicyGradient(AskTell):
    """A strategy that samples a policy. A subclass writes `learn`, and its optimizer in `begin`.

    Args:
        kind: of the policy.
        decay: of the moving average of rewards that is the baseline.
        epochs: of training for each candidate.
    """

    def __init__(self, kind: Kind, decay: float, epochs: int) -> None:
        super().__init__()
        self.kind, self.epochs = kind, epochs
        self.reward = Reward(decay)

    def begin(self) -> None:
        self.policy = policy(self.kind, self.task.space, seed=self.task.seed)

    def ask(self, number: int) -> Trial:
        found = propose(self.policy, self.seen, seed=self.task.seed, number=number)
        return Trial(number, found, self.epochs)

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        self.learn(trial, self.reward.advantage(None if result is None else self.score(result)))

    @abstractmethod
    def learn(self, trial: Trial, advantage: float) -> None:
        """Take in a trial whose reward is so much above the baseline."""
