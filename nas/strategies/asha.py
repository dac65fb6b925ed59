"""ASHA: successive halving that never waits (Li, Jamieson, Rostamizadeh et al., MLSys 2020, algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Container

from nas.execution import Result, Trial
from nas.search_space import Architecture
from nas.seeding import generator
from nas.strategies.rungs import Halving, Rung
from nas.strategies.strategy import STRATEGIES

Choice = Callable[[Rung, Container[Architecture]], Architecture | None]


@STRATEGIES.register("asha", budget="50trials")
class Asha(Halving):
    """Asynchronous successive halving: random architectures trained briefly, the best of them for longer

    Proposed is the best that may go on, from the highest rung that has one; if none may, a new architecture.
    """

    def begin(self) -> None:
        self.rungs = [Rung(self.eta) for _ in self.levels]

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
