"""Record: a run's folder as a report reads it. Unfinished runs and files that are missing yet are fine."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.documents import read_yaml
from nas.execution.early_stop import stopped
from nas.goal import Goal, goals_of
from nas.report.comparison import Event
from nas.run import BEST, CONFIG, ENVIRONMENT, check_run, events
from nas.search_space.architecture import Architecture
from nas.search_space.space import SearchSpace, space
from nas.usage import usage


@dataclass(frozen=True)
class Record:
    """What is in a run's folder."""

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    best: Mapping[str, Any]
    events: Sequence[Event]
    usage: Mapping[str, Any]

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds."""
        return [event for event in self.events if event["kind"] in kinds]

    @property
    def searched(self) -> bool:
        """Whether this is a search, and not the training of one network."""
        if "command" in self.config:
            return bool(self.config["command"] == "search")
        kinds = {"start", "trial", "selected", "control"}
        return bool(self.section("strategy")) or any(e["kind"] in kinds or "tables" in e for e in self.events)

    @property
    def compared(self) -> bool:
        """Whether this is a comparison of networks."""
        return bool(self.config.get("command") == "compare")

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return any(event["kind"] == "done" for event in self.events)

    @property
    def epochs(self) -> list[Event]:
        """The last report of each epoch, in order."""
        return list({int(event["step"]): event for event in self.of("epoch")}.values())

    @property
    def trials(self) -> list[Event]:
        """The last report of each trial, by number."""
        return [
            event for _, event in sorted({int(event["step"]): event for event in self.of("trial")}.items())
        ]

    @property
    def goals(self) -> tuple[Goal, ...]:
        """What the search improves, the goal that decides first."""
        return goals_of(self.config)

    def section(self, name: str) -> Mapping[str, Any]:
        """A section of the configuration; a section that is one name is ``{"name": ...}``."""
        found = self.config.get(name) or {}
        return found if isinstance(found, Mapping) else {"name": found}

    def architecture(self) -> tuple[SearchSpace, Architecture] | None:
        """The architecture found or trained, and its space; None if one of the two is not there."""
        subject = self.best or self.section("what")
        address, literal = subject.get("space"), subject.get("literal")
        if not address or not literal:
            return None
        try:
            made = space(str(address), **self.section("network"))
            return made, made.parse(str(literal))
        except ValueError:
            return None

    def phases(self) -> dict[str, float]:
        """Seconds spent in search, selection, ranking and training, as far as the run went."""
        if not self.searched:
            return {"training": self.seconds}
        looked = max((_seconds(e) for e in self.of("epoch", "start", "trial")), default=0.0)
        selected = max((_seconds(e) for e in self.of("selected")), default=looked)
        ranked = max((_seconds(e) for e in self.of("ranked", "ranking")), default=selected)
        return {
            "search": looked,
            "selection": selected - looked,
            **({"ranking": ranked - selected} if ranked > selected else {}),
            "training": max(0.0, self.seconds - ranked),
        }

    @property
    def seconds(self) -> float:
        """The run's clock at the last event."""
        return max((_seconds(event) for event in self.events), default=0.0)


def record(folder: Path) -> Record:
    """The run in `folder`. Raises ValueError if no run is there."""
    folder = Path(folder)
    check_run(folder)
    best, environment = folder / BEST, folder / ENVIRONMENT
    return Record(
        folder,
        config=read_yaml(folder / CONFIG),
        environment=json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else {},
        best=read_yaml(best) if best.is_file() else {},
        events=list(events(folder)),
        usage=usage(folder),
    )


def _seconds(event: Event) -> float:
    return float(event.get("seconds") or 0.0)


class BestSoFar:
    """Follows the trials of a search: the best value of its goal up to each.

    Args:
        goal: the first of the run's goals.
    """

    def __init__(self, goal: Goal) -> None:
        self.goal = goal
        self.curve: list[tuple[int, float, float]] = []  # (number, value, best value up to it)

    def tell(self, trial: Event) -> bool:
        """Take in a trial that may have failed; whether it is better than all before."""
        metrics = trial.get("metrics") or {}
        value = float(metrics.get(self.goal.metric, math.nan))
        if not math.isfinite(value):
            return False
        sign = -1 if self.goal.smallest else 1
        better = not self.curve or (not stopped(metrics) and sign * value > sign * self.curve[-1][2])
        self.curve.append((int(trial["step"]), value, value if better else self.curve[-1][2]))
        return better


def best_so_far(trials: Iterable[Event], goal: Goal) -> BestSoFar:
    """What `BestSoFar` has seen after all of `trials`."""
    seen = BestSoFar(goal)
    for trial in trials:
        seen.tell(trial)
    return seen
