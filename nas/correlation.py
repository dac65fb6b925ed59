"""Correlation: how well accuracies in a supernet rank networks, and what that says in words. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

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
        return float(_kendall(self._values, self._once)[0])

    @cached_property
    def spearman(self) -> float:
        """Spearman's rho (1904); 0 if all are equal."""
        return float(_spearman(self._values, self._once)[0])

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """`LEVEL` percentile intervals of both over resampled networks (Efron 1979); the same every time."""
        import numpy as np

        n = len(self.pairs)
        counts = np.random.default_rng(0).multinomial(n, [1 / n] * n, size=RESAMPLES)
        tails, found = [(1 - LEVEL) / 2, (1 + LEVEL) / 2], {}
        for name, measure in (("kendall", _kendall), ("spearman", _spearman)):
            low, high = np.quantile(measure(self._values, counts.astype(float)), tails)
            found[name] = float(low), float(high)
        return found

    @property
    def _values(self) -> Numbers:
        import numpy as np

        return np.array(self.pairs, dtype=float).T

    @property
    def _once(self) -> Numbers:
        import numpy as np

        return np.ones((1, len(self.pairs)))

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


def _kendall(values: Numbers, counts: Numbers) -> Numbers:
    """tau-b of values (2, n) for each row of counts (resamples, n): how often each pair was drawn."""
    import numpy as np

    a, b = np.sign(values[:, :, None] - values[:, None, :])
    agreement, distinct, others = (((counts @ signs) * counts).sum(1) for signs in (a * b, a * a, b * b))
    return _ratio(agreement, np.sqrt(distinct * others))


def _spearman(values: Numbers, counts: Numbers) -> Numbers:
    """rho, as `_kendall`: the correlation of mean ranks."""
    import numpy as np

    ranks = [counts @ (1 - np.sign(each[:, None] - each[None, :])) / 2 for each in values]
    size = counts.sum(1, keepdims=True)
    a, b = (each - (each * counts).sum(1, keepdims=True) / size for each in ranks)
    covariance, first, second = ((x * counts).sum(1) for x in (a * b, a * a, b * b))
    return _ratio(covariance, np.sqrt(first * second))


def _ratio(above: Numbers, below: Numbers) -> Numbers:
    """0 where nothing is below: values that are all equal rank nothing."""
    import numpy as np

    found: Numbers = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


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
