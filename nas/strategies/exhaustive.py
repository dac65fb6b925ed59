"""Exhaustive search: every architecture of a space, each once."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from nas.execution import Trial
from nas.strategies.ask_tell import AskTell
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("exhaustive", budget="1000trials")
class Exhaustive(AskTell):
    """Exhaustive search: every network of the space once, in a fixed order

    The order is that of the multiples of the golden ratio, modulo the size of the space: after any number of
    proposals they lie evenly in it, and no stretch of illegal ones holds the search up. Illegal architectures
    are skipped, and those that are a network which was proposed before.

    Args:
        epochs: of training for each candidate.
    """

    def __init__(self, epochs: Annotated[int, Field(ge=1)] = 5) -> None:
        super().__init__()
        self.epochs = epochs
        self._passed = 0  # places, in this order, that are illegal or were proposed

    def begin(self) -> None:
        self._size = self.task.space.size
        self._stride = stride(self._size)

    def ask(self, number: int) -> Trial | None:
        space = self.task.space
        while self._passed < self._size:
            found = space.at(self._passed * self._stride % self._size)
            if space.why_not(found) is None and not self.seen(found):
                return Trial(number, found, self.epochs)
            self._passed += 1
        return None


def stride(size: int) -> int:
    """The number nearest above ``size / 1.618`` that has no divisor in common with `size`."""
    found = size * 618_033_988_749_895 // 10**15 + 1  # exact, however large the size
    while math.gcd(found, size) > 1:
        found += 1
    return found
