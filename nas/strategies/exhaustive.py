"""Exhaustive search: every architecture of a space, each once."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from nas.execution import Result, Trial
from nas.graph import Option, Value
from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
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
        self._last = -1  # the turn of the last architecture that was told

    def begin(self) -> None:
        self._size = self.task.space.size
        self._stride = stride(self._size)
        self._back = pow(self._stride, -1, self._size)

    def ask(self, number: int) -> Trial | None:
        space = self.task.space
        waiting = [self._turn(trial.architecture) for trial in self.pending.values()]
        for turn in range(max([self._last, *waiting]) + 1, self._size):
            architecture = at(space, turn * self._stride % self._size)
            if space.why_not(architecture) is None and not self.seen(architecture):
                return Trial(number, architecture, self.epochs)
        return None

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        self._last = max(self._last, self._turn(trial.architecture))

    def _turn(self, architecture: Architecture) -> int:
        return rank(self.task.space, architecture) * self._back % self._size


def stride(size: int) -> int:
    """The number nearest above ``size / 1.618`` that has no divisor in common with `size`."""
    found = size * 618_033_988_749_895 // 10**15 + 1  # exact, however large the size
    while math.gcd(found, size) > 1:
        found += 1
    return found


def at(space: SearchSpace, place: int) -> Architecture:
    """The architecture at a place of 0 .. ``space.size - 1``, legal or not."""
    choices: dict[str, Value] = {}
    for decision in reversed(space.decisions):
        place, own = divmod(place, decision.size)
        choices[decision.name] = value_at(decision, own)
    return space.architecture(choices)


def rank(space: SearchSpace, architecture: Architecture) -> int:
    """The place of an architecture: ``at(space, rank(space, a)) == a``."""
    place = 0
    for decision in space.decisions:
        place = place * decision.size + rank_of(decision, architecture.choices[decision.name])
    return place


def value_at(decision: Decision, place: int) -> Value:
    """``decision.values()[place]``, without making them all."""
    legal, keep = decision.legal, decision.keep
    place, digits = divmod(place, len(legal) ** keep)
    rows: list[int] = []
    for row in range(decision.rows):
        beginning = math.comb(decision.rows - row - 1, keep - len(rows) - 1) if len(rows) < keep else 0
        if place < beginning:
            rows.append(row)
        else:
            place -= beginning
    options: list[Option] = []
    for _ in rows:
        digits, digit = divmod(digits, len(legal))
        options.append(legal[digit])
    return tuple(zip(rows, reversed(options), strict=True))


def rank_of(decision: Decision, value: Value) -> int:
    """The place of a value: ``value_at(decision, rank_of(decision, value)) == value``."""
    legal, keep = decision.legal, decision.keep
    kept = dict(value)
    place, found = 0, 0
    for row in range(max(kept) + 1):
        if row in kept:
            found += 1
        else:
            place += math.comb(decision.rows - row - 1, keep - found - 1)
    for _, option in value:
        place = place * len(legal) + legal.index(option)
    return place
