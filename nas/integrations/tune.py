"""Every black-box strategy as a searcher of Ray Tune's: the strategy proposes, Tune evaluates.

    searcher = StrategySearcher("nasbench201", "regularized_evolution", metric="valid_accuracy", mode="max")
    tuner = tune.Tuner(train, tune_config=tune.TuneConfig(search_alg=searcher, num_samples=50))

Tune's schedulers, storage and `Tuner.restore` work as with its own searchers. The state of a searcher is what
was asked and told, in that order, as plain JSON; a restored searcher asks and tells it again.

Tune tells results as they come. With several trials at a time what is proposed therefore depends on which of
them ends first, and is not reproducible; with ``TuneConfig(max_concurrent_trials=1)`` it is, and equals the
proposals of ``nas search`` with the same seed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from nas.execution import Result
from nas.execution.early_stop import STOPPED
from nas.goal import Goal, goals_from
from nas.search_space import SearchSpace
from nas.search_space import space as space_at
from nas.signature import bind
from nas.strategies import STRATEGIES, AskTell, Report, Task, has_supernet

FORMAT = "nas.integrations.tune/1"
SAME = ("space", "strategy", "seed", "time_attr")  # of a searcher and of the state that it restores
Names = str | Sequence[str]
Event = dict[str, Any]
logger = logging.getLogger(__name__)


class StrategySearcher(Searcher):
    """A strategy that proposes architectures, as a `Searcher` of Tune's.

    A trial's configuration is ``{"architecture": literal}``, which ``space.parse`` reads, and ``"epochs"`` if
    the strategy says how long to train. A proposal of a network whose result is known gets that result again
    and is no trial of Tune's. When the strategy has nothing else to propose, the search is finished.

    A trial that failed, or whose result lacks the metric, is told as failed. A trial's first end counts: one
    that failed and is run again by ``Tuner.restore(restart_errored=True)`` is not told twice.

    Args:
        space: a name or another address, or a space, with its scale and limits.
        strategy: a name, or ``{"name": ..., argument: value}``.
        metric: what a trial reports and the search improves; a list for strategies with several goals. None:
            TuneConfig's, which Tune hands over only along with a `param_space`.
        mode: ``max`` or ``min``, a list for several metrics. None: as of ``--objective``: a metric may be
            ``NAME:min``; without a direction small is better for costs and losses, large for all else.
        seed: of the strategy.
        trials: how many there will be, for strategies that plan ahead (`pnas`). None: TuneConfig's
            num_samples, where Tune hands it over.
        time_attr: the reported number of epochs, as schedulers have it: ``training_iteration``. A trial that
            ends with fewer than its ``epochs`` counts as stopped: known, but never the best. None: every
            result counts as a whole one.

    Raises ValueError for a name or an argument that does not exist, for a strategy with a supernet, for one
    that cannot search the space, and for a mode that does not fit the metric.
    """

    def __init__(
        self,
        space: str | SearchSpace,
        strategy: str | Mapping[str, Any] = "random",
        *,
        metric: Names | None = None,
        mode: Names | None = None,
        seed: int = 0,
        trials: int | None = None,
        time_attr: str | None = None,
    ) -> None:
        super().__init__()
        self.space = space_at(space) if isinstance(space, str) else space
        self.section = _section({"name": strategy} if isinstance(strategy, str) else strategy)
        self.seed, self.trials, self.time_attr = seed, trials, time_attr
        self.lag = 0
        self._improve(_goals(metric, mode))
        self._events: list[Event] = []  # what was asked and told
        self._numbers: dict[str, int] = {}  # Tune's name of a trial -> its number
        self._made().check(self.space)

    @cached_property
    def strategy(self) -> AskTell:
        """The strategy, with all that was told: its `best()`, `best_trial`, `front()`.

        Raises ValueError if no metric is known yet.
        """
        if not self.goals:
            raise ValueError(
                "which number of a result does the search improve? Say it to the searcher: "
                "StrategySearcher(..., metric='valid_accuracy', mode='max')"
            )
        made = self._made()
        settings: dict[str, Any] = {"trials": self.trials, "goals": self.goals, "lag": self.lag}
        made.resume(Task(self.space, self.seed, **settings), map(self._report, self._events), None)
        return made

    # --- what Tune calls ------------------------------------------------------------------------------------

    def suggest(self, trial_id: str) -> Any:
        """The configuration of a trial; `Searcher.FINISHED` if there is nothing left to propose.

        A trial that was suggested before has the same configuration again.
        """
        if trial_id in self._numbers:
            return next(_config(event) for event in self._events if event.get("trial") == trial_id)
        strategy = self.strategy
        while not strategy.exhausted:
            begun = strategy.begin_trial(len(strategy.told) + len(strategy.pending))
            if begun is None:
                break
            report, known = begun
            if known is None:
                self._numbers[trial_id] = report.step
                return _config(self._log(report, trial_id))
            self._log(report)
            self._log(strategy.end_trial(report.step, known))
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the strategy what came of a trial."""
        number = self._numbers.get(trial_id, -1)
        trial = self.strategy.pending.get(number)
        if trial is None:
            why = "was told before" if number >= 0 else "was not suggested by this searcher"
            logger.warning("The result of trial %s is passed over: it %s.", trial_id, why)
            return
        told = "it failed" if error else self._told(result or {}, trial.epochs)
        report = self.strategy.end_trial(number, told)
        if report.error and not error:
            logger.warning("Trial %s counts as failed: %s.", trial_id, report.error)
        self._log(report)

    def set_search_properties(
        self, metric: Names | None, mode: Names | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """TuneConfig's metric and number of trials, where the searcher has none.

        False: Tune then refuses a `param_space` with ranges, which nobody would search.
        """
        if not self._events:
            if not self.goals:
                self._improve(_goals(metric, mode))
            samples = spec.get("num_samples", -1)
            self.trials = self.trials or (samples if samples > 0 else None)
        return False

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Note how late results may come. False: Tune sees to the limit."""
        if not self._events:
            self.lag = max_concurrent - 1
        return False

    def save(self, checkpoint_path: str) -> None:
        """Write what was asked and told."""
        Path(checkpoint_path).write_text(json.dumps(self._state(), default=str))

    def restore(self, checkpoint_path: str) -> None:
        """Take over what `save` wrote, in place of what this searcher knows.

        Raises ValueError if that is of another search, or no state of a searcher.
        """
        try:
            state = json.loads(Path(checkpoint_path).read_text())
            fits = isinstance(state, dict) and state.get("format") == FORMAT
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"{checkpoint_path} was not written by StrategySearcher.save: give it that file")
        own = json.loads(json.dumps(self._state(), default=str))
        for key in (*SAME, *(["goals"] if self.goals else [])):
            if own[key] != state[key]:
                raise ValueError(
                    f"{checkpoint_path} is of another search: its {key} is {state[key]!r}, this searcher's "
                    f"{own[key]!r}; make the searcher as it was made then"
                )
        self.trials, self.lag, self._events = state["trials"], state["lag"], state["events"]
        self._numbers = {each["trial"]: each["step"] for each in self._events if "trial" in each}
        self._improve(goals_from(state["goals"]))
        vars(self).pop("strategy", None)

    # --- the state ------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "strategy"}

    def _state(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "space": self.space.name,
            "strategy": self.section,
            "goals": [str(goal) for goal in self.goals],
            "seed": self.seed,
            "trials": self.trials,
            "lag": self.lag,
            "time_attr": self.time_attr,
            "events": self._events,
        }

    def _log(self, report: Report, trial_id: str | None = None) -> Event:
        """Keep a report, as it is written; `trial_id`: Tune's name of the trial that begins."""
        assert report.architecture is not None
        event: Event = {"kind": report.kind, "step": report.step, "literal": report.architecture.literal}
        event["digest"] = report.architecture.digest
        if trial_id is not None:
            event["trial"] = trial_id
        if report.metrics:
            event["metrics"] = dict(report.metrics)
        for name in ("epochs", "network", "error"):
            if getattr(report, name) is not None:
                event[name] = getattr(report, name)
        self._events.append(event)
        return event

    def _report(self, event: Event) -> Report:
        content = {k: v for k, v in event.items() if k not in ("literal", "digest", "trial")}
        return Report(architecture=self.space.recall(event["literal"], event["digest"]), **content)

    # --- parts ----------------------------------------------------------------------------------------------

    def _made(self) -> AskTell:
        settings = dict(self.section)
        made = STRATEGIES.resolve(settings.pop("name"))(**settings)
        assert isinstance(made, AskTell)
        return made

    def _improve(self, goals: tuple[Goal, ...]) -> None:
        """Improve these goals, of which Tune is told in its own words."""
        self.goals = goals
        names, modes = [goal.metric for goal in goals], ["min" if goal.smallest else "max" for goal in goals]
        one = len(goals) <= 1
        self._metric = next(iter(names), None) if one else names  # type: ignore[assignment]
        self._mode = next(iter(modes), None) if one else modes  # type: ignore[assignment]

    def _told(self, result: Mapping[str, Any], epochs: int | None) -> Result | str:
        """The goals of a result, as plain numbers, and whether the trial was stopped; or what is missing."""
        names = [goal.metric for goal in self.goals]
        for name in names:
            if name not in result:
                return f"it reported no {name!r}"
        found = {name: _plain(result[name]) for name in names}
        done = result.get(self.time_attr) if self.time_attr else None
        if done is not None and epochs is not None and done < epochs:
            found[STOPPED] = float(done)
        return found


def _plain(value: Any) -> Any:
    """A number as Python's own."""
    return float(value) if isinstance(value, Real) else value


def _config(start: Event) -> dict[str, Any]:
    """What a trial gets from Tune."""
    epochs = {"epochs": start["epochs"]} if "epochs" in start else {}
    return {"architecture": start["literal"], **epochs}


def _section(given: Mapping[str, Any]) -> dict[str, Any]:
    """A strategy's name and all its arguments, checked."""
    arguments = dict(given)
    name = str(arguments.pop("name", ""))
    made = STRATEGIES.resolve(name)
    if has_supernet(name):
        raise ValueError(
            f"strategy {name} trains a supernet and proposes no architectures to evaluate: give one that "
            "does, as random, tpe or regularized_evolution, or run `nas search`"
        )
    return {"name": name, **bind(made, arguments, where="strategy")}


def _goals(metric: Names | None, mode: Names | None) -> tuple[Goal, ...]:
    """What to improve; nothing where no metric is given."""
    if metric is None:
        if mode is not None:
            raise ValueError(f"mode={mode!r} without a metric: give metric='valid_accuracy' or another, too")
        return ()
    names = [metric] if isinstance(metric, str) else list(metric)
    if mode is None:
        return goals_from(names)
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(names) != len(modes) or not set(modes) <= {"min", "max"}:
        raise ValueError(f"mode={mode!r} does not fit metric={metric!r}: 'min' or 'max' for each of them")
    return goals_from(f"{name}:{way}" for name, way in zip(names, modes, strict=True))
