"""Progress for people, on stderr: a line an epoch or trial, with rate and time left; a live bar on a
terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nas.cli.errors import patient, stop_if_interrupted, stopping
from nas.correlation import SHARED, told
from nas.goal import Goal
from nas.loop import Watcher
from nas.report.ranking import alone

CROWDED = 30.0  # seconds between two lines about the workers
SHOWN = {  # in a line of progress: metric -> label, factor, unit
    "train_loss": ("loss", 1, ""),
    "train_accuracy": ("train", 100, " %"),
    "valid_accuracy": ("valid", 100, " %"),
    "derived_accuracy": ("derived", 100, " %"),
    "alpha_entropy": ("entropy of alpha", 1, ""),
}


class Show(Watcher):
    """Shows a run as it goes."""

    def __init__(
        self, *, quiet: bool, goals: Sequence[Goal] = (), account: Callable[[float], str] = lambda seconds: ""
    ) -> None:
        self.goals, self.account = goals, account
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        if not quiet and sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.start()
        self.name, self.done, self.started = "", 0, time.monotonic()
        self.total: int | None = None
        self.first = 0  # steps done by an earlier process
        self._task: Any = None
        self._crowded = 0.0  # when the workers were last told about

    def __enter__(self) -> Show:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def stage(self, text: str, total: int | None = None, done: int = 0) -> None:
        self.name, self.total, self.done, self.started = text, total, done, time.monotonic()
        self.first = done
        if done:
            self.console.print(f"going on after {done} of {total or '?'}")
        if text == "controls":
            self.console.print(
                f"\ntraining {total} networks under one recipe: found, random and hand-designed ones"
            )
        if text == "ranking":
            self.console.print(f"\nranking: {total} random networks, each alone and in the supernet")
        if self.bar is not None:
            if self._task is not None:
                self.bar.remove_task(self._task)
            self._task = self.bar.add_task(text, total=float(total) if total else None, completed=done)

    def stopping(self) -> bool:
        return stopping()

    def patient(self) -> AbstractContextManager[None]:
        return patient()

    def note(self, text: str) -> None:
        self.console.print(f"  {text}", style="dim", markup=False)

    def tick(self, done: int, total: int) -> None:
        stop_if_interrupted()
        if self.bar is not None and self._task is not None:
            self.bar.update(self._task, completed=self.done + done / total)

    def event(self, event: Mapping[str, Any]) -> None:
        stop_if_interrupted()
        kind = event["kind"]
        if kind in ("epoch", "trial", "ranked"):
            self.done += 1
            if self.bar is not None and self._task is not None:
                self.bar.update(self._task, completed=self.done)
            if kind == "trial" or self.name == "search" or self.name.startswith("train "):
                self.console.print(self._line(event))
                self._crowd(event)
            elif kind == "ranked":
                self.console.print(f"  {self.done} of {self.total}: {self._pair(event)}")
        elif kind == "inherited":
            score = 100 * event["metrics"]["valid_accuracy"]
            self.console.print(f"begins with the supernet's weights: {score:.2f} % on its validation part\n")
        elif kind == "selected":
            self.console.print(f"\nfound {event['literal']}")
        elif kind == "ranking":
            self.console.print(told(event))
        elif kind == "control":
            score = 100 * event["metrics"]["test_accuracy"]
            self.console.print(
                f"  {event['name']:<20} {_millions(event['params']):>7} parameters  test {score:.2f} %"
            )

    def _crowd(self, event: Mapping[str, Any]) -> None:
        """From time to time, what the workers do."""
        now = time.monotonic()
        if not event.get("worker") or now - self._crowded < CROWDED:
            return
        self._crowded = now
        facts = dict(event["worker"])
        rate = 60 * (self.done - self.first) / max(1e-9, now - self.started)
        used = self.account(event["seconds"])
        gpus = f", {facts['gpus']:g} GPUs in use" if "gpus" in facts else ""
        self.console.print(
            f"  {facts['workers']} workers, {facts['running']} running, {facts['queued']} waiting{gpus}; "
            f"{facts['done']} done, {facts['failed']} failed, {facts['retried']} begun again; "
            f"{rate:.1f} trials a minute" + (f"; {used}" if used else "")
        )

    def _pair(self, event: Mapping[str, Any]) -> str:
        """What a random network reaches in the supernet and alone."""
        if "error" in event:
            return str(event["error"])
        metric, metrics = alone(event), event["metrics"]
        own = f"{metric.replace('_', ' ')} {_figure(metric, metrics[metric])}"
        return f"{100 * metrics[SHARED]:.1f} % in the supernet, alone {own}"

    def _line(self, event: Mapping[str, Any]) -> str:
        metrics = event.get("metrics", {})
        shown = [
            f"{event['kind']} {event['step'] + (event['kind'] == 'trial')}"
            + (f"/{self.total}" if self.total else "")
        ]
        if "error" in event:
            shown.append(event["error"])
        for name, (label, factor, unit) in SHOWN.items():
            if name in metrics:
                shown.append(f"{label} {factor * metrics[name]:.{1 if unit else 3}f}{unit}")
        shown += [
            f"{goal.metric.replace('_', ' ')} {_figure(goal.metric, metrics[goal.metric])}"
            for goal in self.goals
            if goal.metric in metrics and goal.metric not in SHOWN and event["kind"] == "trial"
        ]
        if "stopped_at" in metrics:
            shown.append(f"stopped after epoch {metrics['stopped_at']}")
        if event.get("replayed"):
            shown.append("known already")
        rate = (time.monotonic() - self.started) / max(1, self.done - self.first)
        if rate > 0.01:
            left = (
                f", {_clock(rate * (self.total - self.done))} left"
                if self.total and self.done < self.total
                else ""
            )
            shown.append(f"{rate:.1f} s each{left}")
        return "  ".join(shown)


class ShowNetworks(Show):
    """Shows a comparison: a line a training, with the time that is left."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.planned = self.trained = 0
        self.before, self.begun = 0, time.monotonic()

    def stage(self, text: str, total: int | None = None, done: int = 0) -> None:
        super().stage(text, total, done)
        if text == "networks":
            self.planned, self.trained, self.before = total or 0, done, done

    def event(self, event: Mapping[str, Any]) -> None:
        super().event(event)
        if event["kind"] != "network":
            return
        self.trained += 1
        metrics = event.get("metrics")
        told = f"test {100 * metrics['test_accuracy']:.2f} %" if metrics else f"failed: {event['error']}"
        spent = (time.monotonic() - self.begun) / (self.trained - self.before)
        left = (
            f", {_clock(spent * (self.planned - self.trained))} left" if self.trained < self.planned else ""
        )
        name = f"{event['name']}-{event['seed']}"
        self.console.print(f"  {name:<24} {told}  ({self.trained} of {self.planned}{left})")


class ShowSeeds(Show):
    """Shows searches with several seeds: each as it goes, or a line when it has ended on a worker."""

    def event(self, event: Mapping[str, Any]) -> None:
        super().event(event)
        if event["kind"] == "search":
            result = event["result"]
            scores = {name: v for name, v in result["metrics"].items() if name.endswith("valid_accuracy")}
            scores |= {f"{group} (test)": each["mean"] for group, each in result["controls"].items()}
            told = [f"{name.replace('_', ' ')} {100 * value:.1f} %" for name, value in scores.items()]
            self.console.print(f"  seed {event['seed']}: {result['best']}  {', '.join(told)}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _figure(metric: str, value: float) -> str:
    """A goal's value: a share in percent, a count with its unit, anything else with four digits."""
    if "accuracy" in metric and 0 <= value <= 1:
        return f"{100 * value:.1f} %"
    return _millions(int(value)) if value >= 1e4 else f"{value:.4g}"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"
