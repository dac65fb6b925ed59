"""Correlation: how well accuracies in a supernet rank networks, and what that says in words. No torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

SHARED = "supernet_accuracy"
FEWEST = 3  # networks, below which no correlation is told
RESAMPLES = 1000
LEVEL = 0.95  # of the bootstrap interval
GOOD = 0.3  # Kendall's tau: of two networks the better one is told in 65 of 100 cases


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of pairs: (accuracy in the supernet, score alone), larger is better in both."""

    pairs: Sequence[tuple[float, float]]

    @cached_property
    def kendall(self) -> float:
        """Kendall's tau-b (1945); 0 if all are equal."""
        return _kendall(*zip(*self.pairs, strict=True))

    @cached_property
    def spearman(self) -> float:
        """Spearman's rho (1904); 0 if all are equal."""
        return _spearman(*zip(*self.pairs, strict=True))

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """`LEVEL` percentile intervals of both over resampled networks (Efron 1979); the same every time."""
        import numpy as np

        rng = np.random.default_rng(0)
        values = np.array(self.pairs)
        drawn = [values[rng.integers(len(values), size=len(values))].T for _ in range(RESAMPLES)]
        tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        found = {}
        for name, measure in (("kendall", _kendall), ("spearman", _spearman)):
            low, high = np.quantile([measure(*each) for each in drawn], tails)
            found[name] = float(low), float(high)
        return found

    @property
    def word(self) -> str:
        """By the lower end of Kendall's interval: above `GOOD`, above chance, or not above it."""
        low = self.intervals["kendall"][0]
        if low <= 0:
            return "do not trust"
        return "trust" if low > GOOD else "doubt"

    def metrics(self) -> dict[str, float]:
        """All of it as numbers."""
        found: dict[str, float] = {"networks": len(self.pairs)}
        for name, (low, high) in self.intervals.items():
            found |= {name: getattr(self, name), f"{name}_low": low, f"{name}_high": high}
        return found


def _kendall(a: Sequence[float], b: Sequence[float]) -> float:
    from scipy.stats import kendalltau  # type: ignore[import-untyped]

    return _quietly(kendalltau, a, b)


def _spearman(a: Sequence[float], b: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    return _quietly(spearmanr, a, b)


def _quietly(measure: Any, a: Sequence[float], b: Sequence[float]) -> float:
    with warnings.catch_warnings():  # that values are all equal
        warnings.simplefilter("ignore")
        found = float(measure(a, b).statistic)
    return 0.0 if math.isnan(found) else found


def told(event: Mapping[str, Any]) -> str:
    """The line ``ranking`` of a ledger as a sentence."""
    metrics, word = event["metrics"], event["word"]
    count = int(metrics["networks"])
    if word is None:
        return f"Only {count} networks have a result: too few to tell how the supernet ranks."
    share = 50 * (1 + metrics["kendall"])
    return (
        f"{word[0].upper()}{word[1:]} the supernet's ranking: over {count} random networks, accuracies in it "
        f"and alone correlate with Kendall's tau {_between(metrics, 'kendall')}, Spearman's rho "
        f"{_between(metrics, 'spearman')}; of two networks it names the better one in {share:.0f} of 100 "
        "cases."
    )


def _between(metrics: Mapping[str, float], name: str) -> str:
    """``0.52 (0.31 to 0.70)``: with its interval."""
    return f"{metrics[name]:.2f} ({metrics[f'{name}_low']:.2f} to {metrics[f'{name}_high']:.2f})"
