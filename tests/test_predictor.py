"""Laws of the strategies that learn to predict results: predictor and PNAS."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from data_helpers import tables
from strategy_helpers import Evaluated

from nas.bench import Bench, bench
from nas.counting import cost
from nas.evaluators.table import Table
from nas.execution import Trial
from nas.goal import Goal
from nas.search_space import SPACES, Architecture, SearchSpace, space
from nas.search_space.listed import Listed
from nas.strategies import STRATEGIES, AskTell, Task
from nas.strategies.pnas import PNAS

BOTH = ["predictor", "predictor?acquisition=thompson", "pnas"]
Value = Callable[[Trial], float]


def worth(trial: Trial) -> float:
    """Fixed random weights of options, and of pairs of them."""
    picked = [(name, *each) for name, value in trial.architecture.choices.items() for each in value]
    single = sum(Random(repr(each)).gauss(0, 1) for each in picked)
    return single + sum(Random(repr(pair)).gauss(0, 0.5) for pair in pairwise(picked))


def convolutions(trial: Trial) -> float:
    return trial.architecture.literal.count("nor_conv_3x3")


def known(value: Value) -> Evaluated:
    """Results are a function of trials; NaN is a failure."""
    return Evaluated(lambda trial: {"a": value(trial)})


def made_of(name: str, **more: Any) -> AskTell:
    """The strategy, quick: the predictor with fewer candidates than by default."""
    base, _, given = name.partition("?")
    fewer = {"mutations": 40, "samples": 10} if base == "predictor" else {}
    strategy = STRATEGIES[base](**fewer | dict(each.split("=") for each in given.split("&") if each) | more)
    assert isinstance(strategy, AskTell)
    return strategy


def proposals(
    strategy: AskTell | str,
    on: SearchSpace,
    *,
    trials: int,
    value: Value = worth,
    goal: str = "a:max",
    **more: Any,
) -> list[Architecture]:
    """What a strategy evaluates."""
    strategy = made_of(strategy) if isinstance(strategy, str) else strategy
    executor = known(value)
    task = Task(on, trials=trials, goals=(Goal.parse(goal),), executor=executor, **{"replay": False, **more})
    strategy.resume(task, [], None)
    list(strategy.reports(task))
    return [trial.architecture for trial in executor.evaluated]


def small(address: str) -> SearchSpace:
    return space(address, **SPACES.facts(address)["small"])


def mean_worth(architectures: list[Architecture]) -> float:
    return statistics.mean(worth(Trial(0, each)) for each in architectures)


@pytest.fixture(scope="module")
def cell() -> SearchSpace:
    return space("nasbench201", channels=4, cells=1)


# --- both ---


@pytest.mark.parametrize("name", BOTH)
def test_only_the_order_of_results_counts(name: str, cell: SearchSpace) -> None:
    """Another unit, a curved scale, a cost in place of a gain: the same proposals."""
    plain = proposals(name, cell, trials=20)
    scaled = proposals(name, cell, trials=20, value=lambda trial: 1e3 * worth(trial) - 5e6)
    curved = proposals(name, cell, trials=20, value=lambda trial: math.exp(worth(trial)))
    cheap = proposals(name, cell, trials=20, value=lambda trial: -worth(trial), goal="a:min")
    assert plain == scaled == curved == cheap
    assert plain != proposals(name, cell, trials=20, value=lambda trial: -worth(trial))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda trial: math.nan if trial.number < 14 else worth(trial), id="fails-first"),
        pytest.param(lambda trial: math.nan if trial.number % 2 else worth(trial), id="fails-often"),
        pytest.param(lambda trial: worth(trial) if trial.number == 3 else math.nan, id="one-result"),
        pytest.param(lambda trial: 90.0, id="constant"),
    ],
)
def test_any_results_are_survived(name: str, value: Value, cell: SearchSpace) -> None:
    found = proposals(name, cell, trials=24, value=value)
    assert len({each.literal for each in found}) == 24


@pytest.mark.parametrize(
    "name", ["predictor?initial=1", "predictor?known=2", "predictor?samples=0", "pnas?beam=1"]
)
def test_the_least_that_arguments_allow(name: str, cell: SearchSpace) -> None:
    base, _, argument = name.partition("?")
    key, _, number = argument.partition("=")
    assert (
        len({each.literal for each in proposals(made_of(base, **{key: int(number)}), cell, trials=16)}) == 16
    )


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("lag", [1, 7])
def test_what_is_pending_is_not_proposed_again(name: str, lag: int, cell: SearchSpace) -> None:
    found = proposals(name, cell, trials=30, lag=lag)
    assert len({each.literal for each in found}) == 30


@pytest.mark.parametrize("name", ["predictor", "pnas"])
def test_a_space_of_five_is_gone_through(name: str) -> None:
    made = space("chain?layers=1", channels=4)
    every = {each.literal for each in proposals("exhaustive", made, trials=100)}
    first = proposals(name, made, trials=10 + len(every))
    assert {each.literal for each in first} == every


def few(made: SearchSpace) -> SearchSpace:
    """One of fifty is legal."""
    return made.limited(lambda each: None if Random(each.literal).random() < 0.02 else "it is not")


def listed(made: SearchSpace) -> SearchSpace:
    return Listed.of(made, [made.sample(Random(i)) for i in range(200)])


@pytest.mark.parametrize("name", ["predictor", "pnas"])
@pytest.mark.parametrize("limit", [few, listed])
def test_where_hardly_any_architecture_is_legal(
    name: str, limit: Callable[[SearchSpace], SearchSpace], cell: SearchSpace
) -> None:
    made = limit(cell)
    found = proposals(name, made, trials=15)
    assert all(made.why_not(each) is None for each in found)
    assert len({each.literal for each in found}) == 15


def test_another_process_proposes_the_same() -> None:
    """Python salts its hashes anew in each process: nothing may depend on them."""
    program = "from test_predictor import salted; print(salted())"
    here = {"PYTHONHASHSEED": "7", "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **here},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(salted())


def salted() -> list[str]:
    return [
        each.literal
        for name in ("predictor", "pnas")
        for each in proposals(name, small("nasbench101"), trials=16)
    ]


@pytest.mark.parametrize("name", ["predictor", "pnas"])
@pytest.mark.parametrize("address", ["darts", "nasbench101", "resnet_elastic"])
def test_proposals_get_better(name: str, address: str) -> None:
    """In every kind of space what it proposes last is better than chance, by half a standard deviation."""
    made = small(address)
    drawn = [worth(Trial(0, made.sample(Random(i)))) for i in range(100)]
    last = proposals(name, made, trials=32)[-10:]
    assert mean_worth(last) > statistics.mean(drawn) + 0.5 * statistics.stdev(drawn)


@pytest.fixture(scope="module")
def on_table(cell: SearchSpace) -> Bench:
    column = "cifar10_valid_200"
    table = Table.read(tables() / "nasbench201.csv.gz", columns=(column,))
    return Bench(table, cell, (Goal(column),), Goal(column), trials=60)


@pytest.mark.parametrize("name", ["pnas", pytest.param("predictor", marks=pytest.mark.slow)])
def test_better_than_random_on_nasbench201(name: str, on_table: Bench) -> None:
    """Random search needs hundreds of evaluations for what these find in 60 (White et al. 2021, figure 6)."""
    ours, random = (bench(on_table, each, seeds=6) for each in (name, "random"))
    error = math.sqrt((ours.std**2 + random.std**2) / 6)
    assert ours.mean > random.mean + max(0.3, 2 * error)
    assert statistics.median(ours.values) > on_table.table.most("cifar10_valid_200") - 0.1


# --- predictor ---


def test_it_begins_as_random_search_does(cell: SearchSpace) -> None:
    random = proposals("random", cell, trials=30)
    found = proposals(made_of("predictor", initial=12), cell, trials=30)
    assert found[:12] == random[:12]
    assert not set(map(literal, found[12:])) & set(map(literal, random[12:]))


def literal(architecture: Architecture) -> str:
    return architecture.literal


def test_it_chooses_among_members_of_a_list(cell: SearchSpace) -> None:
    """Where free mutations are hardly ever legal."""
    made = listed(cell)
    drawn = statistics.mean(convolutions(Trial(0, made.sample(Random(i)))) for i in range(200))
    chosen = [
        convolutions(Trial(0, each))
        for seed in range(4)
        for each in proposals("predictor", made, trials=22, seed=seed, value=convolutions)[10:]
    ]
    assert statistics.mean(chosen) > drawn + 0.35


# --- PNAS ---


@pytest.mark.parametrize("address", SPACES)
def test_growth_begins_with_little(address: str) -> None:
    """Most samples take more operations than the architecture in which nothing is chosen yet."""
    made = small(address)
    strategy = PNAS()
    proposals(strategy, made, trials=1)
    least = cost(made.fill(made.architecture(strategy.neutral))).macs
    assert least < statistics.median(cost(made.fill(made.sample(Random(i)))).macs for i in range(40))


@pytest.mark.parametrize("address", ["darts", "mobile", "nasnet", "resnet_elastic"])
def test_architectures_grow_choice_by_choice(address: str) -> None:
    """What is chosen comes in the order of the space, a share in each stage, upon the best of the last."""
    made, beam, stages = small(address), 6, 4
    strategy = PNAS(stages=stages, beam=beam)
    found = proposals(strategy, made, trials=beam * stages)
    rows = [(name, place) for name, value in strategy.neutral.items() for place in range(len(value))]

    def changed(one: Any, other: Any) -> list[int]:
        return [i for i, (name, place) in enumerate(rows) if one[name][place] != other[name][place]]

    reached = 0
    for stage in range(stages):
        now = [each.choices for each in found[stage * beam : (stage + 1) * beam]]
        furthest = max(i for each in now for i in changed(each, strategy.neutral))
        assert furthest < len(rows) * (stage + 1) / stages + 2
        assert furthest > reached or stage == 0
        if stage:
            earlier = sorted(found[: stage * beam], key=lambda each: -worth(Trial(0, each)))[:beam]
            for each in now:
                steps = min((changed(each, parent.choices) for parent in earlier), key=len)
                assert steps[-1] - steps[0] <= len(rows) / stages + 2
        reached = furthest
    assert reached > 0.7 * len(rows)


def test_all_ways_of_a_small_stage_are_tried(cell: SearchSpace) -> None:
    found = proposals(PNAS(stages=6, beam=5), cell, trials=5)
    first = {each.choices[cell.decisions[0].name] for each in found}
    assert len(first) == 5
    assert len({str(sorted(each.choices.items())[1:]) for each in found}) == 1


def test_extensions_are_those_that_results_speak_for(cell: SearchSpace) -> None:
    """Where one operation is all that counts, most of what is proposed has much of it."""
    found = proposals(PNAS(beam=8), cell, trials=40, value=convolutions)
    counts = [convolutions(Trial(0, each)) for each in found]
    assert max(counts) == 6
    assert statistics.mean(counts[-16:]) > 4  # 1.2 by chance
