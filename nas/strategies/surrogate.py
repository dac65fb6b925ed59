"""Surrogates: what results are to be expected of architectures that were not evaluated, and how sure that is.

A Gaussian process on counted features (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006,
chapters 2 and 5). Results are first replaced by the normal quantiles of their ranks: accuracies have a long
lower tail, costs a long upper one, and neither tells anything about the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erfc, log, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from nas.strategies.features import Choices, Counts, Features, Label

Array = NDArray[np.float64]
SCALES = (0.25, 0.5, 1.0, 2.0)  # of distances, over their mean
NOISES = (1e-3, 1e-2, 0.1, 0.4)  # variance, over that of the process
WEIGHTS = ((1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 1.0))  # of the kinds of features


def quantiles(values: Sequence[float]) -> Array:
    """The normal quantiles of the ranks: the same for every increasing function of the values."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - counts / 2  # equal values share the middle of their ranks
    return np.array([NormalDist().inv_cdf(rank / len(values)) for rank in ranks])[places]


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """E max(0, f - best) for f normal (Jones et al. 1998, equation 15)."""
    gain = mean - best
    certain = deviation <= 0
    safe = np.where(certain, 1.0, deviation)
    u = gain / safe
    below = np.array([0.5 * erfc(-each / sqrt(2)) for each in u])
    density = np.exp(-0.5 * u * u) / np.sqrt(2 * np.pi)
    return np.where(certain, np.maximum(gain, 0.0), np.maximum(gain * below + safe * density, 0.0))


@dataclass(frozen=True)
class Kernel:
    """A weighted mean of Matérn kernels (smoothness 5/2), one for each kind of features; 1 on the diagonal.

    Args:
        scale: of squared distances, which are taken over their mean among the known.
        noise: variance of a result around the process.
        weights: of the kinds of features.
    """

    scale: float = 0.5
    noise: float = 0.1
    weights: tuple[float, ...] = WEIGHTS[0]

    def __call__(self, squared: Sequence[Array]) -> Array:
        """The covariance at these squared distances, one array for each kind of features."""
        total = np.zeros_like(squared[0])
        for weight, each in zip(self.weights, squared, strict=True):
            if weight:
                root = np.sqrt(5 * self.scale * each)
                total += weight / sum(self.weights) * (1 + root + root * root / 3) * np.exp(-root)
        return total


class GaussianProcess:
    """The posterior after `values` were seen at `known`, whose mean is zero far from everything known.

    Args:
        known: features of the architectures with results; at least one.
        values: about standard normal, one for each.
        kernel: None for the one of the largest marginal likelihood (`fitted`).
    """

    def __init__(self, known: Sequence[Counts], values: Array, kernel: Kernel | None = None) -> None:
        self.known, self.values = known, values
        squared = distances(known, known)
        self.units = [float(each.mean()) or 1.0 for each in squared]
        squared = [each / unit for each, unit in zip(squared, self.units, strict=True)]
        self.kernel = kernel or fitted(squared, values)
        self.factor, self.white = _solved(self.kernel(squared), self.kernel.noise, values)
        self.variance = _variance(self.white)

    def __call__(self, new: Sequence[Counts]) -> tuple[Array, Array]:
        """Mean and standard deviation of the process (not of a noisy result) at new architectures."""
        squared = distances(self.known, new)
        covariance = self.kernel([each / unit for each, unit in zip(squared, self.units, strict=True)])
        explained = np.linalg.solve(self.factor, covariance)
        left = np.maximum(1.0 - (explained * explained).sum(0), 0.0)
        return explained.T @ self.white, np.sqrt(left * self.variance)


def distances(a: Sequence[Counts], b: Sequence[Counts]) -> list[Array]:
    """Squared Euclidean distances of all pairs, one array for each kind of features."""
    found = []
    for kind in range(len(a[0])):
        columns: dict[object, int] = {}
        x, y = (_entries([counts[kind] for counts in rows], columns) for rows in (a, b))
        left, right = (_dense(entries, len(rows), len(columns)) for entries, rows in ((x, a), (y, b)))
        squared = (left * left).sum(1)[:, None] + (right * right).sum(1)[None] - 2 * left @ right.T
        found.append(np.where(squared > 1e-9, squared, 0.0))  # rounding must not tell equal ones apart
    return found


Entries = tuple[list[int], list[int], list[float]]  # rows, columns, values


def _entries(rows: Sequence[Mapping[Label, float]], columns: dict[object, int]) -> Entries:
    """What is not zero in a matrix of a row for each of `rows`; new labels get new columns."""
    for counts in rows:
        for label in counts:
            if label not in columns:
                columns[label] = len(columns)
    at = [place for place, counts in enumerate(rows) for _ in counts]
    labels = [columns[label] for counts in rows for label in counts]
    return at, labels, [count for counts in rows for count in counts.values()]


def _dense(entries: Entries, rows: int, columns: int) -> Array:
    matrix = np.zeros((rows, columns))
    matrix[entries[0], entries[1]] = entries[2]
    return matrix


def fitted(squared: Sequence[Array], values: Array) -> Kernel:
    """The kernel of the largest marginal likelihood, of all weights, scales and noises."""
    best, most = Kernel(), -np.inf
    for weights in WEIGHTS:
        if not any(weight and each.any() for weight, each in zip(weights, squared, strict=True)):
            continue
        for scale in SCALES:
            covariance = Kernel(scale, weights=weights)(squared)
            for noise in NOISES:
                likelihood = _likelihood(covariance, noise, values)
                if likelihood > most:
                    best, most = Kernel(scale, noise, weights), likelihood
    return best


def _solved(covariance: Array, noise: float, values: Array) -> tuple[Array, Array]:
    """The Cholesky factor L of the noisy covariance, and the values whitened by it: L^-1 y."""
    noisy = covariance + (noise + 1e-8) * np.eye(len(covariance))
    factor = np.asarray(np.linalg.cholesky(noisy), dtype=np.float64)
    return factor, np.asarray(np.linalg.solve(factor, values), dtype=np.float64)


def _variance(white: Array) -> float:
    """The variance of the process that makes the values most likely."""
    return max(float(white @ white) / len(white), 1e-6)


def _likelihood(covariance: Array, noise: float, values: Array) -> float:
    """The logarithm of the marginal likelihood at its best variance, up to a constant."""
    factor, white = _solved(covariance, noise, values)
    return -0.5 * len(values) * log(_variance(white)) - float(np.log(np.diag(factor)).sum())


class Surrogate:
    """What a strategy was told, and the process that follows from it.

    Args:
        features: of the architectures.
        first: the number of results after which the kernel is made for the first time.
        most: results that are learned from: half of them the best, half of them the latest.
    """

    def __init__(self, features: Features, *, first: int, most: int) -> None:
        self.features, self.first, self.most = features, first, most
        self.scored: list[tuple[float, Choices]] = []  # in the order of telling, larger is better
        self._kernel: tuple[int, Kernel] | None = None  # made after so many results

    def process(self, waiting: Sequence[Choices] = ()) -> GaussianProcess:
        """The process given all results.

        What is `waiting` for a result counts as if it had the expected one, so that nothing else is chosen
        for the same promise (the kriging believer of Ginsbourger, Le Riche, Carraro 2010).
        """
        counts, values = self._learned(len(self.scored))
        process = GaussianProcess(counts, values, self._fitted())
        if not waiting:
            return process
        expected = self.features.of(waiting)
        values = np.concatenate([values, process(expected)[0]])
        return GaussianProcess([*counts, *expected], values, process.kernel)

    def _learned(self, number: int) -> tuple[list[Counts], Array]:
        """Features and values of those of the first `number` results that are learned from."""
        half = self.most // 2
        chosen = list(range(number))
        if number > self.most:
            order = sorted(range(number - half), key=lambda i: -self.scored[i][0])
            chosen = [*sorted(order[: self.most - half]), *range(number - half, number)]
        counts = self.features.of([self.scored[i][1] for i in chosen])
        return counts, quantiles([self.scored[i][0] for i in chosen])

    def _fitted(self) -> Kernel:
        """The kernel, made anew whenever there are a tenth more results: a function of what was told."""
        number = min(self.first, len(self.scored))
        while number + max(1, number // 10) <= len(self.scored):
            number += max(1, number // 10)
        if self._kernel is None or self._kernel[0] != number:
            self._kernel = number, GaussianProcess(*self._learned(number)).kernel
        return self._kernel[1]
