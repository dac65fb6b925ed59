"""BOHB: Hyperband with a model of where the good architectures are (Falkner, Klein & Hutter, ICML 2018).

The model is a pair of kernel densities (section 3.2, after TPE, Bergstra et al. 2011): of the best results
and of the others, on the longest training that has enough of them. The paper draws from the good density
with its bandwidths times three; its published code does so for continuous variables alone, and there are none
here. A row of a decision is a categorical
variable, with the kernel of Aitchison & Aitken (1976): weight 1 - h on the same category, h / (c - 1) on each
other one.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from nas.execution import Result, Trial
from nas.graph import Value
from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.strategies.hyperband import Hyperband
from nas.strategies.rungs import Epochs, Eta
from nas.strategies.strategy import STRATEGIES

SAMPLES = 64  # of the good density, of which the best ratio is taken (Falkner et al., appendix)
GOOD = 0.15  # of the results
POINTS = 256  # at most, of either density: what a proposal takes does not grow with the search
NARROWEST = 1e-3  # bandwidth
Codes = tuple[int, ...]


@STRATEGIES.register("bohb", budget="50trials")
class Bohb(Hyperband):
    """BOHB: Hyperband whose new architectures come from a density model of the good ones

    Args:
        min_epochs, max_epochs, eta: as of `Halving`.
        random: the share of new architectures that are drawn uniformly.
    """

    def __init__(
        self,
        min_epochs: Epochs = 1,
        max_epochs: Epochs = 9,
        eta: Eta = 3,
        random: Annotated[float, Field(ge=0, le=1)] = 1 / 3,
    ) -> None:
        super().__init__(min_epochs, max_epochs, eta)
        self.random = random
        self._codes: set[Codes] = set()  # of what was told: quicker than to make an architecture again
        self._ranked: dict[int, list[tuple[float, int, Codes, Architecture]]] = {e: [] for e in self.levels}

    def begin(self) -> None:
        super().begin()
        self.variables = Variables(self.task.space)

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        assert trial.epochs is not None
        loss = math.inf if result is None else -self.score(result)
        codes = self.variables.codes(trial.architecture.choices)
        self._codes.add(codes)
        insort(self._ranked[trial.epochs], (loss, trial.number, codes, trial.architecture))

    def propose(self, rng: Random) -> Architecture:
        least = len(self.variables.counts) + 1
        enough = [epochs for epochs in self.levels if len(self._ranked[epochs]) >= least + 2]
        if not enough or rng.random() < self.random:
            return super().propose(rng)
        ranked, space = self._ranked[enough[-1]], self.task.space
        good, bad = _parted(ranked, least)
        drawn = self._drawn([each[3] for each in good], [each[2] for each in good], rng)
        ratio = self.variables.density([each[2] for each in good], [codes for codes, _ in drawn])
        ratio -= self.variables.density([each[2] for each in bad], [codes for codes, _ in drawn])
        for index in np.argsort(-ratio, kind="stable"):
            if drawn[index][0] in self._codes:
                continue
            found = space.architecture(drawn[index][1])
            if not self.seen(found) and space.why_not(found) is None:
                return found
        with suppress(ValueError):  # no mutation leads to another legal network
            found = self.unseen(lambda: space.mutate(rng.choice(good)[3], rng))
            if not self.seen(found):  # of the samples all are known or illegal: near a good one
                return found
        return super().propose(rng)

    def _drawn(
        self, good: Sequence[Architecture], codes: Sequence[Codes], rng: Random
    ) -> list[tuple[Codes, Mapping[str, Value]]]:
        """Samples of the good density: one of its points, each part of which is redrawn with chance h."""
        widths = dict(zip(self.variables.rows, self.variables.bandwidths(np.array(codes)), strict=True))
        found: list[tuple[Codes, Mapping[str, Value]]] = []
        for _ in range(SAMPLES):
            choices = rng.choice(good).choices
            moved = {d.name: _redrawn(d, choices[d.name], widths, rng) for d in self.task.space.decisions}
            found.append((self.variables.codes(moved), moved))
        return found


class Variables:
    """The rows of a space's decisions as categorical variables.

    The categories of a row are its options, and that it is not kept where that may be.
    """

    def __init__(self, space: SearchSpace) -> None:
        self.rows = [(d.name, row) for d in space.decisions for row in range(d.rows)]
        spare = {d.name: len(d.legal) + (d.keep < d.rows) for d in space.decisions}
        self.counts = np.array([spare[name] for name, _ in self.rows])
        self._code = {
            (d.name, option): code for d in space.decisions for code, option in enumerate(d.legal, 1)
        }

    def codes(self, choices: Mapping[str, Value]) -> Codes:
        """The category of each variable; 0: not kept."""
        kept = {(name, row): option for name, value in choices.items() for row, option in value}
        return tuple(self._code[key[0], kept[key]] if key in kept else 0 for key in self.rows)

    def bandwidths(self, points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Scott's rule, 1.06 sigma n^(-1/(4+d)), as in the published implementation.

        sigma^2 is half the chance that two points differ: the variance, where there are two categories. At
        most (c - 1) / c, where the kernel is uniform.
        """
        n, d = points.shape
        same = [np.sum((np.bincount(points[:, j]) / n) ** 2) for j in range(d)]
        found = 1.06 * np.sqrt((1 - np.array(same)) / 2) * n ** (-1 / (4 + d))
        narrowed: np.ndarray[Any, Any] = np.clip(found, NARROWEST, 1 - 1 / np.maximum(self.counts, 1.01))
        return narrowed

    def density(self, points: Sequence[Codes], at: Sequence[Codes]) -> np.ndarray[Any, Any]:
        """The logarithm of the kernel density of `points`."""
        data, where = np.array(points), np.array(at)
        widths = self.bandwidths(data)
        same, other = np.log(1 - widths), np.log(widths / np.maximum(self.counts - 1, 1))
        equal = where[:, None, :] == data[None, :, :]  # samples x points x variables
        terms = np.where(equal, same, other).sum(axis=2)
        highest = terms.max(axis=1, keepdims=True)
        density: np.ndarray[Any, Any] = np.log(np.exp(terms - highest).mean(axis=1)) + highest[:, 0]
        return density


def _parted(ranked: list[Any], least: int) -> tuple[list[Any], list[Any]]:
    """The best results and the others, at least `least` each, which may overlap; at most `POINTS` each."""
    good = max(least, int(GOOD * len(ranked)))
    rest = ranked[-max(least, len(ranked) - good) :]
    return ranked[: min(good, max(least, POINTS))], rest[:: math.ceil(len(rest) / POINTS)]


def _redrawn(decision: Decision, value: Value, widths: Mapping[tuple[str, int], float], rng: Random) -> Value:
    """`value`, each of its rows drawn again with the chance of its bandwidth."""
    kept = dict(value)
    for row, _ in value:
        if rng.random() >= widths[decision.name, row]:
            continue
        del kept[row]
        free = [other for other in range(decision.rows) if other not in kept]
        kept[rng.choice(free)] = rng.choice(decision.legal)
    return tuple(sorted(kept.items()))
