"""Reward: how good a result is among those before it, whatever the scale of its score."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort


class Reward:
    """A score's rank among all scores so far, as an exponential quantile, less a moving average.

    An accuracy may be 0 .. 1 or 0 .. 100, a loss a negative score, and a few architectures may be far worse
    than all others: ranks know of none of this. A score above the share q of those so far is worth
    -log(1 - q) (Savage, 1956), in the mean over the shares that it and its equals take: 0 for the worst, 0.7
    for the median, 2.3 for the best tenth. That favours the best, of which a search keeps one. The mean over
    all scores is 1, the deviation about 1.

    Args:
        decay: of the moving average that is the baseline, per result; it begins as the plain mean.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._sorted: list[float] = []
        self._baseline = 1.0

    def advantage(self, score: float | None) -> float:
        """The reward of a score less the baseline, and take it in; a failure (None) is like the worst.

        0.0 for the first score, for failures before it, and where all are equal.
        """
        if score is None:
            if not self._sorted:
                return 0.0
            score = self._sorted[0]
        insort(self._sorted, score)
        count = len(self._sorted)
        least = 1 - bisect_right(self._sorted, score) / count  # the share above it, at least and at most
        most = 1 - bisect_left(self._sorted, score) / count
        reward = 1 - (_entropic(most) - _entropic(least)) / (most - least)
        share = max(1 - self.decay, 1 / count)
        advantage = reward - self._baseline
        self._baseline += share * (reward - self._baseline)
        return advantage


def _entropic(share: float) -> float:
    """x log x: that less x is the integral of log x."""
    return share * math.log(share) if share > 0 else 0.0
