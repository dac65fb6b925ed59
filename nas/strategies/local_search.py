"""Local search: climb from neighbour to neighbour, start again where no neighbour is better.

White, Nolen, Savani (UAI 2021): on small benchmarks it holds its own against far heavier methods.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nas.execution import Result, Trial
from nas.search_space import Architecture, SearchSpace
from nas.seeding import generator
from nas.strategies.ask_tell import AskTell, Choices
from nas.strategies.evolution import Member
from nas.strategies.strategy import STRATEGIES

Count = Annotated[int, Field(ge=1)]


@STRATEGIES.register("local_search", budget="50trials")
class LocalSearch(AskTell):
    """Local search: hill climbing over neighbours, in a random order, with restarts

    A neighbourhood is done with when `ask` finds nothing new in it and proposes a new start. That start, once
    it is told, is what ends the climb: so `tell` builds no neighbours, and to take up a long search is quick.

    Args:
        move: ``first``: to a neighbour that is better as soon as one is found; ``steepest``: to the best one
            after all are proposed.
        starts: random architectures of which the best begins a climb.
        epochs: of training for each candidate.
    """

    def __init__(
        self, move: Literal["first", "steepest"] = "first", starts: Count = 10, epochs: Count = 5
    ) -> None:
        super().__init__()
        self.move, self.starts, self.epochs = move, starts, epochs
        self.drawn: list[Member] = []  # the starts of a climb to come
        self.climb: list[Member] = []  # where the climb went; its last is where it is
        self.better: Member | None = None  # the best told since that is higher
        self._since = 0  # the trial whose result led here
        self._walks: dict[str, Walk] = {}  # the last neighbourhoods that were looked at

    def ask(self, number: int) -> Trial:
        places = [self.climb[-1]] if self.climb else []
        if places and self.better is not None:
            places.append(self.better)
        for place in places:
            if (found := self._walk(place.architecture).next(self)) is not None:
                return Trial(number, found, self.epochs)
        rng = generator(self.task.seed, "ask", number)
        return Trial(number, self.fresh(rng), self.epochs)

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        if self.climb and not self._near(trial.architecture):
            if self.better is not None:  # nothing new was left around the last place
                self._stand(self.better, self.better.number)
            if not self._near(trial.architecture) and trial.number - 1 - self.task.lag >= self._since:
                self.climb = []  # a start, proposed in full knowledge of the last place
        if result is None:
            return
        told = Member(self.score(result), trial.number, trial.architecture)
        if not self.climb:
            self.drawn.append(told)
            if len(self.drawn) >= self.starts:
                self._stand(max(self.drawn, key=lambda each: each.score), trial.number)
        elif told.score > (self.better or self.climb[-1]).score:
            self.better = told
            if self.move == "first":
                self._stand(told, trial.number)

    def _stand(self, place: Member, since: int) -> None:
        """Go on from there."""
        self.climb.append(place)
        self.better, self.drawn, self._since = None, [], since

    def _near(self, architecture: Architecture) -> bool:
        """Whether it is a neighbour of a place of this climb."""
        return any(
            self.task.space.adjacent(place.architecture.choices, architecture.choices)
            for place in reversed(self.climb)
        )

    def _walk(self, architecture: Architecture) -> Walk:
        """What is around a place, in the order of proposals."""
        if architecture.literal not in self._walks:
            order = list(self.task.space.moves(architecture.choices))
            generator(self.task.seed, "neighbours", architecture.literal).shuffle(order)
            self._walks = dict(list(self._walks.items())[-1:])
            self._walks[architecture.literal] = Walk(self.task.space, order)
        return self._walks[architecture.literal]


class Walk:
    """The legal neighbours of a place, each built when it is asked for.

    Args:
        order: their choices, in the order of proposals.
    """

    def __init__(self, space: SearchSpace, order: list[Choices]) -> None:
        made = map(space.architecture, order)
        self._rest = (each for each in made if space.why_not(each) is None)
        self._now = next(self._rest, None)

    def next(self, strategy: AskTell) -> Architecture | None:
        """The first that was not proposed yet; None if all were. To look does not go on."""
        while self._now is not None and strategy.seen(self._now):
            self._now = next(self._rest, None)
        return self._now
