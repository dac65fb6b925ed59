"""Rungs: levels of training at which architectures are ranked, and which of them are trained for longer.

Successive halving (Jamieson & Talwalkar 2016): the best of a rung, one in `eta`, goes on to the next one,
which trains `eta` times as long. `Rung` decides from whatever is there (ASHA, Li et al. 2020); `Schedule`
lays the rungs of Hyperband (Li et al. 2018) out over the numbers of trials. A trial of a higher rung trains
afresh.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Container
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated

from pydantic import Field

from nas.search_space import Architecture
from nas.strategies.ask_tell import AskTell

Epochs = Annotated[int, Field(ge=1)]
Eta = Annotated[float, Field(gt=1)]
ROUNDING = 1e-9  # log(243, 3) is 4.999...


class Halving(AskTell):
    """A strategy that trains many architectures briefly and the best of them for longer.

    Args:
        min_epochs: of training on the first rung, at least.
        max_epochs: of training on the last rung.
        eta: the next rung trains so many times longer, and one in so many goes on to it.
    """

    def __init__(self, min_epochs: Epochs = 1, max_epochs: Epochs = 9, eta: Eta = 3) -> None:
        super().__init__()
        self.eta, self.levels = eta, levels(min_epochs, max_epochs, eta)


def levels(min_epochs: int, max_epochs: int, eta: float) -> tuple[int, ...]:
    """The epochs of the rungs: max_epochs, and that divided by eta again and again down to min_epochs.

    Raises ValueError if the least are more than the most.
    """
    if min_epochs > max_epochs:
        raise ValueError(
            f"min_epochs={min_epochs} is more than max_epochs={max_epochs}: the first rung trains for the "
            "least, the last one for the most"
        )
    steps = int(math.log(max_epochs / min_epochs, eta) + ROUNDING)
    found = (max(min_epochs, round(max_epochs / eta**step)) for step in range(steps, -1, -1))
    return tuple(dict.fromkeys(found))


class Rung:
    """The results of one level of training, told in any order, and who of them may go on.

    Those are the best floor(n / eta) of n results (Li et al. 2020, algorithm 2). A failed trial is a result,
    the worst, which never goes on. Telling takes O(log n).
    """

    def __init__(self, eta: float) -> None:
        self.eta = eta
        self.scores: dict[Architecture, float] = {}  # -inf: failed
        self.gone: set[Architecture] = set()  # on to the next rung
        self.waiting: dict[Architecture, tuple[float, int]] = {}  # among the best, and not gone
        self._best: list[tuple[float, int, Architecture]] = []  # heap, the worst of the best first
        self._rest: list[tuple[float, int, Architecture]] = []  # heap of what is not among them, best first

    def add(self, architecture: Architecture, score: float | None) -> None:
        """A result; None: it failed. A second one of the same architecture changes nothing."""
        if architecture in self.scores:
            return
        order, value = -len(self.scores), -math.inf if score is None else score  # among equals the first wins
        self.scores[architecture] = value
        if score is None:
            pass
        elif self._best and (value, order) > self._best[0][:2]:
            self._enter(value, order, architecture)
            value, order, architecture = heapq.heappop(self._best)
            self.waiting.pop(architecture, None)
            heapq.heappush(self._rest, (-value, -order, architecture))
        else:
            heapq.heappush(self._rest, (-value, -order, architecture))
        if len(self._best) < int(len(self.scores) / self.eta + ROUNDING) and self._rest:
            value, order, architecture = heapq.heappop(self._rest)
            self._enter(-value, -order, architecture)

    def _enter(self, value: float, order: int, architecture: Architecture) -> None:
        heapq.heappush(self._best, (value, order, architecture))
        if architecture not in self.gone:
            self.waiting[architecture] = value, order

    def promote(self, architecture: Architecture) -> None:
        """It went on to the next rung."""
        self.gone.add(architecture)
        self.waiting.pop(architecture, None)

    def next(self, going: Container[Architecture]) -> Architecture | None:
        """The best that may go on, but for those that are `going` already."""
        there = (each for each in self.waiting if each not in going)
        return max(there, key=self.waiting.__getitem__, default=None)

    def left(self, going: Container[Architecture]) -> Architecture | None:
        """The best that did not go on, whether it may or not; O(n)."""
        there = (
            each
            for each, score in self.scores.items()
            if score > -math.inf and each not in self.gone and each not in going
        )
        return max(there, key=self.scores.__getitem__, default=None)


@dataclass(frozen=True)
class Place:
    """Where a trial stands in Hyperband's schedule.

    `rung` and `below` are numbers of trials: those of its own rung, and of the one that it is promoted from,
    which is empty for the first rung of a bracket.
    """

    epochs: int
    rung: range
    below: range


class Schedule:
    """Hyperband's brackets over the numbers of trials, again and again (Li et al. 2018, algorithm 1).

    Bracket s, from the most to 0, begins with ceil((s_max + 1) / (s + 1) * eta**s) architectures on the s-th
    rung from the top, and keeps one in eta at each step.
    """

    def __init__(self, epochs: tuple[int, ...], eta: float) -> None:
        top = len(epochs) - 1
        self._rungs: list[tuple[int, int, bool]] = []  # epochs, trials, whether it begins a bracket
        for s in range(top, -1, -1):
            n = math.ceil((top + 1) / (s + 1) * eta**s - ROUNDING)
            for step in range(s + 1):
                count = max(1, int(n / eta**step + ROUNDING))
                self._rungs.append((epochs[top - s + step], count, step == 0))
        self._ends = list(accumulate(count for _, count, _ in self._rungs))

    @property
    def round(self) -> int:
        """The trials of all brackets together."""
        return self._ends[-1]

    def place(self, number: int) -> Place:
        """Where the trial of that number stands; O(log s_max)."""
        begin = number - number % self.round
        index = bisect_right(self._ends, number - begin)
        epochs, count, first = self._rungs[index]
        start = begin + self._ends[index] - count
        below = 0 if first else self._rungs[index - 1][1]
        return Place(epochs, range(start, start + count), range(start - below, start))
