"""Optuna's samplers: decisions as parameters, conditional ones, purity with state, copies of studies."""

from __future__ import annotations

import os
import subprocess
import sys
from math import comb
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from data_helpers import tables

from nas.bench import Bench, bench
from nas.evaluators.table import Table
from nas.execution import Trial
from nas.goal import Goal
from nas.graph import Builder, Hole
from nas.search_space import SPACES, Architecture, Decision, SearchSpace, space
from nas.strategies import STRATEGIES, Task
from nas.strategies.optuna_samplers import OptunaSampler
from nas.strategies.optuna_study import (
    COMBINATIONS,
    Copy,
    Questions,
    decoded,
    distribution,
    encoded,
    is_ordered,
)

OURS = sorted(name for name, made in STRATEGIES.items() if issubclass(made, OptunaSampler))
FAST = [name for name in OURS if name != "gp"]
GOALS = (Goal("good"), Goal("cost", smallest=True), Goal("size", smallest=True))


def widths(*, depth: int = 3) -> SearchSpace:
    """Ordered widths of layers, as many as a depth says; an operation each."""
    b = Builder((3, 8, 8))
    last, exits = b("stem", "conv_3x3", "input", out=4), {}
    for i in range(depth):
        last = b(f"layer{i}", Hole("op", i), last, out=Hole("width", i))
        exits[i + 1] = last
    joined = {option: b(f"same{option}", "conv_1x1", node, out=4) for option, node in exits.items()}
    b("logits", "classifier", b.exits("body", "depth", joined), out=10)
    return SearchSpace(
        (
            Decision("op", ("conv_3x3", "conv_1x1"), rows=depth, keep=depth),
            Decision("width", (4, 8, 16, 24), rows=depth, keep=depth),
            Decision("depth", tuple(range(1, depth + 1))),
        ),
        b.graph(),
    )


def result_of(architecture: Architecture) -> dict[str, float]:
    """Three numbers of an architecture, which pull apart."""
    picked = [(name, row, option) for name, value in architecture.choices.items() for row, option in value]
    good, cost, size = (sum(Random(f"{k}{each}").random() for each in picked) for k in range(3))
    return {"good": good, "cost": cost, "size": size}


def searched(name: str, on: SearchSpace, trials: int, *, lag: int = 0, **more: Any) -> OptunaSampler:
    """A search whose results come `lag` proposals late; every seventh trial fails."""
    goals = more.pop("goals", GOALS[:1])
    strategy = STRATEGIES[name](**more)
    assert isinstance(strategy, OptunaSampler)
    strategy.resume(Task(on, seed=3, goals=goals, lag=lag, replay=False), (), None)
    for number in range(trials):
        trial = strategy.ask(number)
        if trial is None:
            break
        strategy._asked(trial)
        if number >= lag:
            report(strategy)
    while strategy.pending:
        report(strategy)
    return strategy


def report(strategy: OptunaSampler) -> None:
    number, trial = strategy.pending.popitem(last=False)
    strategy.tell(trial, None if number % 7 == 6 else result_of(trial.architecture))


def literals(strategy: OptunaSampler) -> list[str]:
    return [trial.architecture.literal for trial, _ in strategy.told]


# --- decisions as parameters ---


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("conditional", [True, False])
def test_answers_lead_back_to_the_same_network(name: str, conditional: bool) -> None:
    """What is not asked does not matter, and equal answers lead to the same questions."""
    made, rng = space(name), Random(0)
    questions = Questions(made, conditional=conditional)
    for _ in range(10):
        architecture = made.sample(rng)
        again = made.architecture(questions.choices(lambda asked, a=architecture: asked.of(a.choices)))
        assert again.digest == architecture.digest
        assert conditional or again == architecture
        answers = questions.answers(architecture.choices)
        assert list(questions.answers(again.choices).items()) == list(answers.items())


def test_layers_beyond_the_depth_are_no_part_of_a_trial() -> None:
    strategy = searched("tpe", widths(), 40)
    for trial, frozen in zip(strategy.told, strategy._past._study.trials, strict=True):
        architecture = trial[0].architecture
        ((_, depth),) = architecture.choices["depth"]
        assert set(frozen.params) == {"depth"} | {f"{d}.{i}" for d in ("op", "width") for i in range(depth)}
        assert frozen.params["width.0"] == architecture.choices["width"][0][1] or frozen.params["width.0"] < 4


def test_samplers_of_whole_spaces_are_told_every_decision() -> None:
    for name in ("nsga2", "cmaes"):
        assert all(len(frozen.params) == 7 for frozen in searched(name, widths(), 20)._past._study.trials)


@pytest.mark.parametrize(
    ("options", "ordered"),
    [((1, 2, 3), True), ((64, 32, 16), True), ((0.1, 0.3, 1), True), ((0, 1), False), ((3, 5, 4), False),
     (("a", "b", "c"), False), ((1, "a", 2), False)],
)  # fmt: skip
def test_ordered_numbers_are_whole_numbers(options: tuple[Any, ...], ordered: bool) -> None:
    assert is_ordered(options) is ordered
    kind = distribution(options)
    assert isinstance(kind, optuna.distributions.IntDistribution) is ordered
    for option in options:
        value = encoded(options, option)
        assert kind._contains(kind.to_internal_repr(value))
        assert decoded(options, value) == option


@pytest.mark.parametrize(("rows", "keep"), [(5, 2), (12, 6)])
def test_kept_rows_are_chosen(rows: int, keep: int) -> None:
    """Few combinations are one parameter; of many, each kept row is one."""
    b = Builder((3, 8, 8))
    stem = b("stem", "conv_3x3", "input", out=4)
    nodes = [b(f"edge{row}", Hole("edge", row), stem) for row in range(rows)]
    b("logits", "classifier", b("sum", "sum", *nodes), out=10)
    made = SearchSpace((Decision("edge", ("conv_3x3", "conv_1x1"), rows=rows, keep=keep),), b.graph())
    strategy = searched("tpe", made, 40)
    assert len(set(literals(strategy))) == 40
    assert len(strategy._past._study.trials[0].params) == keep + (
        1 if comb(rows, keep) <= COMBINATIONS else keep
    )


# --- asking and telling ---


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("lag", [0, 3])
def test_told_again_it_proposes_the_same(name: str, lag: int) -> None:
    """Generations and CMA-ES's distribution follow from told trials, over several generations."""
    more = {"population": 6} if name in ("nsga2", "nsga3", "cmaes") else {}
    goals = GOALS if name != "cmaes" else GOALS[:1]
    whole = searched(name, widths(), 45, lag=lag, goals=goals, **more)
    again = STRATEGIES[name](**more)
    assert isinstance(again, OptunaSampler)
    again.resume(Task(widths(), seed=3, goals=goals, lag=lag, replay=False), (), None)
    for number, (trial, result) in enumerate(whole.told):
        for other, _ in whole.told[number : number + lag + 1]:
            if other.number not in again.pending:
                again._asked(other)
        del again.pending[trial.number]
        again.tell(trial, result)
    assert again.ask(45) == whole.ask(45) == whole.ask(45)
    assert again._past._attributes == whole._past._attributes


@pytest.mark.parametrize(
    ("name", "key"), [("nsga2", "generation"), ("nsga3", "generation"), ("cmaes", "cma")]
)
def test_generations_pass(name: str, key: str) -> None:
    past = searched(name, widths(), 40, population=5)._past._study.trials
    found = [
        next(value for attribute, value in trial.system_attrs.items() if attribute.endswith("generation"))
        for trial in past
        if any(attribute.endswith("generation") for attribute in trial.system_attrs)
    ]
    assert found == sorted(found)
    assert max(found) >= 5
    assert key in str(past[-1].system_attrs)


@pytest.mark.slow
def test_proposals_do_not_depend_on_the_hash_seed() -> None:
    program = (
        "from test_optuna_samplers import *\n"
        "print([literals(searched(name, widths(), 25)) for name in ('tpe', 'nsga3', 'cmaes')])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, cwd=Path(__file__).parent,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1


def test_brute_force_proposes_every_network_once_and_ends() -> None:
    made = widths(depth=2)
    strategy = searched("brute_force", made, 1000)
    digests = [trial.architecture.digest for trial, _ in strategy.told]
    assert len(digests) == len(set(digests)) == 8 + 8 * 8


def test_cmaes_refuses_spaces_without_ordered_numbers() -> None:
    strategy = STRATEGIES["cmaes"]()
    strategy.check(space("nasbench_sss"))
    with pytest.raises(ValueError, match="three or more ordered numbers"):
        strategy.check(space("nasbench201"))


@pytest.mark.parametrize("name", ["cmaes", "tpe"])
def test_ordered_numbers_are_exploited(name: str) -> None:
    """A smooth function of widths: far better than the mean of random architectures' best."""
    made = space("nasbench_sss")

    def value(architecture: Architecture) -> float:
        return -sum((float(width) - 40) ** 2 for _, width in architecture.choices[made.decisions[0].name])

    found = []
    for seed in range(3):
        strategy = STRATEGIES[name]()
        assert isinstance(strategy, OptunaSampler)
        strategy.resume(Task(made, seed=seed, goals=GOALS[:1], replay=False), (), None)
        for number in range(40):
            trial = strategy.ask(number)
            assert trial is not None
            strategy._asked(trial)
            strategy.tell(strategy.pending.popitem()[1], {"good": value(trial.architecture)})
        found.append(max(result["good"] for _, result in strategy.told if result))
    rng = Random(0)
    random = [max(value(made.sample(rng)) for _ in range(40)) for _ in range(20)]
    assert sum(found) / len(found) > sum(random) / len(random)


@pytest.mark.parametrize("name", ["tpe", "nsga2", "nsga3"])
def test_several_goals_are_all_improved(name: str) -> None:
    strategy = searched(name, widths(), 30, goals=GOALS)
    assert [d.name for d in strategy._past._study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    assert len(strategy.front()) > 1


def test_rules_are_kept_where_most_draws_are_illegal() -> None:
    def rule(architecture: Architecture) -> str | None:
        wide = sum(int(width) for _, width in architecture.choices["width"])
        return None if wide <= 16 else "too wide"

    made = widths().limited(rule)
    for name in FAST:
        assert all(made.why_not(trial.architecture) is None for trial, _ in searched(name, made, 12).told)


def test_results_of_fewer_epochs_are_pruned_trials() -> None:
    strategy = searched("tpe", widths(), 5)
    strategy.tell(Trial(5, widths().sample(Random(0)), epochs=1), {"good": 0.5, "cost": 1.0, "size": 1.0})
    last = strategy._past._study.trials[-1]
    assert (last.state.name, last.intermediate_values) == ("PRUNED", {1: 0.5})


def test_a_gaussian_process_searches_one_goal_and_two() -> None:
    for goals in (GOALS[:1], GOALS[:2]):
        assert len(set(literals(searched("gp", widths(), 12, goals=goals)))) == 12


# --- copies for dashboards ---


@pytest.mark.parametrize("file", ["sub/studies.log", "sqlite:///sub/studies.db"])
def test_the_study_is_there_for_others(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search taken up again continues its study; one with other results begins a new one."""
    from nas.strategies.optuna_study import storage_at

    monkeypatch.chdir(tmp_path)
    first = searched("tpe", widths(), 8, storage=file, goals=GOALS[:2])
    assert literals(searched("tpe", widths(), 8, goals=GOALS[:2])) == literals(first)
    for _ in range(2):
        searched("tpe", widths(), 12, storage=file, goals=GOALS[:2])
        (summary,) = optuna.get_all_study_summaries(storage_at(file))
        assert summary.n_trials == 12
    study = optuna.load_study(study_name=summary.study_name, storage=storage_at(file))
    assert study.metric_names == ["good", "cost"]
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL" if number % 7 == 6 else "COMPLETE" for number in range(12)]
    assert [trial.user_attrs["literal"] for trial in study.trials][:8] == literals(first)
    other = Copy(file, summary.study_name, study.directions, study.metric_names)
    told = first._past.frozen(first.told[1][0], {"good": 9.0, "cost": 9.0})
    other.add(told)
    assert len(optuna.get_all_study_summaries(storage_at(file))) == 2


def test_optuna_is_not_imported_before_a_search_begins() -> None:
    program = "import nas.strategies, sys; nas.strategies.TPE(); print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


# --- on a table ---


@pytest.mark.slow
def test_tpe_beats_random_on_nasbench201() -> None:
    columns = ("cifar10_valid_12", "cifar10_test_200")
    table = Table.read(tables() / "nasbench201.csv.gz", columns=columns)
    on = Bench(table, space("nasbench201", channels=4, cells=1), (Goal(columns[0]),), Goal(columns[1]))
    tpe, random = (bench(on, name, seeds=30) for name in ("tpe", "random"))
    assert tpe.mean - random.mean > 2 * ((tpe.std**2 + random.std**2) / 30) ** 0.5
