"""Goal: a number of an evaluation's result that a search improves, and which way is better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

COSTS = ("params", "macs", "flops", "latency", "energy", "loss", "error", "seconds", "memory")


@dataclass(frozen=True)
class Goal:
    """Improve `metric`: the largest value is best, or the smallest."""

    metric: str
    smallest: bool = False

    @classmethod
    def parse(cls, text: str) -> Goal:
        """``NAME``, ``NAME:max`` or ``NAME:min``.

        Without a direction small is better for costs (parameters, latency, losses ...), large for all else.
        Raises ValueError for another direction.
        """
        metric, colon, direction = str(text).strip().rpartition(":")
        if direction and not colon:
            metric = direction
            return cls(metric, any(cost in metric.lower() for cost in COSTS))
        if not metric or direction not in ("min", "max"):
            raise ValueError(f"objective {text!r} is not NAME, NAME:max or NAME:min, as in latency_ms:min")
        return cls(metric, direction == "min")

    def __str__(self) -> str:
        return f"{self.metric}:{'min' if self.smallest else 'max'}"

    def score(self, result: Mapping[str, float]) -> float:
        """The metric, larger is better. Raises KeyError if the result lacks it."""
        return -result[self.metric] if self.smallest else result[self.metric]


ACCURACY = Goal("valid_accuracy")


def goals_from(texts: Iterable[str]) -> tuple[Goal, ...]:
    """A goal of each text. Raises ValueError if one is none, or two are of one metric."""
    found: dict[str, Goal] = {}
    for goal in map(Goal.parse, texts):
        if goal.metric in found:
            raise ValueError(f"objective {goal.metric!r} is named twice: name each metric once")
        found[goal.metric] = goal
    return tuple(found.values())


def goals_of(config: Mapping[str, Any]) -> tuple[Goal, ...]:
    """The goals of a search's configuration; validation accuracy where it says nothing."""
    section = config.get("search") or {}
    return goals_from(section.get("objective") or (str(ACCURACY),))
