"""Laws of reports: a page and a board say what the ledger says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from nas.goal import ACCURACY, Goal
from nas.report import Board, Row, checklist, comparison, page, record, replay, table, verdict
from nas.report.comparison import quantity
from nas.report.heat import Heat
from nas.report.ledger import best_so_far
from nas.search_space import Architecture, SearchSpace, space

Event = dict[str, Any]

# --- synthetic runs -----------------------------------------------------------


class Ledger:
    """Writes the events of a run that never was, five seconds apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, kind: str, *, after: float = 5.0, **content: Any) -> None:
        seconds = (self.events[-1]["seconds"] if self.events else 0.0) + after
        self.events.append({"kind": kind, **content, "time": 1.7e9 + seconds, "seconds": seconds})


def named(architecture: Architecture) -> dict[str, str]:
    return {"literal": architecture.literal, "digest": architecture.digest}


def one_shot(made: SearchSpace, *, epochs: int = 3) -> Ledger:
    ledger, rng = Ledger(), Random(0)
    for step in range(1, epochs + 1):
        tables = {
            d.name: [[1 / len(d.options)] * len(d.options) for _ in range(d.rows)] for d in made.decisions
        }
        accuracies = {"train_accuracy": 0.1 * step, "valid_accuracy": 0.09 * step}
        metrics = {
            "train_loss": 2 / step,
            "valid_loss": 2.1 / step,
            "lr": 0.025,
            "alpha_entropy": 2 - step / 10,
        }
        ledger("epoch", step=step, metrics=metrics | accuracies, **named(made.sample(rng)), tables=tables)
    return ledger


def black_box(made: SearchSpace, values: Sequence[float | None]) -> Ledger:
    ledger, rng = Ledger(), Random(1)
    for step, value in enumerate(values):
        which = named(made.sample(rng))
        ledger("start", step=step, **which)
        metrics = {"valid_accuracy": value, "valid_loss": 1.0, "params": 1e5, "macs": 1e6}
        result = {"error": "out of memory"} if value is None else {"metrics": metrics, "replayed": False}
        ledger("trial", step=step, **which, **result)
    return ledger


def select(ledger: Ledger, made: SearchSpace) -> Architecture:
    best = made.sample(Random(2))
    ledger(
        "selected", **named(best), params=1_930_618, macs=330e6, metrics={"valid_accuracy": 0.9}, after=2.0
    )
    return best


def train_controls(ledger: Ledger, scores: Mapping[str, Sequence[float]]) -> None:
    for group, accuracies in scores.items():
        for i, accuracy in enumerate(accuracies):
            metrics = {"test_accuracy": accuracy, "test_loss": 0.3}
            ledger(
                "control", name=f"{group}-{i}", group=group, params=1e6, macs=2e8, metrics=metrics, after=10.0
            )


SCORES = {"random": [0.93, 0.94, 0.95], "resnet14-w9": [0.92], "found": [0.945]}


def write_run(folder: Path, ledger: Ledger, *, best: Mapping[str, Any] | None = None, **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    data = {
        "name": "digits",
        "digest": "d1" * 32,
        "split_digest": "5b" * 32,
        "train": 700,
        "valid": 700,
        "test": 360,
    }
    environment = {"versions": {"python": "3.11", "torch": "2.6"}, "commit": "abc123", "threads": 1}
    facts = {"hardware": {"cpus": 2, "gpus": []}, "command": ["nas", "search"], "data": data}
    (folder / "environment.json").write_text(json.dumps(environment | facts))
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in ledger.events))
    if best is not None:
        (folder / "best.yaml").write_text(yaml.safe_dump(dict(best)))
    return folder


def search_config(name: str, strategy: str) -> dict[str, Any]:
    return {
        "command": "search", "space": {"name": name}, "network": {}, "strategy": {"name": strategy},
        "data": {"name": "digits"}, "train": {"epochs": 5}, "budget": "3epochs", "controls": 3, "seed": 7,
    }  # fmt: skip


def whole(folder: Path, scores: Mapping[str, Sequence[float]]) -> Path:
    """A finished one-shot search."""
    made = space("darts")
    ledger = one_shot(made)
    best = select(ledger, made)
    train_controls(ledger, scores)
    ledger("done", reason="3 epochs", metrics={"valid_accuracy": 0.9}, after=0.0)
    figures = {"params": 1_930_618, "macs": 330_000_000, "metrics": {"valid_accuracy": 0.9}}
    return write_run(folder, ledger, best={**best.to_dict(), **figures}, **search_config("darts", "darts"))


# --- comparison -----------------------------------------------------------


def test_comparison_counts_what_the_ledger_says() -> None:
    ledger = one_shot(space("darts"))
    assert comparison(ledger.events) == []
    train_controls(ledger, SCORES)
    found, random, designed = comparison(ledger.events)
    assert found == Row("found", 1, 0.945, None, 1e6, 2e8, 10.0)
    assert (random.group, random.n, designed.group) == ("random", 3, "resnet14-w9")
    assert (random.mean, random.std) == (pytest.approx(0.94), pytest.approx(0.01))
    ledger("control", name="random-3", group="random", error="out of memory")
    assert comparison(ledger.events)[1] == random


@pytest.mark.parametrize(
    ("found", "random", "says"),
    [
        ([0.945], [0.93, 0.94, 0.95], "not distinguishable"),  # 0.5 points, standard error 1.15
        ([0.964], [0.93, 0.94, 0.95], "better than random"),  # 2.4 points: 2.08 standard errors
        ([0.962], [0.93, 0.94, 0.95], "not distinguishable"),  # 2.2 points: 1.91
        ([0.90, 0.91], [0.94, 0.95], "worse than random"),
        ([0.9], [0.9], "no spread is known"),
        ([0.9, 0.9], [0.9, 0.9], "not distinguishable"),
        ([], [0.9, 0.8], "cannot be told from luck"),
        ([0.9], [], "cannot be told from luck"),
        ([], [], "cannot be told from luck"),
    ],
)
def test_verdict_claims_no_more_than_two_standard_errors(
    found: list[float], random: list[float], says: str
) -> None:
    ledger = Ledger()
    train_controls(ledger, {"found": found, "random": random})
    assert says in verdict(comparison(ledger.events))


def test_table_of_the_comparison() -> None:
    from rich.console import Console

    ledger = Ledger()
    train_controls(ledger, SCORES)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(comparison(ledger.events)))
    shown = console.export_text()
    assert "94.00 ± 1.00" in shown
    assert "1.00 M" in shown
    assert "200 M" in shown


def test_quantity_has_three_digits() -> None:
    shown = [quantity(x) for x in (640, 12345, 999_600, 1_930_618, 9_999_000, 184_730_240, 1.2e9)]
    assert shown == ["640", "12.3 k", "1.00 M", "1.93 M", "10.0 M", "185 M", "1.20 G"]


def test_best_so_far_passes_over_failures() -> None:
    ledger = black_box(space("nasbench201"), [0.5, None, 0.7, 0.6, float("nan"), 0.8])
    trials = [event for event in ledger.events if event["kind"] == "trial"]
    assert best_so_far(trials, ACCURACY).curve == [(0, 0.5, 0.5), (2, 0.7, 0.7), (3, 0.6, 0.7), (5, 0.8, 0.8)]
    losses = [{"step": i, "metrics": {"loss": value}} for i, value in enumerate((3.0, 2.0, 2.5))]
    assert [best for _, _, best in best_so_far(losses, Goal("loss", smallest=True)).curve] == [3.0, 2.0, 2.0]


# --- TensorBoard -----------------------------------------------------------


def read_board(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert [path.is_dir() for path in folder.iterdir()] == [False]  # one file, no sub-folder for hparams
    read = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    read.Reload()
    return read


def test_board_of_a_one_shot_search(tmp_path: Path) -> None:
    made = space("darts")
    ledger = one_shot(made)
    select(ledger, made)
    train_controls(ledger, SCORES)
    ledger("done", reason="3 epochs", metrics={"valid_accuracy": 0.9})
    config = {"space": {"name": "darts"}, "seed": 0, "input": [1, 8, 8], "none": None}
    replay(ledger.events, tmp_path, space=made, config=config).close()
    read = read_board(tmp_path)
    for tag, metric in (
        ("train/loss", "train_loss"),
        ("train/lr", "lr"),
        ("search/alpha_entropy", "alpha_entropy"),
    ):
        expected = [(e["step"], e["metrics"][metric], e["time"]) for e in ledger.events[:3]]
        seen = [(s.step, s.value, s.wall_time) for s in read.Scalars(tag)]
        assert [step for step, _, _ in seen] == [1, 2, 3]
        assert [x for each in seen for x in each] == pytest.approx([x for each in expected for x in each])
    assert {"alpha/normal", "alpha/reduce", "cell"} == set(read.Tags()["images"])
    assert len(read.Images("alpha/normal")) == 3
    assert len(read.Images("cell")) == 4  # the three epochs and the selected one differ
    assert [s.value for s in read.Scalars("controls/random_test_accuracy")] == pytest.approx(SCORES["random"])
    shown = read.Tensors("controls/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "94.00 ± 1.00" in shown
    assert "not distinguishable" in shown
    hparams = read.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"space.name" in hparams


def test_a_heat_map_shows_each_entry_in_its_place() -> None:
    heat = Heat("table", rows=["a 0", "a 1", "b 0"], columns=["none", "skip"])
    blank = heat.image([[0.0, 0.0]] * 3)
    for row, column in itertools.product(range(3), range(2)):
        table = [[float((r, c) == (row, column)) for c in range(2)] for r in range(3)]
        ys, xs = (heat.image(table) != blank).any(axis=2).nonzero()
        (top, row_of), (left, column_of) = heat._rows, heat._columns
        assert set(row_of[ys - top]) == {row}
        assert set(column_of[xs - left]) == {column}


def test_board_of_trials_draws_only_the_best_so_far(tmp_path: Path) -> None:
    made = space("nasbench201")
    replay(black_box(made, [0.5, None, 0.7, 0.6]).events, tmp_path, space=made).close()
    read = read_board(tmp_path)
    assert [s.step for s in read.Scalars("search/valid_accuracy")] == [0, 2, 3]
    assert [s.value for s in read.Scalars("search/best_valid_accuracy")] == pytest.approx([0.5, 0.7, 0.7])
    assert [image.step for image in read.Images("cell")] == [0, 2]


def test_replay_gives_the_board_that_was_written_at_once(tmp_path: Path) -> None:
    """A board that was cut off, rewritten from the ledger and gone on with, holds what a whole one holds."""
    made = space("nasbench201")
    events = one_shot(made, epochs=4).events
    board = Board(tmp_path / "cut", space=made)
    for event in events[:3]:
        board.write(event)
    board.close()
    board = replay(events[:2], tmp_path / "cut", space=made)
    for event in events[2:]:
        board.write(event)
    board.close()
    replay(events, tmp_path / "whole", space=made).close()
    cut, full = read_board(tmp_path / "cut"), read_board(tmp_path / "whole")
    assert cut.Tags() == full.Tags()
    for tag in full.Tags()["scalars"]:
        assert cut.Scalars(tag) == full.Scalars(tag)
    for tag in full.Tags()["images"]:
        assert cut.Images(tag) == full.Images(tag)


def test_board_of_a_training(tmp_path: Path) -> None:
    replay(training().events, tmp_path).close()
    assert {"train/loss", "train/accuracy", "train/lr"} <= set(read_board(tmp_path).Tags()["scalars"])


# --- the page -----------------------------------------------------------


def links(written: Path) -> list[Path]:
    import re

    return [written.parent / link for link in re.findall(r"!\[[^]]*\]\(([^)]*)\)", written.read_text())]


def training(*, finished: bool = True) -> Ledger:
    ledger = Ledger()
    for step in (1, 2):
        ledger("epoch", step=step, metrics={"train_loss": 1 / step, "train_accuracy": 0.4 * step, "lr": 0.1})
    if finished:
        result = {"split": "test", "examples": 360, "params": 25_200, "macs": 10**6}
        ledger("done", metrics={"accuracy": 0.975, "loss": 0.1}, result=result)
    return ledger


def answers(run: Path) -> dict[str, str]:
    read = record(run)
    return {item.question: item.answer for item in checklist(read, rows=comparison(read.events))}


def test_page_of_a_finished_search(tmp_path: Path) -> None:
    run = whole(tmp_path / "my run", SCORES)
    written = page(run)
    shown = written.read_text()
    assert written == run / "report.md"
    first = shown.split("## ")[0]
    for fact in ("`darts`", "10^18", "`digits`", "3epochs", "1.93 M", "**94.50 %**", "not distinguishable"):
        assert fact in first
    for fact in ("94.00 ± 1.00", "| search | 15.0 |", "| selection | 2.0 |", "| training | 50.0 |", "abc123"):
        assert fact in shown
    assert len(links(written)) == 2
    assert all(link.read_text().startswith("<?xml") for link in links(written))
    assert "nas resume" not in shown
    assert f"nas export '{run}'" in shown
    before = [written.read_bytes(), *(link.read_bytes() for link in links(written))]
    assert [page(run).read_bytes(), *(link.read_bytes() for link in links(written))] == before


def test_page_of_a_search_without_controls_claims_nothing(tmp_path: Path) -> None:
    run = whole(tmp_path / "run", {})
    shown = page(run).read_text()
    assert shown.count("cannot be told from luck") == 2
    assert "shared weights" in shown.split("## ")[0]
    answered = answers(run)
    for question in (
        "Same data, split, space, training code and settings",
        "Same evaluation protocol for all",
    ):
        assert answered[question] == "not applicable"
    assert answered["Compared with random search"] == "no"


def test_page_of_an_unfinished_search(tmp_path: Path) -> None:
    made = space("nasbench201")
    ledger = black_box(made, [0.5, None, 0.7])
    best = {
        **made.parse("best").to_dict(),
        "params": 10**6,
        "macs": 10**8,
        "metrics": {"valid_accuracy": 0.7},
    }
    run = write_run(tmp_path / "run", ledger, best=best, **search_config("nasbench201", "random"))
    with open(run / "events.jsonl", "a") as torn:
        torn.write('{"kind": "tri')
    shown = page(run).read_text()
    for fact in ("**Not finished**: 3 trials", "15,625 encodings", "3 trials, 1 failed", f"nas resume {run}"):
        assert fact in shown
    assert answers(run)["Time of the whole method, end to end, and hardware"] == "no"


def test_page_of_a_search_that_has_just_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", Ledger(), **search_config("nowhere.py:gone", "darts"))
    (run / "events.jsonl").unlink()
    (run / "environment.json").unlink()
    shown = page(run).read_text()
    assert "Result: none yet." in shown
    answered = answers(run)
    assert "yes" not in {a for q, a in answered.items() if not q.startswith("Hyperparameters")}
    assert answered["Code of the search space"] == "no"


@pytest.mark.parametrize("finished", [True, False])
def test_page_of_a_training(tmp_path: Path, finished: bool) -> None:
    what = {"name": "found", "space": "darts", "literal": space("darts").parse("DARTS_V2").literal}
    config = {
        "command": "train",
        "what": what,
        "data": {"name": "digits"},
        "network": {"cells": 20},
        "seed": 3,
    }
    run = write_run(tmp_path / "run", training(finished=finished), **config)
    shown = page(run).read_text()
    assert "normal x6" in shown
    assert ("accuracy 97.50 %" in shown) == finished
    assert ("nas resume" in shown) == (not finished)
    assert "25.2 k parameters" in shown or not finished
    assert len(links(run / "report.md")) == 2


def test_checklist_has_every_item_and_rests_on_facts(tmp_path: Path) -> None:
    run = whole(tmp_path / "run", SCORES)
    read = record(run)
    items = checklist(read, rows=comparison(read.events))
    assert len(items) == len({item.question for item in items}) == 16
    assert all(item.fact for item in items)
    answered = answers(run)
    assert answered["Same data, split, space, training code and settings"] == "yes"
    assert answered["Confounding factors controlled"] == "yes"
    with open(run / "events.jsonl", "a") as ledger:
        ledger.write(json.dumps({"kind": "resume", "time": 1.8e9, "seconds": 70.0}) + "\n")
    assert answers(run)["Confounding factors controlled"] == "no"


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run"):
        page(tmp_path)
