"""Strategy, AskTell, OneShot, Trial, Report, Task: how a search is written and what it talks about.

A strategy is a lazy stream of reports. `search()` pulls them one by one, logs each before it asks for the
next, and may stop between any two. The order of calls is: the constructor with the configuration's arguments;
`resume` if an earlier stream was cut off; `reports(task)`; then, at any time between two reports, `best()`
and, for one-shot strategies, `state()`. A strategy never writes files, starts processes or knows about runs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas.execution import Executor, Result, Trial
from nas.registry import Registry
from nas.run import RunFailed
from nas.search_space import Architecture, SearchSpace

if TYPE_CHECKING:
    import torch

    from nas.data.batches import Examples

STRATEGIES: Registry[type[Strategy]] = Registry("strategy")
REPLAYS_IN_A_ROW = 100  # so many proposals of known architectures in a row mean that the space is exhausted


@dataclass(frozen=True)
class Report:
    """One thing that happened. Kinds: ``start`` (a trial is about to be evaluated), ``trial``, ``epoch``.

    `step` is the trial's number, or the number of epochs done. `tables` are the mixing weights by decision.
    """

    kind: str
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    architecture: Architecture | None = None
    epochs: int | None = None
    tables: Mapping[str, list[list[float]]] | None = None
    replayed: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Task:
    """What a search works on.

    `epochs` is the horizon of a one-shot search, `trials` the evaluations a black-box search may start; None:
    no limit. `lag`: ask(n) sees the results of trials 0 .. n-1-lag. `examples` is there for one-shot
    strategies, `executor` for black-box ones. `tick(done, total)` may be called within an epoch, for a
    progress bar.
    """

    space: SearchSpace
    seed: int = 0
    epochs: int | None = None
    trials: int | None = None
    lag: int = 0
    ordered: bool = True
    device: torch.device | str = "cpu"
    examples: Examples | None = None
    executor: Executor | None = None
    tick: Callable[[int, int], None] | None = None


class Strategy(ABC):
    """Chooses architectures."""

    def check(self, space: SearchSpace) -> None:
        """Raises ValueError, before anything is begun, if this strategy cannot search `space`."""
        return

    @abstractmethod
    def reports(self, task: Task) -> Iterator[Report]:
        """The search, lazily."""

    @abstractmethod
    def best(self) -> Architecture:
        """The best architecture so far. Raises RunFailed if there is none."""

    @abstractmethod
    def resume(self, task: Task, past: Iterable[Report], state: dict[str, Any] | None) -> None:
        """Take up a search that was cut off: what it reported, and the last `state()` that was saved."""


class AskTell(Strategy):
    """A black-box strategy: proposes architectures and learns their results.

    A subclass writes `ask`, which changes nothing and draws its randomness from `self.task.seed` and the
    number, and may extend `tell`. Results are told in the order of numbers.
    """

    objective = "valid_accuracy"

    def __init__(self) -> None:
        self.told: list[tuple[Trial, Result | None]] = []
        self._known: dict[tuple[str, int | None], Result] = {}
        self._networks: dict[str, str] = {}  # an architecture's digest -> its network's
        self._seen: set[str] = set()
        self._best: tuple[float, Architecture] | None = None
        self.replays: set[int] = set()  # numbers of the trials that repeat a known result
        self._in_a_row = 0  # of the last proposals, those that repeat a known result
        self._left: list[Trial] = []
        self._left_known: dict[int, Result | Exception] = {}
        self.task: Task

    @property
    def exhausted(self) -> bool:
        """Whether so many proposals in a row were known that there seems to be nothing else."""
        return self._in_a_row >= REPLAYS_IN_A_ROW

    @abstractmethod
    def ask(self, number: int) -> Trial:
        """The trial of that number, given what was told so far."""

    def tell(self, trial: Trial, result: Result | None) -> None:
        """The result of a trial; None if its evaluation failed."""
        self.told.append((trial, result))
        if result is None:
            return
        network = self._network(trial.architecture)
        self._known[network, trial.epochs] = result
        self._seen.add(network)
        value = result[self.objective]
        if self._best is None or value > self._best[0]:
            self._best = (value, trial.architecture)

    def seen(self, architecture: Architecture) -> bool:
        """Whether the same network, up to isomorphism, has a result already."""
        return self._network(architecture) in self._seen

    def _network(self, architecture: Architecture) -> str:
        found = self._networks.get(architecture.digest)
        if found is None:
            found = self._networks[architecture.digest] = self.task.space.network_digest(architecture)
        return found

    def best(self) -> Architecture:
        if self._best is None:
            failed = f"; all {len(self.told)} failed" if self.told else ""
            raise RunFailed(f"no trial has a result{failed}")
        return self._best[1]

    def resume(self, task: Task, past: Iterable[Report], state: dict[str, Any] | None) -> None:
        self.task = task
        started: OrderedDict[int, Trial] = OrderedDict()
        for report in past:
            assert report.architecture is not None
            if report.kind == "start":
                trial = Trial(report.step, report.architecture, report.epochs)
                started[report.step] = trial
                known = self._asked(trial)
                if known is not None:
                    self._left_known[report.step] = known
            elif report.kind == "trial":
                trial = started.pop(report.step, Trial(report.step, report.architecture, report.epochs))
                self._left_known.pop(report.step, None)
                self.tell(trial, None if report.error else report.metrics)
                if report.replayed:
                    self.replays.add(report.step)
        self._left = list(started.values())

    def _asked(self, trial: Trial) -> Result | None:
        """Count a proposal; the result that it repeats, if there is one."""
        known = self._known.get((self._network(trial.architecture), trial.epochs))
        self._in_a_row = 0 if known is None else self._in_a_row + 1
        if known is not None:
            self.replays.add(trial.number)
        return known

    def reports(self, task: Task) -> Iterator[Report]:
        assert task.executor is not None
        self.task = task
        waiting = OrderedDict((trial.number, trial) for trial in self._left)  # asked, not told, in order
        number = len(self.told) + len(waiting)
        finished = dict(self._left_known)
        for trial in waiting.values():
            if trial.number not in finished:
                task.executor.submit(trial)
        while not self.exhausted:
            while waiting and len(waiting) > task.lag:
                yield self._next(task, waiting, finished)
            if task.trials is not None and number - len(self.replays) >= task.trials:
                break
            trial = self.ask(number)
            known = self._asked(trial)
            number += 1
            yield Report("start", trial.number, architecture=trial.architecture, epochs=trial.epochs)
            waiting[trial.number] = trial
            if known is not None:
                finished[trial.number] = known
            else:
                task.executor.submit(trial)
        while waiting:
            yield self._next(task, waiting, finished)

    def _next(
        self, task: Task, waiting: OrderedDict[int, Trial], finished: dict[int, Result | Exception]
    ) -> Report:
        """Wait for one result and tell it: the lowest number if ordered, else whichever is there first."""
        assert task.executor is not None
        lowest = next(iter(waiting))
        while lowest not in finished and (task.ordered or not finished):
            done, outcome = next(task.executor.completed())
            finished[done.number] = outcome
        number = lowest if task.ordered else next(iter(finished))
        outcome, trial = finished.pop(number), waiting.pop(number)
        error = _why_unusable(outcome, self.objective)
        result = None if error or isinstance(outcome, Exception) else outcome
        self.tell(trial, result)
        return Report(
            "trial",
            trial.number,
            result or {},
            trial.architecture,
            epochs=trial.epochs,
            replayed=number in self.replays,
            error=error,
        )


def _why_unusable(outcome: Result | Exception, objective: str) -> str | None:
    """Why an evaluation gives no result, or None."""
    if isinstance(outcome, Exception):
        return f"{type(outcome).__name__}: {outcome}"
    if objective not in outcome:
        return f"the result has no {objective!r}, only {sorted(outcome)}"
    return None if math.isfinite(outcome[objective]) else f"{objective} is {outcome[objective]}"


class OneShot(Strategy):
    """A strategy that owns a supernet and trains it, epoch by epoch.

    A subclass writes `prepare`, `train_epoch`, `best`, `state` and `load`.
    """

    epochs: int

    def __init__(self) -> None:
        self.epoch = 0
        self._saved: dict[str, Any] | None = None

    @abstractmethod
    def prepare(self, task: Task) -> None:
        """Build the supernet and the optimizers for this task."""

    @abstractmethod
    def train_epoch(self, number: int) -> dict[str, float]:
        """Train for one epoch, the `number`-th from 0; its metrics. Randomness is keyed by the number."""

    @abstractmethod
    def tables(self) -> dict[str, list[list[float]]]:
        """The mixing weights by decision (rows x options)."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Tensors and numbers with which `load` goes on to the same bits; readable with weights_only=True."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""

    def resume(self, task: Task, past: Iterable[Report], state: dict[str, Any] | None) -> None:
        self._saved = state

    def reports(self, task: Task) -> Iterator[Report]:
        self.horizon = task.epochs if task.epochs is not None else self.epochs
        self.prepare(task)
        if self._saved is not None:
            self.load(self._saved)
            self.epoch = self._saved["epoch"]
        while self.epoch < self.horizon:
            metrics = self.train_epoch(self.epoch)
            self.epoch += 1
            yield Report("epoch", self.epoch, metrics, self.best(), tables=self.tables())
