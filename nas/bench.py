"""bench(): strategies on a table of known results, many seeds in seconds.

A strategy sees the objective of what it asks for and nothing else. Its score is another column, reported for
the best that it found by its objective. A proposal is an evaluation, also if it was proposed before; results
are looked up by the exact literal.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from threadpoolctl import threadpool_limits

from nas.evaluators.table import Table, Tabular
from nas.execution import Trial
from nas.execution.simulated import Simulated
from nas.execution.workers import end, processes
from nas.goal import Goal
from nas.pareto import hypervolume, nondominated
from nas.registry import label
from nas.search_space import SearchSpace
from nas.seeding import derive
from nas.signature import bind, parameters
from nas.strategies import STRATEGIES, AskTell, Task, has_supernet


@dataclass
class Curve:
    """One search: after each evaluation (or epoch of a supernet) the score of the best so far, and the clock;
    the front at its end. `facts`: what else was measured of it.
    """

    values: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    front: list[tuple[float, ...]] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


class Searching(Protocol):
    """How strategies with a supernet search: with data. What they find is looked up in the table."""

    def check(self, strategy: str, arguments: Mapping[str, Any]) -> None:
        """Raises Errors for wrong arguments."""

    def run(self, strategy: str, arguments: Mapping[str, Any], *, seed: int, on: Bench) -> Curve:
        """One search, scored by the table of a bench."""


@dataclass(frozen=True)
class Bench:
    """What strategies are measured on.

    Args:
        table, space: the results, and the space of their architectures.
        goals: columns that a strategy sees and improves.
        report: the column that scores what it found.
        trials: evaluations; None where `seconds` ends a search.
        fidelities: epochs -> column of the first goal after so many.
        cost: column of seconds that an evaluation takes on the simulated clock.
        seconds: on that clock, after which a search ends.
        workers: on that clock.
        searches: how strategies with a supernet search, if any is measured.
    """

    table: Table
    space: SearchSpace
    goals: tuple[Goal, ...]
    report: Goal
    trials: int | None = 100
    fidelities: Mapping[int, str] = field(default_factory=dict)
    cost: str | None = None
    seconds: float | None = None
    workers: int = 1
    searches: Searching | None = None

    def arguments(self, strategy: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The strategy's arguments, those of fidelity from the table where they are not given.

        Raises Errors for wrong ones, ValueError for a strategy that needs data, or an objective.
        """
        found = STRATEGIES.resolve(strategy)
        if has_supernet(strategy):
            if self.space.limits:
                raise ValueError(
                    f"strategy {strategy} searches a whole space, and the table has {len(self.table.rows):,} "
                    f"architectures of {self.space.name!r}: it cannot score all that may be found"
                )
            if self.searches is None:
                raise ValueError(
                    f"strategy {strategy} trains a supernet, and the table scores what it finds: name the "
                    "data with --data"
                )
            self.searches.check(strategy, given)
            return dict(given)
        if not self.goals:
            raise ValueError(
                "--objective names the column that a strategy sees, as in --objective valid_accuracy"
            )
        known = parameters(found)
        own = {key: value for key, value in self._levels(known).items() if key in known}
        if "min_epochs" in given or "max_epochs" in given:  # its own levels
            own = {key: value for key, value in own.items() if key == "epochs"}
        return bind(found, {**own, **given}, where=f"strategy {label(strategy)}")

    def _levels(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """The table's lengths of training as arguments; steps no finer than the table's."""
        if not self.fidelities:
            return {"min_epochs": 1, "max_epochs": 1}
        least, most = min(self.fidelities), max(self.fidelities)
        step = (most / least) ** (1 / max(1, len(self.fidelities) - 1))
        finer = {"eta": step} if step > known.get("eta", step) else {}
        return {"epochs": most, "min_epochs": least, "max_epochs": most, **finer}

    def run(self, strategy: str, arguments: Mapping[str, Any], *, seed: int) -> Curve:
        """One search. Raises ValueError if what it found has no score."""
        if has_supernet(strategy):
            assert self.searches is not None
            return self._scored_well(strategy, self.searches.run(strategy, arguments, seed=seed, on=self))
        evaluate = Tabular(self.table, tuple(goal.metric for goal in self.goals), self.fidelities)
        executor = Simulated(evaluate, self._cost(evaluate), workers=self.workers)
        made = STRATEGIES.resolve(strategy)(**arguments)
        made.check(self.space)
        assert isinstance(made, AskTell)
        task = Task(
            self.space, seed, trials=self.trials, goals=self.goals, lag=self.workers - 1,
            ordered=self.cost is None, replay=False, executor=executor,
        )  # fmt: skip
        made.resume(task, (), None)
        curve = Curve()
        best, value, why = None, math.nan, "no evaluation ended within its budget"
        for report in made.reports(task):
            if self.seconds is not None and executor.now > self.seconds:
                break
            if report.kind != "trial":
                continue
            if made.best_trial is not best:
                best = made.best_trial
                assert best is not None
                value = self.table.value(best.architecture.literal, self.report.metric)
            why = report.error or why
            curve.values.append(value)
            curve.clock.append(executor.now)
        if best is None:
            raise ValueError(f"a search by {label(strategy)} has no result: {why}")
        curve.front = [self._scored(trial) for trial, _ in made.front()] if len(self.goals) > 1 else []
        return self._scored_well(strategy, curve)

    def _scored_well(self, strategy: str, curve: Curve) -> Curve:
        """The curve itself. Raises ValueError if what was found has an empty cell."""
        if math.isnan(curve.values[-1]):
            raise ValueError(
                f"{label(strategy)} found an architecture of which the table has no {self.report.metric}: "
                "--report takes a column without empty cells"
            )
        return curve

    def _cost(self, evaluate: Tabular) -> Any:
        if self.cost is None:
            return lambda trial: 1.0
        column = self.cost
        return lambda trial: self.table.value(trial.architecture.literal, column) * evaluate.share(trial)

    def _scored(self, trial: Trial) -> tuple[float, ...]:
        return self._values(trial.architecture.literal)

    def _values(self, literal: str) -> tuple[float, ...]:
        return tuple(self.table.value(literal, goal.metric) for goal in self.goals)

    def best_front(self) -> list[tuple[float, ...]]:
        """The values of the table's rows that no other one dominates."""
        return [self._flipped(scores) for scores in nondominated(self._every())]

    def hypervolumes(self, fronts: Sequence[Sequence[tuple[float, ...]]]) -> list[float]:
        """Of each front, as a part of that of the table's own: 1.0 is the best possible.

        The reference point is the worst value of each goal in the table, among rows that have all of them.
        """
        rows = self._every()
        worst = tuple(map(min, zip(*rows, strict=True)))
        whole = hypervolume(nondominated(rows), worst)
        volumes = [hypervolume(list(map(self._flipped, front)), worst) for front in fronts]
        return [volume / whole if whole else 1.0 for volume in volumes]

    def _every(self) -> list[tuple[float, ...]]:
        """The scores of all rows that have a value of every goal."""
        rows = map(self._values, self.table.rows)
        return [self._flipped(values) for values in rows if not any(map(math.isnan, values))]

    def _flipped(self, values: Sequence[float]) -> tuple[float, ...]:
        """Values as scores, larger is better; and back."""
        return tuple(-x if goal.smallest else x for goal, x in zip(self.goals, values, strict=True))


@dataclass(frozen=True)
class Measured:
    """A strategy over all seeds. `seconds`: of this machine, all seeds together. `hypervolumes`: with several
    goals, of each seed's front.
    """

    name: str
    strategy: str
    arguments: Mapping[str, Any]
    curves: Sequence[Curve]
    seconds: float
    best_possible: float
    hypervolumes: Sequence[float] = ()

    @property
    def values(self) -> list[float]:
        return [curve.values[-1] if curve.values else math.nan for curve in self.curves]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        return statistics.stdev(self.values) if len(self.curves) > 1 else 0.0

    @property
    def facts(self) -> dict[str, float]:
        """The mean over seeds of what else was measured of all of them."""
        every = [name for name in self.curves[0].facts if all(name in curve.facts for curve in self.curves)]
        return {name: statistics.fmean(curve.facts[name] for curve in self.curves) for name in every}

    def to_dict(self) -> dict[str, Any]:
        """The document of `nas bench --json`."""
        return {
            "strategy": self.strategy,
            "name": self.name,
            "arguments": dict(self.arguments),
            "trials": max((len(curve.values) for curve in self.curves), default=0),
            "seeds": len(self.curves),
            "mean": self.mean,
            "std": self.std,
            "values": self.values,
            "best_possible": self.best_possible,
            "seconds": self.seconds,
            **self._volumes(),
            **self.facts,
        }

    def _volumes(self) -> dict[str, Any]:
        found = list(self.hypervolumes)
        if not found:
            return {}
        std = statistics.stdev(found) if len(found) > 1 else 0.0
        return {"hypervolume": statistics.fmean(found), "hypervolume_std": std, "hypervolumes": found}


def bench(
    on: Bench,
    strategy: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    seeds: int = 20,
    seed: int = 0,
    workers: int = 1,
) -> Measured:
    """A strategy with `seeds` seeds, in `workers` processes of this machine.

    Raises ValueError for a strategy or argument that does not exist.
    """
    bound = on.arguments(strategy, arguments or {})
    keys = [derive(seed, "bench", number) % 2**31 for number in range(seeds)]
    began = time.perf_counter()
    if workers == 1 or seeds == 1:
        with threadpool_limits(1):
            curves = [on.run(strategy, bound, seed=key) for key in keys]
    else:
        pool = processes(workers, ["nas.bench"], _start, on)
        try:
            jobs = [pool.submit(_run, strategy, bound, key) for key in keys]
            curves = [job.result() for job in jobs]
        except BaseException:
            end(pool)
            raise
        pool.shutdown()
    return Measured(
        name or label(strategy), strategy, bound, curves, time.perf_counter() - began,
        on.table.most(on.report.metric, smallest=on.report.smallest),
        on.hypervolumes([curve.front for curve in curves]) if len(on.goals) > 1 else (),
    )  # fmt: skip


_bench: Bench | None = None  # of a worker process


def _start(on: Bench) -> None:
    import torch

    global _bench
    torch.set_num_threads(1)
    threadpool_limits(1)  # of the libraries under NumPy: on small matrices threads only wait for each other
    _bench = on


def _run(strategy: str, arguments: Mapping[str, Any], seed: int) -> Curve:
    assert _bench is not None
    return _bench.run(strategy, arguments, seed=seed)
