"""Executors: what all of them promise, on real processes and on a real Ray cluster of several nodes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import over
from faulty import Faulty

import nas
from nas.execution import EXECUTORS, Executor, Trial
from nas.run import RunFailed
from nas.seeding import derive

Made = Callable[..., Executor]
ARCHITECTURE = nas.space("nasbench201").sample(Random(0))
QUICK = {"backoff": 0.05}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with two slots each, as real raylets; this process is a driver of it."""
    import ray
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # what is sent is defined here
    head: dict[str, Any] = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 200 << 20}
    head["_system_config"] = {"health_check_period_ms": 500, "health_check_failure_threshold": 2}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=2, object_store_memory=100 << 20)
    ray.init(made.address, logging_level="ERROR", log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()
    patch.undo()


@pytest.fixture(params=sorted(EXECUTORS))
def make(request: pytest.FixtureRequest) -> Iterator[Made]:
    """A maker of executors of one kind, which are closed in the end."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
    made: list[Executor] = []

    def make(*arguments: Any, **settings: Any) -> Executor:
        made.append(EXECUTORS[request.param](*arguments, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def trials(count: int) -> list[Trial]:
    return [Trial(number, ARCHITECTURE) for number in range(count)]


def outcomes(executor: Executor, count: int) -> dict[int, Any]:
    """Of so many trials, by number; each exactly once."""
    for trial in trials(count):
        executor.submit(trial)
    found: dict[int, Any] = {}
    for trial, outcome in executor.completed():
        assert trial.number not in found
        found[trial.number] = outcome
    assert sorted(found) == list(range(count))
    return found


def result(number: int, seed: int = 0) -> dict[str, float]:
    return {"valid_accuracy": number / 2, "seed": derive(seed, "trial", number)}


# What pools have in common, in CI with processes alone; on a cluster all of it is slow.
in_common = pytest.mark.parametrize(
    "make", ["local", pytest.param("ray", marks=pytest.mark.slow)], indirect=True
)


# --- results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_results_follow_from_seed_and_number_alone(make: Made, tmp_path: Path, workers: int) -> None:
    executor = make(Faulty(tmp_path), 7, workers=workers)
    assert outcomes(executor, 20) == {number: result(number, 7) for number in range(20)}
    assert len(list(tmp_path.iterdir())) == 20


@in_common
@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_failures_are_results(make: Made, tmp_path: Path, workers: int) -> None:
    """Whatever the evaluation does within its process: the others have results, and it has one attempt."""
    faults = dict(enumerate(("raise", "memory", "diverge", "nonsense", "unsendable", "leave")))
    found = outcomes(make(Faulty(tmp_path, faults), workers=workers, **QUICK), 8)
    assert [found[number] for number in (6, 7)] == [result(number) for number in (6, 7)]
    assert isinstance(found[0], ValueError)
    assert isinstance(found[1], MemoryError)
    assert found[2]["valid_accuracy"] != found[2]["valid_accuracy"]
    assert found[3] == "all went well"
    assert str(found[4]) == "Own: of a class of its own"
    assert isinstance(found[5], RuntimeError)
    assert len(list(tmp_path.iterdir())) == 8


@pytest.mark.parametrize("make", over(sorted(EXECUTORS), but=("ray",)), indirect=True)
def test_lost_workers_are_replaced(make: Made, tmp_path: Path) -> None:
    """Once: the trial has its result in the end; always: it failed, after as many attempts as are allowed."""
    faults = {0: "once-kill", 1: "kill", 2: "once-exit", 3: "once-disk", 4: "disk", 5: "unpicklable"}
    faults |= {7: "once-hang"}
    executor = make(Faulty(tmp_path, faults), workers=2, timeout=4.0, retries=1, **QUICK)
    found = outcomes(executor, 12)
    assert all(found[number] == result(number) for number in (0, 2, 3, 6, 7, 8, 9, 10, 11))
    assert isinstance(found[1], RuntimeError)
    assert "2 times" in str(found[1])
    assert isinstance(found[4], OSError)
    assert isinstance(found[5], RuntimeError)
    attempts = {number: len(list(tmp_path.glob(f"{number}-*"))) for number in range(12)}
    assert attempts == {**dict.fromkeys(range(12), 1), **dict.fromkeys((0, 1, 2, 3, 4, 7), 2)}
    told = executor.facts()
    assert (told["done"], told["failed"], told["running"], told["queued"]) == (9, 3, 0, 0)
    assert told["retried"] in (5, 6)  # the one that hangs is late, or begun by an idle worker before it is


def environment(trial: Trial, *, seed: int) -> dict[str, float]:
    return {"valid_accuracy": float(os.environ.get("CHANGED", "-1"))}


def test_processes_have_the_environment_of_their_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is when they begin, though all are forks of one process."""
    for value in (1.0, 2.0):
        monkeypatch.setenv("CHANGED", str(value))
        executor = EXECUTORS["local"](environment, workers=2)
        assert outcomes(executor, 2) == {number: {"valid_accuracy": value} for number in range(2)}
        executor.close()


@in_common
def test_a_slow_worker_holds_nobody_up(make: Made, tmp_path: Path) -> None:
    """A trial that takes much longer than others is begun by an idle worker too; the first result counts."""
    executor = make(Faulty(tmp_path, {9: "once-slow"}), workers=2)
    outcomes(executor, 1)  # the worker is there
    began = time.monotonic()
    for trial in trials(10)[1:]:
        executor.submit(trial)
    found = [(trial.number, outcome) for trial, outcome in executor.completed()]
    assert sorted(found) == [(number, result(number)) for number in range(1, 10)]
    assert time.monotonic() - began < 45
    assert executor.facts()["done"] == 10


@in_common
def test_a_copy_that_fails_does_not_count(make: Made, tmp_path: Path) -> None:
    """A late trial that an idle worker begins too, and fails at: the first worker's result is the trial's."""
    executor = make(Faulty(tmp_path, {9: "slow-then-raise"}), workers=2)
    assert outcomes(executor, 10) == {number: result(number) for number in range(10)}
    assert len(list(tmp_path.glob("9-*"))) == 2


@in_common
def test_what_must_not_be_done_twice_is_not(make: Made, tmp_path: Path) -> None:
    executor = make(Faulty(tmp_path, {9: "slow-then-raise"}), workers=2)
    executor.copies = False
    assert outcomes(executor, 10) == {number: result(number) for number in range(10)}
    assert len(list(tmp_path.glob("9-*"))) == 1


@in_common
def test_halted_what_is_lost_is_no_failure(make: Made, tmp_path: Path) -> None:
    """It begins again when the search goes on."""
    executor = make(Faulty(tmp_path, {1: "kill"}), workers=2, **QUICK)
    outcomes(executor, 1)  # a worker is there
    executor.submit(Trial(1, ARCHITECTURE))
    executor.halt()
    assert list(executor.completed()) == []
    assert executor.facts()["failed"] == 0


@in_common
def test_halted_what_runs_ends_and_what_waits_is_forgotten(make: Made, tmp_path: Path) -> None:
    executor = make(Faulty(tmp_path, seconds=0.5), workers=2)
    for trial in trials(10):
        executor.submit(trial)
    first, _ = next(executor.completed())
    executor.halt()
    ended = {first.number, *(trial.number for trial, _ in executor.completed())}
    assert len(ended) <= 3
    assert len(list(tmp_path.iterdir())) == len(ended)


def test_an_evaluation_that_cannot_be_sent_is_told(make: Made) -> None:
    lock = threading.Lock()
    executor = make(lambda trial, *, seed: {"valid_accuracy": lock}, workers=2)
    with pytest.raises(ValueError, match="cannot be sent"):
        outcomes(executor, 2)


# --- the cluster --------------------------------------------------------------------------------------------


def test_a_node_that_is_lost_loses_no_trial(cluster: Any, tmp_path: Path) -> None:
    """A raylet is killed with its workers; their trials are evaluated elsewhere. A node that joins works."""
    notes: list[str] = []
    node = cluster.add_node(num_cpus=2, resources={"extra": 2}, object_store_memory=100 << 20)
    asked = {"resources": {"extra": 1}}
    executor = EXECUTORS["ray"](Faulty(tmp_path, seconds=1.0), workers=2, **asked, **QUICK)
    executor.note = notes.append
    for trial in trials(6):
        executor.submit(trial)
    completed = executor.completed()
    ended = [next(completed)]
    cluster.remove_node(node, allow_graceful=False)  # nowhere else is there anything of `extra`
    cluster.add_node(num_cpus=2, resources={"extra": 2}, object_store_memory=100 << 20)
    ended += list(completed)
    executor.close()
    assert sorted((trial.number, outcome) for trial, outcome in ended) == [(n, result(n)) for n in range(6)]
    assert any("begins again" in note for note in notes)
    assert sum("joined" in note for note in notes) >= 3


def test_workers_of_a_node_share_its_data(cluster: Any) -> None:
    """The arrays come from the node's object store: mapped, not copied into each process."""
    import numpy as np

    executor = EXECUTORS["ray"](Shared(np.zeros(1 << 20, np.uint8)), workers=2)
    try:
        assert all(outcome == {"valid_accuracy": 1.0} for outcome in outcomes(executor, 4).values())
    finally:
        executor.close()


class Shared:
    """Looks where its array is."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __call__(self, trial: Trial, *, seed: int) -> dict[str, float]:
        return {"valid_accuracy": float(not self.array.flags.owndata and not self.array.flags.writeable)}


def test_a_cluster_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    executor = EXECUTORS["ray"](Shared(None), address="127.0.0.1:1")
    monkeypatch.setattr(ray, "init", lambda *args, **kwargs: (_ for _ in ()).throw(ConnectionError("none")))
    with pytest.raises(RunFailed, match="no Ray cluster to join"):
        outcomes(executor, 1)


# --- many faults --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_hundred_faults(make: Made, tmp_path: Path) -> None:
    """No trial is lost, none counted twice, whatever dies meanwhile."""
    rng = Random(0)
    kinds = ("once-kill", "once-exit", "once-disk", "leave", "raise", "memory")
    faults = {number: rng.choice(kinds) for number in rng.sample(range(400), 210)}
    faults |= dict.fromkeys(list(faults)[:5], "kill")
    executor = make(Faulty(tmp_path, faults, seconds=0.01), workers=4, retries=2, **QUICK)
    found = outcomes(executor, 400)
    for number, outcome in found.items():
        if faults.get(number, "once").startswith("once"):
            assert outcome == result(number)
        else:
            assert isinstance(outcome, Exception)
