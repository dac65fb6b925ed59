"""AskTell: strategies that propose architectures and learn their results, one trial after the other."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

from nas.execution import Result, Trial
from nas.execution.early_stop import Medians, parted, stopped
from nas.goal import Goal
from nas.graph import Value
from nas.pareto import Front
from nas.run import RunFailed
from nas.search_space import Architecture
from nas.strategies.strategy import Report, Strategy, Task

REPEATS = 100  # so many proposals in a row of what was proposed before mean that the space is exhausted
ATTEMPTS = 100  # draws for an architecture that was not seen, before a known one is accepted
CHECKED = 40  # candidates, the preferred first, that are looked at for one that is legal and new
Choices = Mapping[str, Value]
Outcome = Result | Exception | str  # of an evaluation; a failure that is known already is told as text


class AskTell(Strategy):
    """A black-box strategy: proposes architectures and learns their results.

    A subclass writes `ask`, which changes nothing and draws its randomness from `self.task.seed` and the
    number; it may extend `begin`, called once before everything else, and `tell`. Results are told in the
    order of numbers, so that a search that was cut off is taken up by telling them again.
    """

    def __init__(self) -> None:
        self.told: list[tuple[Trial, Result | None]] = []
        self.replays: set[int] = set()  # numbers of the trials that repeat a known result
        self.pending: OrderedDict[int, Trial] = OrderedDict()  # asked, not told
        self.exhausted = False  # whether there seems to be nothing else to propose
        self._known: dict[tuple[str, int | None], Result | str] = {}  # or why there is none
        self._tried: set[tuple[str, int | None]] = set()
        self._networks: dict[str, str] = {}  # an architecture's digest -> its result's
        self._seen: set[str] = set()
        self._best: tuple[int, float, Trial] | None = None
        self._medians = Medians()
        self._in_a_row = 0  # of the last proposals, those that repeat an earlier one
        self._left_known: dict[int, Outcome] = {}
        self.task: Task

    def begin(self) -> None:
        """Make ready for `self.task`, before anything is told or asked."""

    @abstractmethod
    def ask(self, number: int) -> Trial | None:
        """The trial of that number, given what was told so far; None if there is nothing left to propose."""

    def tell(self, trial: Trial, result: Result | None) -> None:
        """The result of a trial; None if its evaluation failed."""
        self.told.append((trial, result))
        if result is None:
            return
        place = (trial.epochs or 0, self.score(result))
        if not stopped(result) and (self._best is None or place > self._best[:2]):
            self._best = (*place, trial)

    # --- what subclasses ask ---

    def score(self, result: Result) -> float:
        """The first goal, larger is better."""
        return self.task.goals[0].score(result)

    def scores(self, result: Result) -> tuple[float, ...]:
        """All goals, larger is better."""
        return tuple(goal.score(result) for goal in self.task.goals)

    def fresh(self, rng: Random) -> Architecture:
        """A random architecture that was not proposed before, if there seems to be one."""
        return self.unseen(lambda: self.task.space.sample(rng))

    def unseen(self, draw: Callable[[], Architecture]) -> Architecture:
        """The first of `ATTEMPTS` draws that was not proposed before; if all were, the last."""
        for _ in range(ATTEMPTS):
            drawn = draw()
            if not self.seen(drawn):
                break
        return drawn

    def first_new(self, candidates: Iterable[Choices]) -> Architecture | None:
        """The first of the candidates that is legal and not seen; None if none of the first ones is."""
        space = self.task.space
        made = (space.architecture(choices) for choices in islice(candidates, CHECKED))
        return next((each for each in made if space.why_not(each) is None and not self.seen(each)), None)

    def seen(self, architecture: Architecture) -> bool:
        """Whether the same network was proposed already; never so for choices that are no network."""
        try:
            return self.identity(architecture) in self._seen
        except ValueError:
            return False

    def identity(self, architecture: Architecture) -> str:
        """Equal for architectures whose results are the same: `SearchSpace.result_digest`, or literals."""
        if not self.task.replay:
            return architecture.literal
        found = self._networks.get(architecture.digest)
        if found is None:
            found = self._networks[architecture.digest] = self.task.space.result_digest(architecture)
        return found

    def best(self) -> Architecture:
        if self._best is None:
            failed = f"; all {len(self.told)} failed" if self.told else ""
            raise RunFailed(f"no trial has a result{failed}")
        return self._best[2].architecture

    @property
    def best_trial(self) -> Trial | None:
        """The trial with the best result, among those of the most epochs."""
        return self._best[2] if self._best else None

    def front(self) -> list[tuple[Trial, Result]]:
        """The trials of the most epochs that no other one dominates, by the first goal from the best on."""
        found: Front[tuple[Trial, Result]] = Front()
        for trial, result in self.told:
            if result is not None and not stopped(result):
                found.add(self.scores(result), (trial, result), level=trial.epochs or 0)
        return [member for _, member in found.members]

    # --- the loop's side ---

    def resume(self, task: Task, past: Iterable[Report], state: dict[str, Any] | None) -> None:
        self.task = task
        self.begin()
        for report in past:
            assert report.architecture is not None
            if report.kind == "start":
                if report.network is not None:
                    self._networks[report.architecture.digest] = report.network
                trial = Trial(report.step, report.architecture, report.epochs)
                known = self._asked(trial)
                if known is not None:
                    self._left_known[report.step] = known
            elif report.kind == "finished":
                self._left_known[report.step] = report.error or report.metrics
            elif report.kind == "trial":
                self._left_known.pop(report.step, None)
                trial = self.pending.pop(report.step)
                self._conclude(trial, report.metrics, report.error, report.accuracies or ())

    def _conclude(self, trial: Trial, result: Result, error: str | None, accuracies: Sequence[float]) -> None:
        """Enter what came of a trial."""
        self._medians.tell(trial.epochs, accuracies)
        self._known[self.identity(trial.architecture), trial.epochs] = error or result
        self.tell(trial, None if error else result)

    def _asked(self, trial: Trial) -> Result | str | None:
        """Enter a proposal; the result that it repeats, or why that failed, if there is one."""
        identity = self.identity(trial.architecture)
        key = identity, trial.epochs
        known = self._known.get(key) if self.task.replay else None
        self._in_a_row = self._in_a_row + 1 if self.task.replay and key in self._tried else 0
        self._tried.add(key)
        self.exhausted = self._in_a_row >= REPEATS
        if known is not None:
            self.replays.add(trial.number)
        self._seen.add(identity)
        hurdles = self._medians.hurdles(trial.epochs) if self.task.early_stop == "median" else ()
        self.pending[trial.number] = replace(trial, hurdles=hurdles)
        return known

    def begin_trial(self, number: int) -> tuple[Report, Result | str | None] | None:
        """Ask for the trial of that number, which is pending from now on.

        The report of its start, and the result that it repeats, or why that failed, if there is one. None if
        there is nothing left to propose.
        """
        asked = self.ask(number)
        if asked is None:
            return None
        known = self._asked(asked)
        network = self.identity(asked.architecture) if self.task.replay else None
        report = Report(
            "start", asked.number, architecture=asked.architecture, epochs=asked.epochs, network=network
        )
        return report, known

    def end_trial(self, number: int, outcome: Outcome) -> Report:
        """Tell what came of a pending trial; the report of it."""
        trial = self.pending.pop(number)
        error = _why_unusable(outcome, self.task.goals)
        result, accuracies = parted({} if error or isinstance(outcome, Exception | str) else outcome)
        self._conclude(trial, result, error, accuracies)
        return Report(
            "trial",
            trial.number,
            result,
            trial.architecture,
            epochs=trial.epochs,
            replayed=number in self.replays,
            error=error,
            accuracies=accuracies or None,
        )

    def reports(self, task: Task) -> Iterator[Report]:
        assert task.executor is not None
        number = len(self.told) + len(self.pending)
        finished: dict[int, Outcome] = dict(self._left_known)
        for trial in self.pending.values():
            if trial.number not in finished:
                task.executor.submit(trial)
        while not self.exhausted:
            yield from self._tell(task, finished, most=task.lag)
            if task.stopping() or (task.trials is not None and number - len(self.replays) >= task.trials):
                break
            started = self.begin_trial(number)
            if started is None:
                self.exhausted = True
                break
            report, known = started
            number += 1
            yield report
            if known is not None:
                finished[report.step] = known
            else:
                task.executor.submit(self.pending[report.step])
        yield from self._tell(task, finished, most=0)
        if task.stopping():
            yield from self._keep(task, finished)

    def _tell(self, task: Task, finished: dict[int, Outcome], *, most: int) -> Iterator[Report]:
        """Tell results until at most so many trials are pending: the lowest number if ordered, else whichever
        is there first.
        """
        assert task.executor is not None
        while len(self.pending) > most and not task.stopping():
            lowest = next(iter(self.pending))
            while lowest not in finished and (task.ordered or not finished):
                ended = next(task.executor.completed(), None)
                if ended is None:  # stopped meanwhile
                    return
                finished[ended[0].number] = ended[1]
            number = lowest if task.ordered else next(iter(finished))
            yield self.end_trial(number, finished.pop(number))

    def _keep(self, task: Task, finished: dict[int, Outcome]) -> Iterator[Report]:
        """Results that are told later: a search that goes on asks as if it had never stopped."""
        assert task.executor is not None
        for number in sorted(set(finished) - set(self._left_known) - self.replays):
            yield self._kept(number, finished[number])
        task.executor.halt()
        for trial, outcome in task.executor.completed():
            yield self._kept(trial.number, outcome)

    def _kept(self, number: int, outcome: Outcome) -> Report:
        error = _why_unusable(outcome, self.task.goals)
        result = {} if error or isinstance(outcome, Exception | str) else outcome
        return Report("finished", number, result, self.pending[number].architecture, error=error)


def _why_unusable(outcome: Outcome, goals: Sequence[Goal]) -> str | None:
    """Why an evaluation gives no result, or None."""
    if isinstance(outcome, str):
        return outcome
    if isinstance(outcome, Exception):
        return f"{type(outcome).__name__}: {outcome}"
    if not isinstance(outcome, Mapping):
        return f"the result is no mapping of metrics but {outcome!r:.80}"
    for name, value in outcome.items():
        if not isinstance(name, str) or not isinstance(value, int | float):
            return f"the result has {name!r:.40} = {value!r:.40}, and metrics are numbers by name"
    for metric in (goal.metric for goal in goals):
        if metric not in outcome:
            return f"the result has no {metric!r}, only {sorted(outcome)}"
        if not math.isfinite(outcome[metric]):
            return f"{metric} is {outcome[metric]}"
    return None
