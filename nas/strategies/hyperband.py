"""Hyperband (Li, Jamieson, DeSalvo, Rostamizadeh, Talwalkar, JMLR 2018, algorithm 1)."""

from __future__ import annotations

from random import Random

from nas.execution import Result, Trial
from nas.search_space import Architecture
from nas.seeding import generator
from nas.strategies.rungs import Halving, Schedule
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("hyperband", budget="50trials")
class Hyperband(Halving):
    """Hyperband: brackets of successive halving, from many trainings that begin short to a few long ones

    The number of a trial says where it stands. With a lag the first promotions of a rung are decided while
    the last results of the rung below are missing.
    """

    def begin(self) -> None:
        self.schedule = Schedule(self.levels, self.eta)
        self._numbered: dict[int, tuple[Architecture, float | None]] = {}  # None: it failed

    def ask(self, number: int) -> Trial:
        place = self.schedule.place(number)
        found = self._promoted(number)
        if found is None:  # a bracket begins, or nothing else is left of it
            found = self.propose(generator(self.task.seed, "ask", number))
        return Trial(number, found, place.epochs)

    def propose(self, rng: Random) -> Architecture:
        """A new architecture."""
        return self.fresh(rng)

    def _promoted(self, number: int) -> Architecture | None:
        """The best of the rung below that does not stand on this one yet."""
        place = self.schedule.place(number)
        here = {self._architecture(n) for n in range(place.rung.start, number)}
        best: tuple[float, Architecture] | None = None
        for below in place.below:
            architecture, score = self._numbered.get(below, (None, None))
            if architecture is None or score is None or architecture in here:
                continue
            if best is None or score > best[0]:
                best = score, architecture
        return best[1] if best else None

    def _architecture(self, number: int) -> Architecture:
        trial = self.pending.get(number)
        return trial.architecture if trial else self._numbered[number][0]

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        score = None if result is None else self.score(result)
        self._numbered[trial.number] = trial.architecture, score
