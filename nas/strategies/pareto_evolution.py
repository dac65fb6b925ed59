"""Pareto evolution: regularized evolution (Real et al. 2019) whose tournaments know several goals.

The comparison is NSGA-II's (Deb et al. 2002, section III-B): a lower Pareto rank wins, of equal ranks the
less crowded one. The oldest still dies, however good it is: the front of the search is kept apart from the
population, over all trials (`AskTell.front`). With one goal this is plain regularized evolution.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from nas.execution import Result, Trial
from nas.pareto import Scores, crowding, ranks
from nas.strategies.evolution import RegularizedEvolution
from nas.strategies.strategy import STRATEGIES

Count = Annotated[int, Field(ge=1)]


@STRATEGIES.register("pareto_evolution", budget="50trials")
class ParetoEvolution(RegularizedEvolution):
    """Regularized evolution for several goals: tournaments by Pareto rank, then by crowding

    Args:
        population: members, of which the first ones are random.
        sample: members drawn, with replacement, of which the best is the parent.
        epochs: of training for each candidate.
    """

    def __init__(self, population: Count = 20, sample: Count = 5, epochs: Count = 5) -> None:
        super().__init__(population, sample, epochs)
        self._scores: deque[Scores] = deque(maxlen=population)

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        if result is None:
            return
        self._scores.append(self.scores(result))
        placed = zip(self.population, places(list(self._scores)), strict=True)
        self.population = deque((member._replace(score=place) for member, place in placed), self.size)


def places(points: Sequence[Scores]) -> list[int]:
    """The place of each in the order of tournaments, larger is better; equal for those that are equal."""
    found = ranks(points)
    distances = [0.0] * len(points)
    for rank in set(found):
        on = [i for i, each in enumerate(found) if each == rank]
        for i, distance in zip(on, crowding([points[i] for i in on]), strict=True):
            distances[i] = distance
    keys = [(-rank, distance) for rank, distance in zip(found, distances, strict=True)]
    order = {key: place for place, key in enumerate(sorted(set(keys)))}
    return [order[key] for key in keys]
