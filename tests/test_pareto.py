"""Laws of several goals: hypervolume, fronts, the strategy for them, and what a run keeps."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Command
from data_helpers import tables

import nas
from nas.bench import bench
from nas.cli.progress import Show
from nas.described import described
from nas.evaluators.demand import demand
from nas.evaluators.table import Table
from nas.front import LedgerFront
from nas.goal import Goal
from nas.pareto import Front, crowding, hypervolume, nondominated, ranks
from nas.report import page, replay
from nas.report.ledger import best_so_far
from nas.run import Run
from nas.search_space import Architecture, space
from nas.strategies import STRATEGIES, AskTell, Task

CHAIN = "chain?layers=1"
GOALS = (Goal("valid_accuracy"), Goal("params", smallest=True))
Points = list[tuple[float, ...]]


def cloud(seed: int, goals: int, number: int, *, levels: int = 0) -> Points:
    """Random points; with few levels many of them are equal in some goals, or in all."""
    rng = Random(f"{seed} {goals}")

    def coordinate() -> float:
        return rng.randrange(levels) / levels if levels else rng.random()

    return [tuple(coordinate() for _ in range(goals)) for _ in range(number)]


# --- hypervolume --------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([], (0, 0), 0),
        ([(3,)], (1,), 2),
        ([(1, 3), (2, 2), (3, 1)], (0, 0), 6),
        ([(1, 3), (2, 2), (3, 1)], (1, 1), 1),  # those on the reference's edges add nothing
        ([(2, 2), (1, 1), (2, 2)], (-1, 0), 6),
        ([(1, 2, 3)], (0, 0, 0), 6),
        ([(2, 1, 1), (1, 2, 1), (1, 1, 2)], (0, 0, 0), 4),
        ([(3, 3, 1), (2, 2, 2)], (0, 0, 0), 13),
        ([(2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)], (0, 0, 0, 0), 5),
    ],
)
def test_hypervolume_by_hand(points: Points, reference: tuple[float, ...], volume: float) -> None:
    assert hypervolume(points, reference) == pytest.approx(volume)


@pytest.mark.parametrize("goals", [2, 3, 4, 5])
def test_hypervolume_is_the_share_of_random_points_that_are_dominated(goals: int) -> None:
    points = cloud(1, goals, 15)
    draws = np.random.default_rng(0).random((100_000, goals))
    under = np.zeros(len(draws), dtype=bool)
    for point in points:
        under |= (draws <= np.array(point)).all(axis=1)
    assert hypervolume(points, (0.0,) * goals) == pytest.approx(under.mean(), abs=0.008)  # 5 deviations


@pytest.mark.parametrize("goals", [2, 3, 4])
def test_hypervolume_is_a_measure(goals: int) -> None:
    """Neither order nor dominated points nor the place of 0 matter; units are factors."""
    for seed in range(20):
        points, reference = cloud(seed, goals, 12, levels=6), (-0.1,) * goals
        whole = hypervolume(points, reference)
        assert hypervolume(points[::-1], reference) == pytest.approx(whole)
        lower = tuple(min(x, y) for x, y in zip(points[0], points[1], strict=True))
        assert hypervolume([*points, lower], reference) == pytest.approx(whole)
        assert hypervolume(points[1:], reference) <= whole + 1e-12
        moved = [tuple(1e3 * (x + 5) for x in point) for point in points]
        assert hypervolume(moved, (4.9e3,) * goals) == pytest.approx(1e3**goals * whole)


# --- fronts -------------------------------------------------------------------


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether scores `a` are nowhere worse than `b` and somewhere better."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


def brute(points: Points) -> set[tuple[float, ...]]:
    return {a for a in points if not any(dominates(b, a) for b in points)}


@pytest.mark.parametrize("goals", [1, 2, 3])
def test_fronts_are_what_nothing_dominates(goals: int) -> None:
    for seed in range(30):
        points = cloud(seed, goals, 25, levels=7)
        expected = sorted(brute(points), reverse=True)
        assert nondominated(points) == expected
        front: Front[int] = Front()
        for number, point in enumerate(points):
            before = list(front.members)
            assert front.add(point, number) == (front.members != before)
        assert [scores for scores, _ in front.members] == expected
        assert all(number == points.index(scores) for scores, number in front.members)  # the first of equals
        assert front.worst == tuple(map(min, zip(*points, strict=True)))
        assert front.hypervolume == pytest.approx(hypervolume(points, front.worst))


def test_a_dominated_item_changes_nothing_and_more_epochs_begin_anew() -> None:
    front: Front[str] = Front()
    assert front.add((1.0, 0.0), "a")
    assert front.add((0.0, 1.0), "b")
    state = list(front.members), front.hypervolume
    assert not front.add((0.0, 0.5), "c")
    assert not front.add((1.0, 0.0), "again")
    assert (list(front.members), front.hypervolume) == state
    assert front.add((0.1, 0.1), "longer", level=9)
    assert not front.add((5.0, 5.0), "shorter", level=3)
    assert front.members == [((0.1, 0.1), "longer")]


def test_ranks_and_crowding() -> None:
    for seed in range(20):
        points = cloud(seed, 2, 20, levels=8)
        found = ranks(points)
        for place, point in enumerate(points):  # one more than the worst rank of those that dominate it
            above = [found[i] for i, other in enumerate(points) if dominates(other, point)]
            assert found[place] == max(above, default=-1) + 1
    line = [(0.0, 4.0), (1.0, 3.0), (3.0, 1.0), (4.0, 0.0)]
    assert crowding(line) == [math.inf, 1.5, 1.5, math.inf]
    assert crowding([(1.0, 1.0)] * 3) == [0.0] * 3


def asked(strategy: str, goals: tuple[Goal, ...], number: int, *, seed: int = 0) -> AskTell:
    """A strategy that was told made-up results, of which every seventh failed."""
    made = STRATEGIES.resolve(strategy)(population=6, sample=3)
    assert isinstance(made, AskTell)
    made.resume(Task(space("nasbench201"), seed, goals=goals, replay=False), (), None)
    for n in range(number):
        trial = made.ask(n)
        assert trial is not None
        rng = Random(f"{trial.architecture.literal}")
        result = {"valid_accuracy": round(rng.random(), 1), "params": rng.randrange(9)}
        made._asked(trial)
        made.tell(made.pending.pop(n), None if n % 7 == 0 else result)
    return made


def test_the_front_of_a_strategy_is_what_no_told_result_dominates() -> None:
    made = asked("pareto_evolution", GOALS, 60)
    results = [made.scores(result) for _, result in made.told if result is not None]
    assert {made.scores(result) for _, result in made.front()} == brute(results)
    assert all(any(trial is told for told, _ in made.told) for trial, _ in made.front())


def test_with_one_goal_it_is_regularized_evolution() -> None:
    for seed in range(3):
        runs = [
            asked(name, GOALS[:1], 50, seed=seed) for name in ("pareto_evolution", "regularized_evolution")
        ]
        one, other = [[trial.architecture.literal for trial, _ in run.told] for run in runs]
        assert one == other


# --- a run --------------------------------------------------------------------


def objective(architecture: Architecture) -> dict[str, float]:
    """Larger networks are better, more or less."""
    params = nas.cost(SMALL.fill(architecture)).params
    luck = Random(architecture.literal).random()
    return {"valid_accuracy": (0.5 + 0.5 * luck) * params**0.5 / 100, "params": params}


SMALL = space("nasbench201", channels=4, cells=1)
SEARCH: dict[str, Any] = {
    "space": "nasbench201",
    "strategy": {"name": "pareto_evolution", "population": 8},
    "budget": "25trials",
    "controls": 0,
    "search": {"objective": list(map(str, GOALS))},
}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("front") / "run"
    return folder, nas.search(objective=objective, run=folder, **SEARCH)


def test_a_run_writes_its_front(searched: tuple[Path, dict[str, Any]]) -> None:
    folder, result = searched
    written = yaml.safe_load((folder / "front.yaml").read_text())
    assert written == result["front"]
    assert len(written) > 2
    goals = [tuple(goal.score(entry["metrics"]) for goal in GOALS) for entry in written]
    assert set(goals) == brute(goals)
    trials = [event for event in Run(folder).events() if event["kind"] == "trial"]
    every = [tuple(goal.score(event["metrics"]) for goal in GOALS) for event in trials]
    assert set(goals) == brute(every)
    assert written[0]["literal"] == result["best"]
    worst = {"valid_accuracy": min(a for a, _ in every), "params": max(-p for _, p in every)}
    assert result["reference"] == worst
    assert result["hypervolume"] == pytest.approx(
        hypervolume(every, tuple(map(min, zip(*every, strict=True))))
    )
    for entry in written:
        made = space(entry["space"])
        assert made.parse(entry["literal"]).digest == entry["digest"]
        assert entry["metrics"] == objective(made.parse(entry["literal"]))
        assert {"params", "macs"} <= set(entry)


def test_a_run_that_was_cut_off_has_the_same_front(
    searched: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, result = searched
    calls = 0

    def broken(architecture: Architecture) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 14:
            raise KeyboardInterrupt
        return objective(architecture)

    with pytest.raises(KeyboardInterrupt):
        nas.search(objective=broken, run=tmp_path / "cut", **SEARCH)
    (tmp_path / "cut" / "front.yaml").write_text("stale: the process died before it wrote\n")
    again = nas.search(objective=objective, run=tmp_path / "cut", resume=True)
    assert (tmp_path / "cut" / "front.yaml").read_bytes() == (folder / "front.yaml").read_bytes()
    known = nas.search(objective=objective, run=tmp_path / "cut", resume=True)  # of a finished run
    for document in (again, known):
        assert [document[key] for key in ("front", "hypervolume", "reference")] == [
            result[key] for key in ("front", "hypervolume", "reference")
        ]


def test_one_goal_has_no_front(tmp_path: Path) -> None:
    result = nas.search(
        objective=objective, run=tmp_path / "run", **{**SEARCH, "budget": "3trials", "search": {}}
    )
    assert "front" not in result
    assert not (tmp_path / "run" / "front.yaml").exists()


def test_page_and_board_show_the_front(searched: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, result = searched
    text = page(folder).read_text()
    assert f"{len(result['front'])} of 25 trials are dominated by no other" in text
    assert (folder / "report" / "front.svg").stat().st_size
    run = Run(folder)
    replay(run.events(), tmp_path / "board", config=run.config).close()
    read = EventAccumulator(str(tmp_path / "board"), size_guidance={"scalars": 0, "images": 0})
    read.Reload()
    volumes = [scalar.value for scalar in read.Scalars("search/hypervolume")]
    assert volumes == sorted(volumes)
    assert len(volumes) == 25
    assert volumes[-1] == pytest.approx(result["hypervolume"])
    assert read.Images("front")[-1].step == 24


# --- goals in reports ---------------------------------------------------------


def trial(step: int, **metrics: float) -> dict[str, Any]:
    return {"kind": "trial", "step": step, "metrics": metrics}


def test_the_goal_and_its_direction_decide_what_is_best() -> None:
    told = [trial(0, a=3.0, loss=1.0), trial(1, a=1.0, loss=2.0), trial(2, a=2.0, loss=3.0)]
    for text, curve in (
        ("a:min", [3.0, 1.0, 1.0]),
        ("a:max", [3.0, 3.0, 3.0]),
        ("loss:max", [1.0, 2.0, 3.0]),
    ):
        assert [best for _, _, best in best_so_far(told, Goal.parse(text)).curve] == curve


def test_progress_shows_the_goals() -> None:
    show = Show(quiet=True, goals=(Goal("valid_accuracy"), Goal("params", smallest=True), Goal("latency_ms")))
    line = show._line(trial(4, valid_accuracy=0.5, params=12_345, macs=7, latency_ms=1.23456))
    assert all(shown in line for shown in ("valid 50.0 %", "params 12.3 k", "latency ms 1.235"))
    assert "macs" not in line


def test_trials_that_failed_or_were_stopped_are_on_no_front() -> None:
    front = LedgerFront(GOALS)
    for step, metrics in enumerate(({}, {"valid_accuracy": math.nan, "params": 1}, {"params": 1})):
        assert not front.tell(trial(step, **metrics))
    assert not front.tell(trial(3, valid_accuracy=0.9, params=1, stopped_at=2))
    assert not front.tell({**trial(4, valid_accuracy=0.9, params=1), "error": "died"})
    assert front.tell(trial(5, valid_accuracy=0.1, params=9))
    assert front.reference == {"valid_accuracy": 0.1, "params": 9}


# --- what goals ask of an evaluator -------------------------------------------


def configured(strategy: str, *goals: str) -> dict[str, Any]:
    from nas.config import resolve_search

    return resolve_search([{"strategy": strategy, "search": {"objective": goals}}])


def test_latency_is_measured_if_a_goal_asks_for_it() -> None:
    for goals, wanted in ((("valid_accuracy", "latency_ms"), True), (("valid_accuracy", "params"), False)):
        config = configured("random", *goals)
        demand(config)
        assert config["evaluator"]["latency"] == wanted


def test_goals_that_nothing_measures_are_refused() -> None:
    with pytest.raises(ValueError, match="did you mean 'latency_ms'"):
        demand(configured("random", "latency_s"))
    with pytest.raises(ValueError, match="pareto_evolution"):
        demand(configured("darts", "valid_accuracy", "params"))
    demand(configured("darts", "valid_accuracy"))


@pytest.mark.parametrize("goals", [("",), ("params:up",), ("params", "params:max")])
def test_goals_are_distinct_metrics(goals: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^objective "):
        configured("random", *goals)


@pytest.mark.slow
def test_search_with_three_goals(nas: Command, tmp_path: Path) -> None:
    """The command, with real training and a measured latency."""
    goals = ("valid_accuracy", "params", "latency_ms")
    told = [argument for goal in goals for argument in ("--objective", goal)]
    done = nas(
        "search", "--space", "nasbench201", "--strategy", "pareto_evolution", "--data", "digits", "--budget",
        "3trials", "--controls", "0", "--set", "strategy.epochs=1", "--run", tmp_path / "run", "--json",
        *told,
    )  # fmt: skip
    result = json.loads(done.out)
    assert all(set(goals) <= set(entry["metrics"]) for entry in result["front"])
    assert "latency ms" in done.err


# --- tables -------------------------------------------------------------------


def table_of(path: Path, rows: Mapping[str, Mapping[str, object]]) -> Path:
    head = ["arch", *next(iter(rows.values()))]
    lines = [",".join(map(str, [key, *row.values()])) for key, row in rows.items()]
    path.write_text("\n".join([",".join(head), *lines]) + "\n")
    return path


@pytest.fixture
def two_tables(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve architectures: numbers and accuracies; and by the same numbers, one left out, latencies."""
    made = space(CHAIN)
    literals = sorted({made.sample(Random(i)).literal for i in range(100)})[:12]
    first = {literal: {"index": i, "x": Random(i).random()} for i, literal in enumerate(literals)}
    second = "index,latency\n" + "".join(f"{i},{Random(-i).random()}\n" for i in range(11, 0, -1))
    (tmp_path / "b.csv").write_text(second)
    return table_of(tmp_path / "a.csv", first), tmp_path / "b.csv"


def test_tables_are_joined_by_a_common_column(two_tables: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = two_tables
    joined = Table.read(first, columns=("latency", "x"), join=[second])
    own = Table.read(first, columns=("index", "x"))
    for literal, (index, x) in own.rows.items():
        latency, same = joined.rows[literal]
        assert same == x
        assert math.isnan(latency) if index == 0 else latency == Random(-int(index)).random()
    with pytest.raises(ValueError, match="did you mean 'latency'"):
        Table.read(first, columns=("latancy",), join=[second])
    (tmp_path / "c.csv").write_text("other\n1\n")
    with pytest.raises(ValueError, match="shares no column"):
        Table.read(first, columns=("x",), join=[tmp_path / "c.csv"])


def test_the_whole_table_has_hypervolume_one(two_tables: tuple[Path, Path]) -> None:
    first, second = two_tables
    described_as: dict[str, Any] = {"join": [second], "space": CHAIN, "objectives": ["x", "latency"]}
    found = bench(described(first, trials=12, **described_as), "exhaustive", seeds=1).to_dict()
    assert found["hypervolume"] == pytest.approx(1.0)
    few = bench(described(first, trials=2, **described_as), "random", seeds=5).to_dict()
    assert 0 <= few["hypervolume"] < 1
    assert few["hypervolume"] == fmean(few["hypervolumes"])


def test_bench_draws_fronts(two_tables: tuple[Path, Path], nas: Command, tmp_path: Path) -> None:
    first, second = two_tables
    done = nas(
        "bench", "--table", first, "--join", second, "--space", CHAIN, "--objective", "x",
        "--objective", "latency", "--strategy", "random", "--strategy", "pareto_evolution", "--trials", 8,
        "--seeds", 3, "--jobs", 1, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert all(0 <= each["hypervolume"] <= 1 for each in json.loads(done.out))
    assert (tmp_path / "out" / "fronts.png").stat().st_size
    assert "hypervolume" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.slow
def test_accuracy_against_latency_better_than_random() -> None:
    """NAS-Bench-201 with HW-NAS-Bench's latencies: above random by more than two standard errors."""
    on = described(
        tables() / "nasbench201.csv.gz", join=[tables() / "nasbench201_hw.csv.gz"],
        objectives=["cifar10_valid_12", "cifar10_edgegpu_latency"], trials=100,
    )  # fmt: skip
    ours, random = (bench(on, name, seeds=50).hypervolumes for name in ("pareto_evolution", "random"))
    error = math.hypot(*(stdev(each) / math.sqrt(len(each)) for each in (ours, random)))
    assert fmean(ours) > fmean(random) + 2 * error
