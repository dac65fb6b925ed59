"""Hyperband, ASHA, BOHB: rungs and brackets as published, promotions as defined, two lengths of training."""

from __future__ import annotations

import math
from itertools import product
from random import Random
from typing import Any

import numpy as np
import pytest
from data_helpers import tables
from strategy_helpers import Evaluated

from nas.bench import Bench, bench
from nas.described import described
from nas.execution import Result, Trial
from nas.goal import Goal
from nas.graph import Builder, Hole
from nas.search_space import Architecture, Decision, SearchSpace, space
from nas.strategies import STRATEGIES, AskTell, Report, Task
from nas.strategies.bohb import Variables
from nas.strategies.rungs import Rung, Schedule, levels

# --- rungs and brackets -------------------------------------------------------------------------------------


def test_levels() -> None:
    assert levels(1, 81, 3) == (1, 3, 9, 27, 81)
    assert levels(1, 243, 3) == (1, 3, 9, 27, 81, 243)
    assert levels(12, 200, 200 / 12) == (12, 200)
    assert levels(5, 5, 3) == (5,)
    with pytest.raises(ValueError, match="min_epochs=9 is more than max_epochs=3"):
        levels(9, 3, 3)


def test_the_brackets_are_those_of_the_paper() -> None:
    """Li et al. 2018, algorithm 1 with R = 81, eta = 3: trials and epochs by bracket."""
    schedule = Schedule(levels(1, 81, 3), 3)
    expected = [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]
    for begin in (0, schedule.round):  # the brackets come again and again
        number = begin
        for bracket in expected:
            below = range(number, number)
            for count, epochs in bracket:
                for _ in range(count):
                    place = schedule.place(number)
                    assert (place.epochs, len(place.rung), place.rung.start <= number) == (
                        epochs,
                        count,
                        True,
                    )
                    assert len(place.below) == len(below)
                    assert not below or place.below == below
                    number += 1
                below = place.rung
        assert number == begin + schedule.round


@pytest.mark.parametrize("eta", [2, 3, 2.5])
def test_a_rung_promotes_the_best_of_what_is_there(eta: float) -> None:
    """Against sorting: the best floor(n / eta) that did not go on, with equal scores and failures."""
    made, rng = space("nasbench201", channels=4, cells=1), Random(0)
    rung, known, gone = Rung(eta), {}, set()
    for _ in range(300):
        architecture = made.sample(rng)
        if architecture in known:
            continue
        known[architecture] = None if rng.random() < 0.2 else rng.randrange(40)
        rung.add(architecture, known[architecture])
        order = [each for each in known if known[each] is not None]
        order.sort(key=lambda each: -known[each])  # stable: among equals the first
        best = [each for each in order[: int(len(known) / eta)] if each not in gone]
        assert rung.next(()) == (best[0] if best else None)
        assert rung.next(set(best[:1])) == (best[1] if len(best) > 1 else None)
        left = [each for each in order if each not in gone]
        assert rung.left(()) == (left[0] if left else None)
        if best and rng.random() < 0.5:
            gone.add(best[0])
            rung.promote(best[0])


# --- whole searches -----------------------------------------------------------------------------------------


def quality(architecture: Architecture) -> float:
    return Random(architecture.literal).gauss(0, 1)


def noisy(trial: Trial) -> Result:
    """The better known the longer the training."""
    noise = Random(f"{trial.architecture}{trial.epochs}").gauss(0, 1) / (trial.epochs or 1)
    return {"a": quality(trial.architecture) + noise}


def searched(name: str, *, trials: int, on: SearchSpace | None = None, **more: Any) -> list[Report]:
    arguments = more.pop("arguments", {"min_epochs": 1, "max_epochs": 9, "eta": 3})
    strategy = STRATEGIES[name](**arguments)
    assert isinstance(strategy, AskTell)
    made = on or space("nasbench201", channels=4, cells=1)
    task = Task(made, trials=trials, goals=(Goal("a"),), executor=Evaluated(noisy), **more)
    strategy.resume(task, (), None)
    return list(strategy.reports(task))


@pytest.mark.parametrize("lag", [0, 3])
def test_asha_promotes_whom_the_definition_promotes(lag: int) -> None:
    """Algorithm 2, by sorting what was told: from the highest rung on which one may go on."""
    told: list[Report] = []
    asked: list[Report] = []
    promoted = 0
    for report in searched("asha", trials=150, lag=lag):
        if report.kind == "trial":
            told.append(report)
            continue
        expected: tuple[Architecture, int] | None = None
        for epochs in (1, 3):
            rung = sorted((r for r in told if r.epochs == epochs), key=lambda r: -r.metrics["a"])
            above = {r.architecture for r in asked if r.epochs == 3 * epochs}
            best = [r.architecture for r in rung[: len(rung) // 3] if r.architecture not in above]
            expected = (best[0], 3 * epochs) if best else expected
        if expected is not None:
            assert (report.architecture, report.epochs) == expected
            promoted += 1
        else:
            assert report.epochs == 1
            assert report.architecture not in {r.architecture for r in asked}
        asked.append(report)
    assert promoted > 40


@pytest.mark.parametrize("name", ["hyperband", "bohb"])
def test_a_rung_of_hyperband_holds_the_best_of_the_one_below(name: str) -> None:
    reports = [report for report in searched(name, trials=44) if report.kind == "trial"]
    schedule = Schedule(levels(1, 9, 3), 3)
    promotions = 0
    for number in range(44):
        place = schedule.place(number)
        if number == place.rung.start and place.below:
            below = sorted((reports[n] for n in place.below), key=lambda r: -r.metrics["a"])
            best = [report.architecture for report in below[: len(place.rung)]]
            assert [reports[n].architecture for n in place.rung] == best
            promotions += 1
        assert reports[number].epochs == place.epochs
    assert promotions == 6


@pytest.mark.parametrize("lag", [0, 2])
def test_asha_trains_everything_of_a_small_space_to_the_end(lag: int) -> None:
    made = space("chain?layers=1", channels=4)
    reports = [r for r in searched("asha", trials=1000, on=made, lag=lag) if not r.replayed]
    ended = {report.architecture for report in reports if report.epochs == 9}
    assert ended == {report.architecture for report in reports}


def spaces_of_decisions() -> list[SearchSpace]:
    """Rows that are all kept, and rows of which some are."""
    found = []
    for keep in (3, 2):
        b = Builder((1, 8, 8))
        x = b("stem", "conv_bn_3x3", "input", out=2, affine=True)
        rows = [b(f"edge{row}", Hole("edges", row), x, out=2) for row in range(3)]
        x = b("sum", "sum", *rows)
        b("classifier", "linear", b("pool", "global_avg_pool", x), out=10)
        options = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")
        found.append(SearchSpace((Decision("edges", options, rows=3, keep=keep),), b.graph()))
    return found


@pytest.mark.parametrize("made", spaces_of_decisions(), ids=["all", "some"])
def test_the_density_is_one(made: SearchSpace) -> None:
    """Over all combinations of categories its sum is 1, and it is highest near the data."""
    variables, rng, edges = Variables(made), Random(0), made.decisions[0]
    data = [variables.codes({"edges": edges.sample(rng)}) for _ in range(6)]
    data += [data[0]] * 6
    first = int(edges.keep == edges.rows)  # code 0: the row is not kept
    everything = list(product(*(range(first, first + count) for count in variables.counts)))
    density = np.exp(variables.density(data, everything))
    assert math.isclose(density.sum(), 1, rel_tol=1e-9)
    assert everything[int(density.argmax())] == data[0]


# --- two lengths of training on a table ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_lengths() -> Bench:
    """12 and 200 epochs; multiply-adds stand for seconds; as long as about 20 full trainings."""
    return described(
        tables() / "nasbench201.csv.gz",
        objectives=["cifar10_valid_200"],
        report="cifar10_test_200_half",
        fidelities=["12=cifar10_valid_12", "200=cifar10_valid_200"],
        cost="flops_cifar10",
        budget="1100000000s",
    )


def test_the_table_gives_the_rungs(two_lengths: Bench) -> None:
    given = two_lengths.arguments("asha", {})
    assert levels(**given) == (12, 200)
    own = two_lengths.arguments("asha", {"min_epochs": 20, "max_epochs": 180})
    assert levels(**own) == (20, 60, 180)
    assert two_lengths.arguments("random", {}) == {"epochs": 200}


def test_short_trainings_pay(two_lengths: Bench) -> None:
    """At equal cost, better than random search with full trainings by more than two standard errors."""
    random = bench(two_lengths, "random", seeds=10)
    for name in ("asha", "hyperband", "bohb"):
        ours = bench(two_lengths, name, seeds=10)
        error = math.sqrt((ours.std**2 + random.std**2) / 10)
        assert ours.mean > random.mean + 2 * error, name
