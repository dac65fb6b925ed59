"""Laws over the black-box strategies: budget, legal proposals, kill and resume, no worse than random."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from data_helpers import tables
from strategy_helpers import Evaluated

from nas.bench import Bench, bench
from nas.evaluators.table import Table
from nas.execution import Result, Trial
from nas.goal import Goal
from nas.search_space import Architecture, SearchSpace, space
from nas.search_space.listed import Listed
from nas.strategies import STRATEGIES, AskTell, Report, Task

BLACK_BOX = sorted(name for name, made in STRATEGIES.items() if issubclass(made, AskTell))
SETTINGS: dict[str, dict[str, Any]] = {  # of the laws, to be quick
    "zero_cost": {"candidates": 20},
    "predictor": {"mutations": 40, "samples": 10, "epochs": 2},
}
LONG = {"gp", "zero_cost"}  # seconds a search
MODELS = {"bohb", "brute_force", "pnas", "predictor"}  # seconds for hundreds of trials
EITHER = [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in BLACK_BOX]
SPACES = {
    "nasbench201": {"channels": 4, "cells": 1},
    "chain": {"channels": 4},
    "darts": {"channels": 4, "cells": 3},
    "nasbench101": {"channels": 4, "cells": 1},
}


def toy(architecture: Architecture) -> float:
    """A number of an architecture: fixed random weights of its options, and of pairs of them."""
    picked = [(name, row, option) for name, value in architecture.choices.items() for row, option in value]
    single = sum(Random(repr(each)).gauss(0, 1) for each in picked)
    pairs = sum(Random(repr(pair)).gauss(0, 0.5) for pair in pairwise(picked))
    return single + pairs


class Toy(Evaluated):
    """Evaluates `toy`; a share of the trials fails."""

    def __init__(self, fails: float = 0.0) -> None:
        def evaluate(trial: Trial) -> Result:
            if Random(f"{trial.architecture.literal}{trial.number}").random() < fails:
                raise RuntimeError("the training diverged")
            value = toy(trial.architecture)
            return {"a": value, "b": -0.5 * value + toy_other(trial.architecture)}

        super().__init__(evaluate)


def toy_other(architecture: Architecture) -> float:
    return Random(architecture.literal).gauss(0, 1)


def made_of(name: str, on: SearchSpace) -> AskTell:
    """The strategy as registered; skipped for a space that it refuses."""
    strategy = STRATEGIES[name](**SETTINGS.get(name, {}))
    assert isinstance(strategy, AskTell)
    try:
        strategy.check(on)
    except ValueError as error:
        pytest.skip(f"{name} refuses {on.name}: {error}")
    return strategy


def task(on: SearchSpace, executor: Toy, *, trials: int, seed: int = 0, **more: Any) -> Task:
    return Task(on, seed, trials=trials, goals=(Goal("a"),), executor=executor, **more)


def run(strategy: AskTell, given: Task, past: list[Report] | None = None) -> list[Report]:
    strategy.resume(given, past or [], None)
    return list(strategy.reports(given))


@pytest.mark.parametrize(
    ("name", "on"),
    [
        pytest.param(name, on, marks=pytest.mark.slow if name in LONG and on != "chain" else ())
        for name in BLACK_BOX
        for on in SPACES
    ],
)
def test_budget_and_legal_proposals(name: str, on: str) -> None:
    made, executor = space(on, **SPACES[on]), Toy(fails=0.2)
    reports = run(made_of(name, made), task(made, executor, trials=30))
    assert len(executor.evaluated) <= 30
    assert len(executor.evaluated) == 30 or any(report.replayed for report in reports)
    for trial in executor.evaluated:
        assert made.why_not(trial.architecture) is None
        assert made.parse(trial.architecture.literal) == trial.architecture
    started = [report.step for report in reports if report.kind == "start"]
    assert started == list(range(len(started)))


@pytest.mark.parametrize("name", EITHER)
@pytest.mark.parametrize("lag", [0, 2])
def test_killed_anywhere_it_goes_on_identically(name: str, lag: int) -> None:
    """Reports cut off after any number of lines are taken up to the same lines."""
    made = space("chain", **SPACES["chain"])
    whole = run(made_of(name, made), task(made, Toy(fails=0.1), trials=24, lag=lag))
    rng = Random(f"{name}{lag}")
    for cut in sorted({1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(4))}):
        again = whole[:cut]
        rest = run(made_of(name, made), task(made, Toy(fails=0.1), trials=24, lag=lag), again)
        assert [_plain(report) for report in again + rest] == [_plain(report) for report in whole], cut


def _plain(report: Report) -> tuple[object, ...]:
    architecture = report.architecture
    return (
        report.kind,
        report.step,
        architecture and architecture.literal,
        report.epochs,
        dict(report.metrics),
    )


@pytest.mark.parametrize("name", EITHER)
@pytest.mark.parametrize("lag", [0, 3])
def test_asking_changes_nothing(name: str, lag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that asks everything twice is the same search."""
    made = space("chain", **SPACES["chain"])
    plain, twice = made_of(name, made), made_of(name, made)
    expected = run(plain, task(made, Toy(fails=0.1), trials=30, lag=lag))
    ask = twice.ask

    def asked(number: int) -> Trial | None:
        first, second = ask(number), ask(number)
        assert first == second
        return second

    monkeypatch.setattr(twice, "ask", asked)
    found = run(twice, task(made, Toy(fails=0.1), trials=30, lag=lag))
    assert [_plain(report) for report in found] == [_plain(report) for report in expected]


@pytest.mark.parametrize("name", BLACK_BOX)
def test_equal_seeds_give_equal_searches_and_others_do_not(name: str) -> None:
    made = space("darts", **SPACES["darts"])
    found = [
        [_plain(report) for report in run(made_of(name, made), task(made, Toy(), trials=8, seed=seed))]
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    if name not in ("exhaustive", "pnas", "brute_force"):  # these go through a fixed order
        assert found[0] != found[2]


@pytest.mark.parametrize(
    ("name", "fails"),
    [
        pytest.param(name, fails, marks=pytest.mark.slow if fails == 0.4 and name in {*LONG, *MODELS} else ())
        for name in BLACK_BOX
        for fails in (0.0, 0.4, 1.0)
    ],
)
def test_a_space_of_few_networks_comes_to_an_end(name: str, fails: float) -> None:
    """Five architectures: each is evaluated at most once a fidelity, and the search ends by itself."""
    made = space("chain", layers=1, channels=4)
    strategy, executor = made_of(name, made), Toy(fails)
    run(strategy, task(made, executor, trials=10_000))
    asked = [(trial.architecture.digest, trial.epochs) for trial in executor.evaluated]
    assert len(asked) == len(set(asked))
    if fails == 0:
        best = max(toy(trial.architecture) for trial in executor.evaluated)
        assert toy(strategy.best()) == best


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in {*LONG, *MODELS, "ppo", "reinforce"} else ())
        for name in BLACK_BOX
    ],
)
def test_all_members_of_a_list_are_found(name: str) -> None:
    """A table may have a few architectures of a large space: a search goes through all of them."""
    whole = space("nasbench201", **SPACES["nasbench201"])
    rng = Random(0)
    drawn = {whole.result_digest(each): each for each in (whole.sample(rng) for _ in range(40))}
    made = Listed.of(whole, drawn.values())
    executor = Toy()
    run(made_of(name, made), task(made, executor, trials=400))
    assert {made.result_digest(trial.architecture) for trial in executor.evaluated} == set(drawn)


@pytest.mark.parametrize("name", BLACK_BOX)
def test_every_trial_may_fail(name: str) -> None:
    made = space("chain", **SPACES["chain"])
    strategy = made_of(name, made)
    run(strategy, task(made, Toy(fails=1.0), trials=25))
    assert strategy.best_trial is None
    assert strategy.front() == []


def test_exhaustive_search_proposes_everything_once() -> None:
    made = space("chain", layers=2, channels=4)
    executor = Toy()
    run(STRATEGIES["exhaustive"](), task(made, executor, trials=10_000, replay=False))
    every = {trial.architecture.literal for trial in executor.evaluated}
    assert len(executor.evaluated) == len(every) == made.size


@pytest.mark.parametrize("name", ["regularized_evolution", "evolution"])
def test_evolution_leaves_a_neighbourhood_that_is_all_known(name: str) -> None:
    """Of a list, the nearest members may be nearest to each other alone."""
    whole = space("nasbench201", **SPACES["nasbench201"])
    drawn = {each.literal: each for each in (whole.sample(Random(i)) for i in range(60))}
    made, executor = Listed.of(whole, drawn.values()), Toy()
    run(STRATEGIES[name](), task(made, executor, trials=len(drawn), replay=False))
    assert len({trial.architecture.literal for trial in executor.evaluated}) > 0.9 * len(drawn)


# --- on a table ---


@pytest.fixture(scope="module")
def nasbench201() -> Table:
    return Table.read(tables() / "nasbench201.csv.gz", columns=("cifar10_valid_12", "cifar10_test_200"))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in {*LONG, "nsga3", "pnas", "predictor"} else ())
        for name in BLACK_BOX
        if name not in ("exhaustive", "brute_force")
    ],
)
def test_at_least_as_good_as_random(name: str, nasbench201: Table) -> None:
    """Published numbers: random search reaches 93.73 with 100 evaluations; nothing may be clearly worse."""
    made = space("nasbench201", channels=4, cells=1)
    made_of(name, made)
    on = Bench(nasbench201, made, (Goal("cifar10_valid_12"),), Goal("cifar10_test_200"), trials=60)
    seeds = 12
    ours, random = (bench(on, each, seeds=seeds) for each in (name, "random"))
    error = math.sqrt((ours.std**2 + random.std**2) / seeds)
    assert ours.mean > random.mean - 2.5 * error - 0.1
