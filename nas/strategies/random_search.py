"""Random search: train each candidate briefly, keep the best (Li & Talwalkar 2019: the control of every
search).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from nas.execution import Trial
from nas.search_space import Architecture
from nas.seeding import generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.strategy import STRATEGIES

ATTEMPTS = 100  # draws for an architecture that was not seen, before a known one is accepted


@STRATEGIES.register("random", budget="10trials")
class RandomSearch(AskTell):
    """Random search: uniform samples, each trained briefly, best kept

    Args:
        epochs: of training for each candidate.
    """

    def __init__(self, epochs: Annotated[int, Field(ge=1)] = 5) -> None:
        super().__init__()
        self.epochs = epochs

    def ask(self, number: int) -> Trial:
        rng = generator(self.task.seed, "ask", number)
        return Trial(number, unseen(self, lambda: self.task.space.sample(rng)), self.epochs)


def unseen(strategy: AskTell, draw: Callable[[], Architecture]) -> Architecture:
    """The first of `ATTEMPTS` draws that was not proposed before; if all were, the last."""
    for _ in range(ATTEMPTS):
        drawn = draw()
        if not strategy.seen(drawn):
            break
    return drawn
