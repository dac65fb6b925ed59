"""Searches on a Ray cluster as a user runs them: one ledger with every executor, kills, Ctrl-C, storage."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import Begun, begin, descendants, executed, wait_for
from conftest import TINY_SEARCH, ledger, sets

from nas.run import events

SEARCH = [
    "search",
    *sets([*TINY_SEARCH, "strategy=random", "strategy.epochs=1", "search.lag=3"]),
    "--seed",
    "1",
]
KINDS = ("start", "resume", "finished")  # which lines may differ
RAY = ["--executor", "ray", "--set", "executor.address=local"]
SLOW = '''
import time
from nas.evaluators.scratch import Scratch

class Slow(Scratch):
    """Takes its time"""

    def __call__(self, trial, *, seed):
        print("evaluating", trial.number, flush=True)
        time.sleep(0.5)
        return super().__call__(trial, seed=seed)
'''


@contextmanager
def running(*arguments: object, folder: Path) -> Iterator[Begun]:
    """A command that is at work; whatever is left of it is killed in the end."""
    process = begin(*arguments, folder=folder)
    try:
        yield process
    finally:
        kill(process)


def kill(process: Begun) -> None:
    """The driver and all that it started: Ray's head, raylet and workers."""
    for pid in [process.pid, *descendants(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def reached(folder: Path, count: int) -> Callable[[], bool]:
    """Whether a run has so many trials."""
    return lambda: sum(event["kind"] == "trial" for event in events(folder)) >= count


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The search in one process: its folder, with the file of the evaluator beside it."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "own.py").write_text(SLOW)
    own = ["--set", f"evaluator={folder}/own.py:Slow", "--budget", "10trials"]
    ended = executed(*SEARCH, *own, "--run", "alone", folder=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def own(alone: Path, *more: object) -> list[object]:
    return [*SEARCH, "--set", f"evaluator={alone}/own.py:Slow", "--budget", "10trials", *RAY, *more]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_cluster_gives_what_one_process_gives(alone: Path, workers: int) -> None:
    """The same ledger; what workers printed is in the run's folder, and nothing of it on the terminal."""
    folder = alone / f"ray-{workers}"
    ended = executed(*own(alone, "--workers", workers, "--run", folder), folder=alone)
    assert ended.returncode == 0, ended.stderr
    assert ledger(folder, without=KINDS) == ledger(alone / "alone", without=KINDS)
    assert (folder / "best.yaml").read_bytes() == (alone / "alone/best.yaml").read_bytes()
    printed = "".join(path.read_text() for path in (folder / "workers").iterdir())
    assert all(f"evaluating {number}\n" in printed for number in range(10))
    assert "evaluating" not in ended.stdout + ended.stderr
    told = [event["worker"] for event in events(folder) if event["kind"] == "trial"]
    assert max(facts["workers"] for facts in told) <= workers
    assert told[-1]["done"] == 10


@pytest.mark.slow
def test_head_and_driver_killed(alone: Path) -> None:
    """All of it at once, and `nas resume` begins a new cluster: the same ledger in the end."""
    with running(*own(alone, "--workers", 2, "--run", "killed"), folder=alone) as process:
        wait_for(reached(alone / "killed", 3), process)
        kill(process)
    ended = executed("resume", "killed", folder=alone)
    assert ended.returncode == 0, ended.stderr
    assert ledger(alone / "killed", without=KINDS) == ledger(alone / "alone", without=KINDS)


@pytest.mark.slow
def test_interrupted_gently_and_at_once(alone: Path) -> None:
    """The first Ctrl-C lets what runs end and keeps it; the second stops at once. Nothing changes."""
    with running(*own(alone, "--workers", 2, "--run", "gentle"), folder=alone) as process:
        wait_for(reached(alone / "gentle", 2), process)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Ctrl-C again stops at once" in told
    assert "nas resume gentle" in told
    kept = [event for event in events(alone / "gentle") if event["kind"] == "finished"]
    assert kept
    done = sum(event["kind"] == "trial" for event in events(alone / "gentle"))
    with running("resume", "gentle", folder=alone) as process:
        wait_for(reached(alone / "gentle", done + 3), process)
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        began = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - began < 20
    assert process.returncode == 130
    assert executed("resume", "gentle", folder=alone).returncode == 0
    assert ledger(alone / "gentle", without=KINDS) == ledger(alone / "alone", without=KINDS)


def test_a_worker_may_ask_for_what_no_machine_has(tmp_path: Path) -> None:
    ended = executed(*SEARCH, "--budget", "2trials", *RAY, "--set", "executor.gpus=64", folder=tmp_path)
    assert ended.returncode == 2
    assert "64 GPU" in ended.stderr
    assert "Traceback" not in ended.stderr
