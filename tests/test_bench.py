"""Strategies on tables: what is looked up, what counts, the simulated clock, and wrong input."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from conftest import Command, sets
from data_helpers import tables

from nas.bench import bench
from nas.described import described
from nas.evaluators.table import Table, Tabular
from nas.execution import Result, Trial
from nas.execution.simulated import Simulated
from nas.report.bench import write
from nas.report.ledger import record
from nas.search_space import SearchSpace, space
from nas.search_space.listed import Listed

SMALL = "chain?layers=1"


@pytest.fixture(scope="module")
def small() -> SearchSpace:
    return space(SMALL)


def written(path: Path, made: SearchSpace, columns: Sequence[str], *, part: float = 1.0) -> Path:
    """A table of random numbers for a part of a small space."""
    literals = {made.sample(Random(i)).literal for i in range(300)}
    kept = sorted(literals)[: max(2, int(part * len(literals)))]
    with gzip.open(path, "wt", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["arch", *columns])
        for literal in kept:
            lines.writerow([literal, *(Random(f"{literal}{column}").uniform(1, 9) for column in columns)])
    return path


def test_the_score_is_the_reported_column_of_the_best_by_objective(
    small: SearchSpace, tmp_path: Path
) -> None:
    path = written(tmp_path / "t.csv.gz", small, ("seen", "kept"))
    on = described(path, space=SMALL, objectives=["seen"], report="kept", trials=300)
    rows = Table.read(path, columns=("seen", "kept")).rows
    best = max(rows.values(), key=lambda row: row[0])
    found = bench(on, "random", seeds=2)
    assert found.values == [best[1]] * 2
    assert found.best_possible == max(row[1] for row in rows.values())
    smallest = described(path, space=SMALL, objectives=["seen:min"], report="kept:min", trials=300)
    least = min(rows.values(), key=lambda row: row[0])
    assert bench(smallest, "random", seeds=1).values == [least[1]]


def test_results_are_of_the_exact_literal(tmp_path: Path) -> None:
    """Two strings of NAS-Bench-201 that are one network have rows, and results, of their own."""
    made = space("nasbench201", channels=4, cells=1)
    names = [
        "|nor_conv_1x1~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|",
        "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|",
    ]
    one, other = map(made.parse, names)
    assert made.network_digest(one) == made.network_digest(other)
    path = tmp_path / "t.csv"
    path.write_text(f"arch,x\n{names[0]},1\n{names[1]},2\n")
    on = described(path, space="nasbench201", objectives=["x"], trials=40)
    assert set(on.run("random", on.arguments("random", {}), seed=0).values) <= {1.0, 2.0}
    assert bench(on, "random", seeds=3).values == [2.0] * 3


def test_a_list_of_members_has_neighbours(small: SearchSpace) -> None:
    members = sorted({small.sample(Random(i)).literal for i in range(200)})[:7]
    listed = Listed.of(small, map(small.parse, members))
    for seed in range(20):
        drawn = listed.sample(Random(seed))
        assert drawn.literal in members
        assert listed.mutate(drawn, Random(seed)).literal in set(members) - {drawn.literal}
        assert listed.cross(drawn, listed.sample(Random(seed + 1)), Random(seed)).literal in members
        assert all(listed.why_not(near) is None for near in listed.neighbours(drawn))


@pytest.mark.parametrize("part", [0.5, 0.1])
@pytest.mark.parametrize(
    "name", ["random", "exhaustive", "regularized_evolution", "local_search", "reinforce"]
)
def test_a_part_of_a_space_is_all_that_is_proposed(
    name: str, part: float, small: SearchSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    evaluate = Tabular.__call__

    def noted(self: Tabular, trial: Trial, *, seed: int) -> Result:
        asked.append(trial.architecture.literal)
        return evaluate(self, trial, seed=seed)

    monkeypatch.setattr(Tabular, "__call__", noted)
    path = written(tmp_path / "t.csv.gz", small, ("x",), part=part)
    on = described(path, space=SMALL, objectives=["x"], trials=30)
    on.run(name, on.arguments(name, {}), seed=0)
    assert asked
    assert set(asked) <= set(Table.read(path, columns=("x",)).rows)


def test_an_empty_cell_is_a_failed_trial(small: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    literals = sorted({small.sample(Random(i)).literal for i in range(200)})[:4]
    cells = ["", "3", "", "5"]
    path.write_text("arch,x\n" + "".join(f"{a},{x}\n" for a, x in zip(literals, cells, strict=True)))
    on = described(path, space=SMALL, objectives=["x"], trials=40)
    assert bench(on, "random", seeds=1).values == [5.0]


@pytest.mark.parametrize(
    ("rows", "given", "sentence"),
    [
        (["", "x"], {}, "'x' is no number"),
        (["1", "inf"], {}, "'inf' is no number"),
        ([], {}, "has no rows"),
        (["", ""], {"report": "cost"}, "has no result: x is nan"),
        (["1", "2"], {"report": "empty"}, "of which the table has no empty"),
        (["1", "2"], {"cost": "empty", "budget": "9s"}, "--cost-column empty has no seconds above 0"),
        (["1", "2"], {"cost": "zero", "budget": "9s"}, "--cost-column zero has no seconds above 0"),
        (["1", "2"], {"cost": "cost", "budget": "1s"}, "no evaluation ended within its budget"),
    ],
)
def test_tables_that_score_nothing_are_refused(
    small: SearchSpace, tmp_path: Path, rows: list[str], given: dict[str, str], sentence: str
) -> None:
    path = tmp_path / "t.csv"
    literals = sorted({small.sample(Random(i)).literal for i in range(200)})
    lines = [
        f"{a},{x},5,0,{'' if n < 2 else 1}" for n, (a, x) in enumerate(zip(literals, rows, strict=False))
    ]
    path.write_text("\n".join(["arch,x,cost,zero,empty", *lines, "", f"{literals[2]},,5,0,1" * bool(rows)]))
    with pytest.raises(ValueError, match=sentence):
        bench(described(path, space=SMALL, objectives=["x"], **given), "random", seeds=2)


def test_the_picture_begins_where_all_have_a_result(small: SearchSpace, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    literals = sorted({small.sample(Random(i)).literal for i in range(200)})[:5]
    path.write_text("arch,x\n" + "".join(f"{a},{n if n > 2 else ''}\n" for n, a in enumerate(literals)))
    on = described(path, space=SMALL, objectives=["x"], trials=9)
    found = bench(on, "random", seeds=2)
    assert any(math.isnan(curve.values[0]) for curve in found.curves)
    assert "| random |" in write(tmp_path / "out", on, [found])


def test_workers_finish_in_the_order_of_their_clock(small: SearchSpace) -> None:
    costs = {0: 5.0, 1: 1.0, 2: 1.0, 3: 2.0}
    executor = Simulated(lambda trial, *, seed: {}, lambda trial: costs[trial.number], workers=2)
    trials = [Trial(number, small.sample(Random(number))) for number in costs]
    order, clock = [], []
    waiting = trials[2:]
    for trial in trials[:2]:
        executor.submit(trial)
    for trial, _ in iter(lambda: next(executor.completed(), None), None):
        order.append(trial.number)
        clock.append(executor.now)
        if waiting:
            executor.submit(waiting.pop(0))
    assert order == [1, 2, 3, 0]
    assert clock == [1.0, 2.0, 4.0, 5.0]


def test_a_budget_of_time_ends_on_the_simulated_clock(small: SearchSpace, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv.gz", small, ("x", "cost"))
    made = [
        described(path, space=SMALL, objectives=["x"], cost="cost", budget="100s", workers=workers)
        for workers in (1, 4)
    ]
    one, four = (on.run("random", on.arguments("random", {}), seed=0) for on in made)
    assert one.clock == sorted(one.clock)
    assert one.clock[-1] <= 100 < one.clock[-1] + 9
    assert 2.5 * len(one.values) < len(four.values) < 5 * len(one.values)


def test_fidelities_are_columns(small: SearchSpace, tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv.gz", small, ("low", "high"))
    on = described(path, space=SMALL, objectives=["high"], fidelities=["3=low", "9=high"], trials=300)
    rows = Table.read(path, columns=("low", "high")).rows
    low, high = (bench(on, "random", {"epochs": epochs}, seeds=1).values for epochs in (8, 9))
    assert low == [max(rows.values(), key=lambda row: row[0])[1]]
    assert high == [max(row[1] for row in rows.values())]
    assert on.arguments("random", {})["epochs"] == 9


def test_the_document(nas: Command) -> None:
    table = str(tables() / "nasbench201.csv.gz")
    asked = ("--objective", "cifar10_valid_12", "--report", "cifar10_test_200", "--jobs", "1")
    done = nas(
        "bench", "--table", table, *asked, "--strategy", "random", "--trials", "5", "--seeds", "3", "--json"
    )
    document = done.document
    assert set(document) >= {
        "strategy",
        "trials",
        "seeds",
        "mean",
        "std",
        "values",
        "best_possible",
        "seconds",
    }
    assert (document["strategy"], document["trials"], document["seeds"]) == ("random", 5, 3)
    assert document["best_possible"] == pytest.approx(94.3733, abs=1e-4)
    assert document["mean"] == pytest.approx(sum(document["values"]) / 3)


def test_several_strategies_give_a_table_and_a_plot(nas: Command, tmp_path: Path) -> None:
    table = str(tables() / "nasbench201.csv.gz")
    two = ("--strategy", "random", "--strategy", "random?epochs=2")
    asked = ("--objective", "cifar10_valid_12", "--trials", "5", "--seeds", "2", "--jobs", "1")
    done = nas("bench", "--table", table, *two, *asked, "--out", str(tmp_path / "out"), "--json")
    assert [each["name"] for each in done.document] == ["random", "random?epochs=2"]
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == done.document
    assert (tmp_path / "out" / "curves.png").stat().st_size > 5000
    assert "| random?epochs=2 |" in (tmp_path / "out" / "table.md").read_text()


SHARED = [
    *("--report", "cifar10_test_200", "--data", "digits", "--jobs", "1"),
    *sets(["space.channels=2", "space.cells=1", "data.limit=60", "ranking.networks=5"]),
]


def test_a_search_with_a_supernet_is_scored_by_the_table(nas: Command, tmp_path: Path) -> None:
    table, out = tables() / "nasbench201.csv.gz", tmp_path / "out"
    one = ("--strategy", "rsws?epochs=2&rounds=1&batch=8")
    asked = ("bench", "--table", str(table), *one, *SHARED, "--seeds", "2", "--out", str(out), "--json")
    document = nas(*asked).document
    known = Table.read(table, columns=("cifar10_test_200",))
    runs = [record(folder) for folder in sorted(out.glob("rsws-*"))]
    assert len(runs) == 2
    found = {known.value(run.best["literal"], "cifar10_test_200") for run in runs}
    assert set(document["values"]) == found
    taus = [event["metrics"]["kendall"] for run in runs for event in run.of("ranking")]
    assert document["kendall"] == pytest.approx(sum(taus) / 2)
    assert document["step_seconds"] > 0
    assert document["peak_memory"] > 10**7
    for event in (event for run in runs for event in run.of("ranked")):
        assert event["metrics"]["cifar10_test_200"] == known.value(event["literal"], "cifar10_test_200")
    ledgers = {path: path.read_text() for path in out.glob("*/events.jsonl")}
    assert nas(*asked).document["values"] == document["values"]
    assert ledgers == {path: path.read_text() for path in out.glob("*/events.jsonl")}
    other = nas(*asked, "--set", "space.channels=4")
    assert other.status == 2
    assert "holds a search with other settings" in other.err


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--strategy", "randm"], "did you mean 'random'"),
        (["--strategy", "random?epoch=3"], "did you mean 'epochs'"),
        (["--strategy", "darts", "--strategy", "random"], "name the data with --data"),
        (["--strategy", "darts", "--data", "digits"], "--objective: these strategies train a supernet"),
        (["--strategy", "random", "--data", "digits"], "none is named"),
        (
            ["--strategy", "darts?epoch=3", "--strategy", "random", "--data", "digits"],
            "did you mean 'epochs'",
        ),
        (
            ["--strategy", "darts", "--strategy", "random", "--data", "digits", "--set", "space.name=chain"],
            "space.name follows from the table",
        ),
        (["--strategy", "random", "--set", "space.channels=4"], "only the section strategy applies"),
        (["--strategy", "random", "--objective", "cifar10_valid_13"], "did you mean 'cifar10_valid_12'"),
        (["--strategy", "random", "--space", "darts"], "a literal of 'darts'"),
        (["--strategy", "random", "--budget", "10s"], "needs --cost-column"),
        (["--strategy", "random", "--budget", "8gpuh"], "--budget takes trials and a time"),
        (["--strategy", "random", "--objective", "cifar10_valid_12:min"], "is named twice"),
        (["--strategy", "random", "--fidelity", "x=y"], "--fidelity takes EPOCHS=COLUMN"),
        (["--strategy", "random", "--arch-column", "index"], "no registered space reads '0'"),
        (["--strategy", "random", "--table", "there.csv"], "no table at there.csv"),
    ],
)
def test_wrong_input_is_one_sentence(nas: Command, wrong: list[str], sentence: str) -> None:
    table = str(tables() / "nasbench201.csv.gz")
    done = nas("bench", "--table", table, "--objective", "cifar10_valid_12", "--jobs", "1", *wrong)
    assert done.status == 2
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert not done.out
