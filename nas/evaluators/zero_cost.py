"""Zero-cost proxies as an evaluator: a candidate's score without training it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Annotated

from pydantic import AfterValidator, Field

from nas.counting import cost
from nas.data.batches import Examples
from nas.evaluators.proxies import PROXIES
from nas.evaluators.proxies.batch import drawn
from nas.evaluators.scratch import EVALUATORS
from nas.execution import Result, Trial
from nas.network import Network
from nas.recipe import Recipe
from nas.registry import absolute, label
from nas.search_space import SearchSpace
from nas.seeding import derive, randomness

SIZES = ("params", "macs")  # always there


def _there(address: str) -> str:
    """The address of a proxy, made whole. Raises ValueError if there is none."""
    PROXIES.resolve(address)
    return absolute(address)


@EVALUATORS.register("zero_cost", metrics=(*SIZES, *(name for name in PROXIES if name not in SIZES)))
@dataclass(frozen=True)
class ZeroCost:
    """Scores untrained candidates by zero-cost proxies: the mean over fresh weights, on training images

    Every candidate sees the same images. One whose score is not finite has failed.

    Args:
        proxies: the metrics of a result, beside parameters and multiply-adds.
        batch: images that a proxy looks at.
        repeats: networks a candidate, each with weights and images of its own.
    """

    space: SearchSpace
    examples: Examples
    recipe: Recipe
    device: str = "cpu"
    proxies: tuple[Annotated[str, AfterValidator(_there)], ...] = ("synflow", "naswot")
    batch: Annotated[int, Field(ge=2)] = 64
    repeats: Annotated[int, Field(ge=1)] = 1

    def __call__(self, trial: Trial, *, seed: int) -> Result:
        graph = self.space.fill(trial.architecture)
        figures = cost(graph)
        scores: dict[str, list[float]] = {}
        for repeat in range(self.repeats):
            with randomness(seed, "network", repeat):
                network = Network(graph).to(self.device)
            images, labels = drawn(self.examples, batch=self.batch, number=repeat, device=self.device)
            for name in self.proxies:
                score = PROXIES.resolve(name)(network, images, labels, seed=derive(seed, "proxy", repeat))
                scores.setdefault(label(name), []).append(score)
        found = {name: fmean(values) for name, values in scores.items()}
        for name, value in found.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value}: the images hardly reach the network's output")
        return {**found, "params": figures.params, "macs": figures.macs}
