"""A strategy of one's own in one file: local search (White, Nolen, Savani, UAI 2021).

nas search --strategy examples/my_strategy.py:LocalSearch --data digits --budget 10trials
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nas.seeding import generator
from nas.strategies import AskTell, Trial


class LocalSearch(AskTell):
    """Local search: try the best architecture's neighbours; if all are known, start at a new place

    Args:
        epochs: of training for each candidate.
        start: candidates drawn at random before the first step.
    """

    def __init__(
        self, epochs: Annotated[int, Field(ge=1)] = 3, start: Annotated[int, Field(ge=1)] = 1
    ) -> None:
        super().__init__()
        self.epochs, self.start = epochs, start

    def ask(self, number: int) -> Trial:
        rng, space = generator(self.task.seed, "ask", number), self.task.space
        near = []
        if number >= self.start and any(result is not None for _, result in self.told):
            near = [candidate for candidate in space.neighbours(self.best()) if not self.seen(candidate)]
        return Trial(number, rng.choice(near) if near else space.sample(rng), self.epochs)
