"""Random search: train each candidate briefly, keep the best (Li & Talwalkar 2019: the control of every
search).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from nas.execution import Trial
from nas.seeding import generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.strategy import STRATEGIES


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
        return Trial(number, self.fresh(rng), self.epochs)
