"""Strategy, OneShot, Report, Task: how a search is written and what it talks about.

A strategy is a lazy stream of reports. `search()` pulls them one by one, logs each before it asks for the
next, and may stop between any two. The order of calls is: the constructor with the configuration's arguments;
`resume` with what an earlier stream reported, perhaps nothing; `reports(task)`; then, at any time between two
reports, `best()` and, for one-shot strategies, `state()`. A strategy never writes files, starts processes or
knows about runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nas.execution import Executor
from nas.execution.early_stop import Rule
from nas.goal import ACCURACY, Goal
from nas.registry import Registry
from nas.search_space import Architecture, SearchSpace

if TYPE_CHECKING:
    from random import Random

    import torch

    from nas.data.batches import Examples
    from nas.group import Group

STRATEGIES: Registry[type[Strategy]] = Registry("strategy")


@dataclass(frozen=True)
class Report:
    """One thing that happened. Kinds: ``start`` (a trial is about to be evaluated), ``trial``, ``epoch``;
    ``finished`` (a trial's result, where the search is stopped before it is its turn to be told).

    `step` is the trial's number, or the number of epochs done. `tables` are the mixing weights by decision.
    `network`: what the architecture's results are known by (`AskTell.identity`). `accuracies`: of a trial,
    after each epoch, where they were measured (`nas.execution.early_stop`).
    """

    kind: str
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    architecture: Architecture | None = None
    epochs: int | None = None
    tables: Mapping[str, list[list[float]]] | None = None
    replayed: bool = False
    error: str | None = None
    network: str | None = None
    accuracies: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Task:
    """What a search works on.

    `epochs` is the horizon of a one-shot search, `trials` the evaluations a black-box search may start; None:
    no limit. `goals`: what is improved, the first one decides where there can be only one best. `lag`: ask(n)
    sees the results of trials 0 .. n-1-lag. `replay`: a proposal of a network that is known gets its result
    again and costs no evaluation; without it every proposal is evaluated, and only equal literals are equal.
    `early_stop`: the rule by which hopeless trials stop.
    `examples` is None where there are no data, `executor` is there for black-box strategies. `tick(done,
    total)` may be called within an epoch, for a progress bar. `stopping`: whether to end when what is being
    evaluated has ended. `group`: the processes that train a supernet with this one, if there are others.
    """

    space: SearchSpace
    seed: int = 0
    epochs: int | None = None
    trials: int | None = None
    goals: tuple[Goal, ...] = (ACCURACY,)
    lag: int = 0
    ordered: bool = True
    replay: bool = True
    early_stop: Rule = "none"
    device: torch.device | str = "cpu"
    examples: Examples | None = None
    executor: Executor | None = None
    tick: Callable[[int, int], None] | None = None
    stopping: Callable[[], bool] = lambda: False
    group: Group | None = None


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
        """Begin, or take up a search that was cut off: what it reported, and its last `state()`."""


class OneShot(Strategy):
    """A strategy that owns a supernet and trains it, epoch by epoch.

    A subclass writes `prepare`, `train_epoch`, `tables`, `best`, `score`, `state` and `load`, and where its
    weights fit single networks, `inherited`. It may end itself: then there is no further epoch, and the
    architecture in `ended` is the result.
    """

    epochs: int
    task: Task

    def __init__(self) -> None:
        self.epoch = 0
        self.ended: Architecture | None = None
        self._saved: dict[str, Any] | None = None
        self.peak: int | None = None  # bytes of memory, where another process trains

    def check(self, space: SearchSpace) -> None:
        if space.recipe:
            raise ValueError(
                f"{', '.join(space.recipe)} cannot be chosen here: a supernet is trained with one recipe for "
                "all. Search with a strategy that trains architectures, as --strategy random does, or take "
                f"{space.name.partition('?')[0]!r} without settings of the recipe"
            )

    @abstractmethod
    def prepare(self, task: Task) -> None:
        """Build the supernet and the optimizers for this task."""

    @abstractmethod
    def train_epoch(self, number: int) -> dict[str, float]:
        """Train for one epoch, the `number`-th from 0; its metrics. Randomness is keyed by the number."""

    @abstractmethod
    def tables(self) -> dict[str, list[list[float]]]:
        """The mixing weights by decision (rows x options)."""

    def forget(self) -> None:
        """Before each epoch: what would be other bits in a process that begins with this epoch."""

    def random(self, rng: Random) -> Architecture:
        """A random architecture whose weights the supernet trains."""
        return self.task.space.sample(rng)

    @abstractmethod
    def score(self, architecture: Architecture) -> float:
        """The accuracy of an architecture on the validation part, 0..1, with the weights of the supernet."""

    def inherited(self, architecture: Architecture) -> tuple[SearchSpace, dict[str, torch.Tensor]]:
        """The weights that the supernet leaves to a network, and the space, at its scale, whose they are.

        They are tensors by name, of a `Network` with the arguments in `SearchSpace.supernet`. Raises
        ValueError if no network can have them.
        """
        raise ValueError("this strategy leaves no weights to a network")

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Tensors and numbers with which `load` goes on to the same bits; readable with weights_only=True."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""

    def resume(self, task: Task, past: Iterable[Report], state: dict[str, Any] | None) -> None:
        self._saved = state

    def begin(self, task: Task) -> None:
        """Build everything, as it was when the search was cut off."""
        self.task = task
        self.horizon = task.epochs if task.epochs is not None else self.epochs
        self.prepare(task)
        if self._saved is not None:
            self.load(self._saved)
            self.epoch = self._saved["epoch"]

    def reports(self, task: Task) -> Iterator[Report]:
        self.begin(task)
        while self.epoch < self.horizon and self.ended is None:
            self.forget()
            metrics = self.train_epoch(self.epoch)
            self.epoch += 1
            yield Report("epoch", self.epoch, metrics, self.ended or self.best(), tables=self.tables())


def has_supernet(name: str) -> bool:
    """Whether a strategy trains a supernet, rather than evaluates architectures."""
    found = STRATEGIES.resolve(name)
    return isinstance(found, type) and issubclass(found, OneShot)
