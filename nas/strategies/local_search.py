"""Local search: climb from neighbour to neighbour, start again where no neighbour is better.

White, Nolen, Savani (UAI 2021): on small benchmarks it holds its own against far heavier methods.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nas.execution import Result, Trial
from nas.search_space import Architecture
from nas.search_space.rules import Choices, moves
from nas.seeding import generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.random_search import unseen
from nas.strategies.strategy import STRATEGIES

Count = Annotated[int, Field(ge=1)]


@STRATEGIES.register("local_search", budget="50trials")
class LocalSearch(AskTell):
    """Local search: hill climbing over neighbours, in a random order, with restarts

    Args:
        move: ``first``: to a neighbour that is better as soon as one is found; ``steepest``: to the best one
            after all are evaluated.
        starts: random architectures of which the best begins a climb.
        epochs: of training for each candidate.
    """

    def __init__(
        self, move: Literal["first", "steepest"] = "first", starts: Count = 10, epochs: Count = 5
    ) -> None:
        super().__init__()
        self.move, self.starts, self.epochs = move, starts, epochs
        self.here: tuple[float, Architecture] | None = None  # where the climb is, and how high
        self.better: tuple[float, Architecture] | None = None  # the best told since that is higher
        self._drawn: list[tuple[float, Architecture]] = []  # the starts of the climb to come
        # The neighbours of `here` in the order of proposals: those not built yet, then those built. Building
        # is put off to when they are asked for, so these are a cache.
        self._raw: list[Choices] = []
        self._near: list[Architecture] = []
        self._passed = 0  # so many of `_near` are known to have been seen

    def ask(self, number: int) -> Trial:
        found = self._neighbour() if self.here is not None else None
        if found is None:  # a start; also while the last neighbours are being evaluated
            rng = generator(self.task.seed, "ask", number)
            found = unseen(self, lambda: self.task.space.sample(rng))
        return Trial(number, found, self.epochs)

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        told = None if result is None else (self.score(result), trial.architecture)
        if self.here is None:
            if told is not None:
                self._drawn.append(told)
            if len(self._drawn) >= self.starts:
                self._stand(max(self._drawn, key=lambda each: each[0]))
            return
        if told is not None and told[0] > (self.better or self.here)[0]:
            self.better = told
        early = self.better is not None and self.move == "first"
        if early or (self._neighbour() is None and not self._awaited()):
            self._stand(self.better)

    def _stand(self, place: tuple[float, Architecture] | None) -> None:
        """Go on from there; None: start again."""
        self.here, self.better = place, None
        self._drawn, self._raw, self._near, self._passed = [], [], [], 0
        if place is not None:
            architecture = place[1]
            self._raw = list(moves(self.task.space, architecture.choices))
            generator(self.task.seed, "neighbours", architecture.literal).shuffle(self._raw)

    def _neighbour(self) -> Architecture | None:
        """The next neighbour that was not proposed yet."""
        space = self.task.space
        while True:
            while self._passed < len(self._near):
                if not self.seen(self._near[self._passed]):
                    return self._near[self._passed]
                self._passed += 1
            if not self._raw:
                return None
            built = space.architecture(self._raw.pop())
            if space.why_not(built) is None:
                self._near.append(built)

    def _awaited(self) -> bool:
        """Whether the result of a neighbour is still to come."""
        return any(trial.architecture in self._near for trial in self.pending.values())
