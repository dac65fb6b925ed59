"""RunFront: the front of a search with several goals, as its ledger gives it and front.yaml holds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.execution.early_stop import stopped
from nas.goal import Goal
from nas.pareto import Front, Scores
from nas.run import dump, replace

FRONT = "front.yaml"
Event = Mapping[str, Any]


class LedgerFront(Front[Event]):
    """The front of the trials of a ledger.

    Args:
        goals: what the run improves.
    """

    def __init__(self, goals: Sequence[Goal]) -> None:
        super().__init__()
        self.goals = tuple(goals)

    def tell(self, event: Event) -> bool:
        """Take in a line of the ledger; whether the front changed. Only trials with a result count."""
        metrics = event.get("metrics") or {}
        if event["kind"] != "trial" or "error" in event or stopped(metrics):
            return False
        values = [metrics.get(goal.metric, math.nan) for goal in self.goals]
        if not all(map(math.isfinite, values)):
            return False
        scores = tuple(goal.score(metrics) for goal in self.goals)
        return self.add(scores, event, level=event.get("epochs") or 0)

    def read(self, events: Iterable[Event]) -> None:
        """Take in lines of the ledger."""
        for event in events:
            self.tell(event)

    def values(self, scores: Scores) -> tuple[float, ...]:
        """Scores as the metrics that they are of."""
        return tuple(-x if goal.smallest else x for goal, x in zip(self.goals, scores, strict=True))

    @property
    def reference(self) -> dict[str, float]:
        """The reference point of the hypervolume: the worst of each goal that a trial had."""
        return dict(zip((g.metric for g in self.goals), self.values(self.worst), strict=False))


class RunFront(LedgerFront):
    """The same with what front.yaml says of each member.

    Args:
        describe: a trial's line of the ledger -> literal, digest, params, macs, metrics.
    """

    def __init__(self, goals: Sequence[Goal], describe: Callable[[Event], dict[str, Any]]) -> None:
        super().__init__(goals)
        self.describe = describe
        self._described: dict[int, dict[str, Any]] = {}

    @property
    def several(self) -> bool:
        """Whether there is a front at all: with one goal there is a best."""
        return len(self.goals) > 1

    def entries(self) -> list[dict[str, Any]]:
        """The members, by the first goal from the best on."""
        steps = [event["step"] for _, event in self.members]
        known = self._described
        self._described = {
            step: known.get(step) or self.describe(event)
            for step, (_, event) in zip(steps, self.members, strict=True)
        }
        return list(self._described.values())

    def save(self, folder: Path) -> None:
        """Replace front.yaml, if there is a front."""
        if self.several and self.members:
            replace(folder / FRONT, dump(self.entries()))

    def to_dict(self) -> dict[str, Any]:
        """The part of the result's document; empty with one goal."""
        if not self.several:
            return {}
        return {"front": self.entries(), "hypervolume": self.hypervolume, "reference": self.reference}
