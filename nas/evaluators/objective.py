"""A function of one's own as an evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from nas.execution import Result, Trial
from nas.search_space import Architecture


@dataclass(frozen=True)
class Objective:
    """A function of an architecture as an evaluator: the first goal's metric, or metrics by name."""

    function: Callable[[Architecture], float | Mapping[str, float]]
    metric: str

    def __call__(self, trial: Trial, *, seed: int) -> Result:
        found = self.function(trial.architecture)
        metrics = found if isinstance(found, Mapping) else {self.metric: found}
        return {name: float(value) for name, value in metrics.items()}
