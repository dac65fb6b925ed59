"""Trials of a real search: failures, processes that die, hopeless trials, time on several devices."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from commands import begin, executed, wait_for
from conftest import TINY_SEARCH, Command, ledger, sets

from nas.budget import Budget
from nas.execution import devices
from nas.execution.early_stop import FIRST, Medians, hopeless

OWN = '''
import os, signal
from pathlib import Path

class Own:
    """Some die, some raise"""

    def __init__(self, space, examples, recipe, device="cpu"):
        self.mark = Path(__file__).with_name("died")

    def __call__(self, trial, *, seed):
        if trial.number == 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if trial.number == 4:
            raise ValueError("no such layer")
        if trial.number == 5:
            return {"valid_accuracy": float("nan")}
        return {"valid_accuracy": trial.number / 10}
'''


def trials(run: Path) -> list[dict[str, Any]]:
    return [event for event in ledger(run) if event["kind"] == "trial"]


# --- failures -----------------------------------------------------------------------------------------------


def test_a_process_that_dies_loses_its_trial_alone(tmp_path: Path) -> None:
    """Killed once: the trial is tried again; killed twice: it failed. The trials beside it have results."""
    (tmp_path / "own.py").write_text(OWN)
    own = ["--set", "strategy=random", "--set", f"evaluator={tmp_path}/own.py:Own", "--budget", "9trials"]
    ended = executed("search", *sets(TINY_SEARCH), *own, "--workers", 2, "--run", "r", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = trials(tmp_path / "r")
    assert [event["step"] for event in found] == list(range(9))
    errors = {event["step"]: event["error"] for event in found if "error" in event}
    assert sorted(errors) == [3, 4, 5]
    assert errors[3].endswith("3 times")
    assert errors[4] == "ValueError: no such layer"
    assert errors[5] == "valid_accuracy is nan"
    assert all(
        event["metrics"] == {"valid_accuracy": event["step"] / 10}
        for event in found
        if event["step"] in (1, 8)
    )


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_diverged_trainings_are_results(tmp_path: Path, workers: int) -> None:
    """At an absurd rate every training diverges: a line each, and the search ends by its budget."""
    given = [*TINY_SEARCH, "strategy=asha", "train.lr=1e30", "train.warmup=0", "train.clip=0"]
    ended = executed(
        "search", *sets(given), "--budget", "4trials", "--workers", workers, "--run", "r", folder=tmp_path
    )
    assert ended.returncode == 1
    assert "all 4 failed" in ended.stderr
    errors = [event["error"] for event in trials(tmp_path / "r")]
    assert len(errors) == 4
    assert all(error.startswith("FloatingPointError") for error in errors)


# --- hopeless trials ----------------------------------------------------------------------------------------


def test_hurdles_are_medians_of_averages() -> None:
    """Golovin et al. 2017, section 3.2.2, by the definition; trials of other lengths do not count."""
    medians, rng = Medians(), Random(0)
    curves: list[list[float]] = []
    assert medians.hurdles(4) == (0.0,)
    for _ in range(30):
        curve = [rng.random() for _ in range(rng.choice((1, 2, 4)))]
        curves.append(curve)
        medians.tell(4, curve)
        medians.tell(9, [rng.random()])
        for epoch, hurdle in enumerate(medians.hurdles(4), 1):
            there = [statistics.fmean(each[:epoch]) for each in curves if len(each) >= epoch]
            expected = statistics.median(there) if len(there) >= FIRST else 0.0
            assert math.isclose(hurdle, expected)


def test_a_trial_is_judged_by_its_best_so_far() -> None:
    assert not hopeless([0.0], (0.0,))
    assert hopeless([0.2], (0.3, 0.4))
    assert not hopeless([0.5, 0.2], (0.3, 0.4))
    assert hopeless([0.35, 0.2], (0.3, 0.4))
    assert not hopeless([0.1, 0.1, 0.1], (0.3, 0.4))  # nothing is known of a third epoch


EARLY = [
    *(each for each in TINY_SEARCH if not each.startswith(("data.limit", "space.channels"))),
    *("data.limit=600", "space.channels=4", "train.lr=0.1", "train.batch=32"),
    *("strategy=random", "strategy.epochs=3", "budget=14trials", "search.lag=1"),
]


def test_hopeless_trials_stop_and_nothing_else_changes(nas: Command, tmp_path: Path) -> None:
    """Each trial stops where the rule says, from the ledger alone; those that end are as without the rule."""
    assert nas("search", *sets([*EARLY, "search.early_stop=median"]), "--run", "r", "--quiet").status == 0
    assert nas("search", *sets(EARLY), "--run", "plain", "--quiet").status == 0
    found, plain = trials(Path("r")), trials(Path("plain"))
    medians = Medians()
    stops = 0
    for event, other in zip(found, plain, strict=True):
        if event["step"] >= 2:  # a lag of one: told are those before the last
            medians.tell(3, found[event["step"] - 2]["accuracies"])
        hurdles, curve = medians.hurdles(3), event["accuracies"]
        assert event["literal"] == other["literal"]
        assert not any(hopeless(curve[:epoch], hurdles) for epoch in range(1, len(curve)))
        if len(curve) < 3:
            stops += 1
            assert hopeless(curve, hurdles)
            assert event["metrics"]["stopped_at"] == len(curve)
        else:
            assert event["metrics"] == other["metrics"]
            assert curve[-1] == event["metrics"]["valid_accuracy"]
    assert stops
    whole = [event for event in found if "stopped_at" not in event["metrics"]]
    best = max(whole, key=lambda event: event["metrics"]["valid_accuracy"])
    assert [e["literal"] for e in ledger(Path("r")) if e["kind"] == "selected"] == [best["literal"]]


def test_stopped_trials_go_on_from_any_line(nas: Command) -> None:
    given = sets([*EARLY, "search.early_stop=median"])
    assert nas("search", *given, "--run", "r", "--quiet").status == 0
    written = Path("r/events.jsonl").read_bytes().splitlines(keepends=True)
    whole, best = ledger(Path("r")), Path("r/best.yaml").read_bytes()
    for kept in (13, 20):
        Path("r/events.jsonl").write_bytes(b"".join(written[:kept]))
        Path("r/best.yaml").unlink()
        assert nas("resume", "r", "--quiet").status == 0
        assert ledger(Path("r")) == whole
        assert Path("r/best.yaml").read_bytes() == best


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["strategy=darts", "budget=1epochs"], "has no trials to stop"),
        (["strategy=random", "search.early_stop=mean"], "early_stop"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(nas: Command, settings: list[str], reason: str) -> None:
    given = [*TINY_SEARCH, "search.early_stop=median", *settings]
    ended = nas("search", *sets(given), "--run", "r", "--quiet")
    assert ended.status == 2
    assert reason in ended.err
    assert not Path("r").exists()


# --- order, workers, kills ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asha", "hyperband", "bohb", "random", "regularized_evolution"])
def test_workers_and_kills_change_nothing(name: str, tmp_path: Path) -> None:
    """One process; two workers; two workers killed and taken up again: one ledger."""
    own = ["strategy.population=4", "strategy.epochs=1"] if name == "regularized_evolution" else []
    given = ["search", *sets([*TINY_SEARCH, f"strategy={name}", *own, "search.early_stop=median"])]
    given += ["--budget", "12trials", "--seed", "1"]
    assert executed(*given, "--set", "search.lag=1", "--run", "one", folder=tmp_path).returncode == 0
    assert executed(*given, "--workers", 2, "--run", "two", folder=tmp_path).returncode == 0
    assert ledger(tmp_path / "one") == ledger(tmp_path / "two")
    killed = begin(*given, "--workers", 2, "--run", "killed", "--quiet", folder=tmp_path)
    events = tmp_path / "killed" / "events.jsonl"
    wait_for(lambda: events.exists() and events.read_text().count('"kind": "trial"') >= 5, killed)
    killed.kill_group()
    assert executed("resume", "killed", folder=tmp_path).returncode == 0
    assert ledger(tmp_path / "killed") == ledger(tmp_path / "one")
    best = (tmp_path / "one" / "best.yaml").read_bytes()
    assert (tmp_path / "two" / "best.yaml").read_bytes() == best
    assert (tmp_path / "killed" / "best.yaml").read_bytes() == best


# --- time on several devices --------------------------------------------------------------------------------


def test_device_hours_count_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget.parse("8gpuh")
    assert budget.spent(seconds=8 * 3600 - 1) is None
    assert budget.spent(seconds=8 * 3600) == "8 device-hours"
    assert budget.spent(seconds=2 * 3600, devices=4) == "8 device-hours"
    assert budget.spent(seconds=2 * 3600 - 1, devices=4) is None
    assert Budget.parse("2h").spent(seconds=3600, devices=4) is None  # hours are those of the clock
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)

    def used(device: str, workers: int, *, supernet: bool = False, **more: object) -> float:
        executor = {"name": "local", "workers": workers, **more}
        return devices({"device": device, "executor": executor}, supernet)

    assert [used("cuda", workers) for workers in (1, 3, 8)] == [1, 3, 4]
    assert used("cuda:1", 8) == used("cpu", 8) == used("cuda", 8, supernet=True) == 1
    assert used("cpu", 8, name="ray", gpus=0.25) == 2
    assert used("cuda", 3, name="ray", gpus=None, supernet=True) == 3
    assert used("cpu", 3, name="ray", gpus=None) == 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert used("cuda", 2) == 1
