"""Pareto evolution: regularized evolution (Real et al. 2019) whose tournaments know several goals.

The comparison is NSGA-II's (Deb et al. 2002, section III-B): a lower Pareto rank wins, of equal ranks the
less crowded one. The oldest still dies, however good it is: the front of the search is kept apart from the
population, over all trials (`AskTell.front`). With one goal this is plain regularized evolution.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Annotated

from pydantic import Field

from nas.execution import Result, Trial
from nas.pareto import Scores, crowding, ranks
from nas.search_space import Architecture
from nas.seeding import generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.strategy import STRATEGIES

ATTEMPTS = 100  # proposals of a known network, before a known one is accepted


@STRATEGIES.register("pareto_evolution", budget="50trials")
class ParetoEvolution(AskTell):
    """Regularized evolution for several goals: tournaments by Pareto rank, then by crowding

    Args:
        population: that is alive; the oldest makes room.
        sample: drawn for a tournament, whose winner is mutated.
        epochs: of training for each candidate.
    """

    def __init__(
        self,
        population: Annotated[int, Field(ge=1)] = 20,
        sample: Annotated[int, Field(ge=1)] = 5,
        epochs: Annotated[int, Field(ge=1)] = 5,
    ) -> None:
        super().__init__()
        self.population, self.sample, self.epochs = population, sample, epochs

    def begin(self) -> None:
        self.alive: deque[tuple[Architecture, Scores]] = deque(maxlen=self.population)
        self._fitness: list[tuple[int, float]] = []  # of those alive, larger is better; empty: not known

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        if result is not None:
            self.alive.append((trial.architecture, self.scores(result)))
            self._fitness = []

    def ask(self, number: int) -> Trial:
        rng = generator(self.task.seed, "ask", number)
        founding = not self.alive or len(self.alive) + len(self.pending) < self.population
        proposed = self._proposal(rng, founding=founding)
        for _ in range(ATTEMPTS):
            if not self.seen(proposed):
                break
            proposed = self._proposal(rng, founding=founding)
        return Trial(number, proposed, self.epochs)

    def _proposal(self, rng: Random, *, founding: bool) -> Architecture:
        """A random architecture while the population is founded, then a mutation of a tournament's winner."""
        if not founding:
            self._fitness = self._fitness or _fitness([scores for _, scores in self.alive])
            drawn = rng.sample(range(len(self.alive)), min(self.sample, len(self.alive)))
            winner, _ = self.alive[max(drawn, key=self._fitness.__getitem__)]
            try:
                return self.task.space.mutate(winner, rng)
            except ValueError:  # no mutation leads to another legal network
                pass
        return self.task.space.sample(rng)


def _fitness(points: list[Scores]) -> list[tuple[int, float]]:
    """(- rank, crowding distance) of each; with one goal the rank says everything."""
    found = ranks(points)
    distances = [0.0] * len(points)
    if len(points[0]) > 1:
        for rank in set(found):
            on = [i for i, each in enumerate(found) if each == rank]
            for i, distance in zip(on, crowding([points[i] for i in on]), strict=True):
                distances[i] = distance
    return [(-rank, distance) for rank, distance in zip(found, distances, strict=True)]
