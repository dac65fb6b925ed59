"""Early stopping of hopeless trials by the median rule (Golovin et al., KDD 2017, section 3.2.2: Vizier).

A trial stops after an epoch if its best validation accuracy so far is below the median, over the earlier
trials of as many epochs, of their average accuracy up to that epoch. Earlier are those that were told when it
was asked: so where it stops depends on the lag, and not on who finishes first.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

Rule = Literal["median", "none"]
ACCURACY, STOPPED = "valid_accuracy", "stopped_at"
FIRST = 5  # trials that nothing is stopped before


def after(epoch: int) -> str:
    """The metric of an evaluator's result for the accuracy after an epoch, from 1."""
    return f"{ACCURACY}@{epoch}"


def hopeless(accuracies: Sequence[float], hurdles: Sequence[float]) -> bool:
    """Whether a trial with these accuracies, one an epoch, stops now."""
    done = len(accuracies)
    return done <= len(hurdles) and max(accuracies) < hurdles[done - 1]


def parted(result: Mapping[str, float]) -> tuple[dict[str, float], tuple[float, ...]]:
    """A result without its accuracies after each epoch; and these."""
    curve: list[float] = []
    while after(len(curve) + 1) in result:
        curve.append(result[after(len(curve) + 1)])
    names = {after(epoch) for epoch in range(1, len(curve) + 1)}
    return {name: value for name, value in result.items() if name not in names}, tuple(curve)


def stopped(result: Mapping[str, Any]) -> bool:
    """Whether the trial was stopped: a result, but never the best."""
    return STOPPED in result


class Medians:
    """What the trials so far reached after each epoch, as hurdles of those to come."""

    def __init__(self) -> None:
        self._averages: dict[int | None, list[list[float]]] = {}  # trial's epochs -> by epoch, sorted

    def tell(self, epochs: int | None, accuracies: Sequence[float]) -> None:
        """The accuracies of a trial after each epoch; `epochs`: what it was asked for."""
        known = self._averages.setdefault(epochs, [])
        for epoch, total in enumerate(accumulate(accuracies), 1):
            if epoch > len(known):
                known.append([])
            insort(known[epoch - 1], total / epoch)

    def hurdles(self, epochs: int | None) -> tuple[float, ...]:
        """By epoch: the accuracy below which a trial stops. Never empty: that would mean not to measure."""
        known = self._averages.get(epochs, [])
        return tuple(_median(each) if len(each) >= FIRST else 0.0 for each in known) or (0.0,)


def _median(increasing: Sequence[float]) -> float:
    middle = len(increasing) // 2
    return increasing[middle] if len(increasing) % 2 else (increasing[middle - 1] + increasing[middle]) / 2
