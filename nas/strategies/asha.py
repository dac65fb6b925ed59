"""ASHA: successive halving that never waits (Li, Jamieson, Rostamizadeh et al., MLSys 2020, algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Container

from nas.execution import Result, Trial
from nas.search_space import Architecture
from nas.seeding import generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.rungs import Epochs, Eta, Rung, levels
from nas.strategies.strategy import STRATEGIES

Choice = Callable[[Rung, Container[Architecture]], Architecture | None]


@STRATEGIES.register("asha", budget="50trials")
class Asha(AskTell):
    """Asynchronous successive halving: random architectures trained briefly, the best of them for longer

    Proposed is the best that may go on, from the highest rung that has one; if none may, a new architecture.

    Args:
        min_epochs: of training on the first rung, at least.
        max_epochs: of training on the last rung.
        eta: the next rung trains so many times longer, and one in so many goes on to it.
    """

    def __init__(self, min_epochs: Epochs = 1, max_epochs: Epochs = 9, eta: Eta = 3) -> None:
        super().__init__()
        self.levels = levels(min_epochs, max_epochs, eta)
        self.rungs = [Rung(eta) for _ in self.levels]

    def ask(self, number: int) -> Trial | None:
        promoted = self._promoted(Rung.next)
        if promoted is not None:
            return Trial(number, *promoted)
        rng = generator(self.task.seed, "ask", number)
        drawn = self.fresh(rng)
        if self.seen(drawn):  # there seem to be no others: train the best of these for longer, all in the end
            promoted = self._promoted(Rung.left)
            if promoted is not None:
                return Trial(number, *promoted)
            if not self.pending:
                return None
        return Trial(number, drawn, self.levels[0])

    def _promoted(self, which: Choice) -> tuple[Architecture, int] | None:
        """Who goes on, and the epochs of its next rung."""
        for level in range(len(self.rungs) - 2, -1, -1):
            epochs = self.levels[level + 1]
            going = {trial.architecture for trial in self.pending.values() if trial.epochs == epochs}
            found = which(self.rungs[level], going)
            if found is not None:
                return found, epochs
        return None

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        assert trial.epochs is not None
        level = self.levels.index(trial.epochs)
        self.rungs[level].add(trial.architecture, None if result is None else self.score(result))
        if level:
            self.rungs[level - 1].promote(trial.architecture)
