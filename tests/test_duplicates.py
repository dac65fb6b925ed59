"""The loop over trials: duplicates are replayed, a trial that fails is a line, an interrupted one is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ledger

from nas.api import search
from nas.search_space import Architecture, space

THREE = '''
from nas.graph import Builder, Hole
from nas.search_space import Decision, SearchSpace

def three(*, channels: int = 2, classes: int = 10, input: tuple[int, int, int] = (1, 8, 8)) -> SearchSpace:
    """Three architectures"""
    b = Builder(input)
    x = b("stem", "conv_bn_3x3", "input", out=channels, affine=True)
    x = b("choice", Hole("choice", 0), x, out=channels)
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes)
    options = ("skip_connect", "nor_conv_1x1", "nor_conv_3x3")
    return SearchSpace((Decision("choice", options),), b.graph())
'''


@pytest.fixture
def three(tmp_path: Path) -> str:
    """The address of a space of three architectures."""
    (tmp_path / "three.py").write_text(THREE)
    return f"{tmp_path}/three.py:three"


def score(architecture: Architecture) -> float:
    return {"skip": 0.1, "1x1": 0.3, "3x3": 0.2}[
        next(k for k in ("skip", "1x1", "3x3") if k in architecture.literal)
    ]


def test_duplicates_are_replayed_and_cost_no_budget(three: str, tmp_path: Path) -> None:
    calls: list[str] = []

    def objective(architecture: Architecture) -> float:
        calls.append(architecture.literal)
        return score(architecture)

    settings = {"space": three, "strategy": "random", "objective": objective, "device": "cpu"}
    found = search(**settings, budget="3trials", run=tmp_path / "r")
    trials = [event for event in ledger(tmp_path / "r") if event["kind"] == "trial"]
    assert len(calls) == len(set(calls)) == 3
    assert found["cost"]["trials"] == 3
    assert found["best"] == "|nor_conv_1x1~0|"
    assert found["metrics"]["valid_accuracy"] == 0.3
    # More than there are: the search notices that it knows everything, and ends.
    calls.clear()
    found = search(**settings, budget="5trials", run=tmp_path / "s")
    trials = [event for event in ledger(tmp_path / "s") if event["kind"] == "trial"]
    assert len(calls) == found["cost"]["trials"] == 3
    replayed = [event for event in trials if event.get("replayed")]
    assert len(replayed) == len(trials) - 3 > 0
    assert [event["step"] for event in trials] == list(range(len(trials)))
    results = {event["literal"]: event["metrics"] for event in trials if not event.get("replayed")}
    assert all(event["metrics"] == results[event["literal"]] for event in replayed)


@pytest.mark.parametrize("lag", [0, 2])
def test_a_search_with_duplicates_goes_on_from_any_line(three: str, tmp_path: Path, lag: int) -> None:
    """Between the line that starts a repetition and the line of its result, for one."""
    (tmp_path / "two.py").write_text(
        "from nas.strategies import AskTell, Trial\nfrom random import Random\n"
        "class Two(AskTell):\n"
        '    """Pairs"""\n'
        "    def ask(self, number):\n"
        "        return Trial(number, self.task.space.sample(Random(number // 4)))\n"
    )
    calls: list[str] = []

    def objective(architecture: Architecture) -> float:
        calls.append(architecture.literal)
        return score(architecture)

    settings = {"space": three, "strategy": f"{tmp_path}/two.py:Two", "objective": objective, "device": "cpu"}
    settings |= {"budget": "3trials" if lag == 0 else "5trials", "search": {"lag": lag}}
    search(**settings, run=tmp_path / "r")
    evaluated = len(calls)
    assert any(event.get("replayed") for event in ledger(tmp_path / "r"))
    written = (tmp_path / "r" / "events.jsonl").read_bytes().splitlines(keepends=True)
    for kept in range(len(written)):
        run = tmp_path / f"cut{kept}"
        chosen = any(b'"kind": "selected"' in line for line in written[:kept])
        shutil.copytree(tmp_path / "r", run, ignore=None if chosen else shutil.ignore_patterns("best.yaml"))
        (run / "events.jsonl").write_bytes(b"".join(written[:kept]))
        done = sum(b'"kind": "trial"' in line and b"replayed" not in line for line in written[:kept])
        calls.clear()
        search(**settings, run=run, resume=True)
        assert len(calls) == evaluated - done, f"after {kept} lines"
        assert ledger(run, without=("resume",)) == ledger(tmp_path / "r", without=("resume",)), (
            f"after {kept} lines"
        )
        assert (run / "best.yaml").read_bytes() == (tmp_path / "r" / "best.yaml").read_bytes()


@pytest.mark.parametrize(
    "answer", [float("nan"), float("inf"), {}, {"accuracy": 1.0}, None, "good", RuntimeError("no")]
)
def test_a_trial_that_fails_is_a_line_and_the_search_goes_on(tmp_path: Path, answer: Any) -> None:
    def objective(architecture: Architecture) -> Any:
        calls.append(architecture.literal)
        if len(calls) != 2:
            return len(calls) / 10
        if isinstance(answer, Exception):
            raise answer
        return answer

    calls: list[str] = []
    scale = space("nasbench201", channels=2, cells=1)
    found = search(
        space=scale,
        strategy="random",
        objective=objective,
        budget="4trials",
        run=tmp_path / "r",
        device="cpu",
    )
    trials = [event for event in ledger(tmp_path / "r") if event["kind"] == "trial"]
    assert ["error" in event for event in trials] == [False, True, False, False]
    assert found["best"] == calls[3]
    json.dumps(found, allow_nan=False)
    if isinstance(answer, Exception):
        assert trials[1]["error"] == "RuntimeError: no"
    assert yaml.safe_load((tmp_path / "r" / "best.yaml").read_text())["literal"] == calls[3]


def test_a_search_without_one_result_says_so(tmp_path: Path) -> None:
    def objective(architecture: Architecture) -> float:
        raise ValueError("never")

    with pytest.raises(RuntimeError, match="failed"):
        search(
            space="nasbench201",
            strategy="random",
            objective=objective,
            budget="2trials",
            run=tmp_path / "r",
            device="cpu",
        )
    errors = [event["error"] for event in ledger(tmp_path / "r") if event["kind"] == "trial"]
    assert errors == ["ValueError: never"] * 2


def test_a_trial_interrupted_by_hand_is_no_failure(tmp_path: Path) -> None:
    def objective(architecture: Architecture) -> float:
        calls.append(architecture.literal)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return 0.5

    calls: list[str] = []
    settings = {
        "space": "nasbench201",
        "strategy": "random",
        "objective": objective,
        "budget": "3trials",
        "device": "cpu",
    }
    with pytest.raises(KeyboardInterrupt):
        search(**settings, run=tmp_path / "r")
    search(**settings, run=tmp_path / "r", resume=True)
    assert not [event for event in ledger(tmp_path / "r") if "error" in event]
    assert calls[1] == calls[2]
    assert len(calls) == 4
