"""What executors cost beside the evaluation: milliseconds a trial, how they scale, what a long queue takes.

    python benchmarks/executor.py [--trials 300] [--tune 8] [--workers 1 2 4 8 16] [--sleep 0.2] [--each 20]
        [--queued 10000] [--part overhead --part scaling --part queue]

Three tables, each on a Ray cluster of its own on this machine, which ends with it:

overhead: milliseconds a trial that does nothing, workers already there. Processes are the executor `local`;
tasks are plain Ray without a pool; Ray Tune is asked for few samples and for more, and the difference is
divided, so that its start is not counted. What a search adds itself is in driver_rate.py.

scaling: trials that sleep, so many for each worker. Ideal are all workers asleep all the time. The cluster
is told to have a CPU for each worker, so that more workers than cores can be measured.

queue: trials that are all submitted at once to two workers; resident memory of this process.

Everything is written below one temporary folder.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from nas.execution import EXECUTORS, Trial
from nas.execution.pool import Pool
from nas.search_space import space

PARTS = ("overhead", "scaling", "queue")
ARCHITECTURE = space("nasbench201").sample(Random(0))
AT_ONCE = 2  # workers, tasks or Tune's trials, where nothing else is said
FEW = 2  # of Tune's samples


@dataclass(frozen=True)
class Sleeping:
    """An evaluator that takes so many seconds and computes nothing."""

    seconds: float = 0.0

    def __call__(self, trial: Trial, *, seed: int) -> dict[str, float]:
        if self.seconds:
            time.sleep(self.seconds)
        return {"valid_accuracy": 0.5}


@contextmanager
def cluster(cpus: int, folder: str) -> Iterator[None]:
    """A Ray cluster of this machine alone, said to have so many CPUs."""
    import ray

    ray.init(
        "local", num_cpus=cpus, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
        object_store_memory=200 << 20, _temp_dir=folder,
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def pool(name: str, workers: int, seconds: float = 0.0) -> Iterator[Pool[Any]]:
    """An executor with all its workers ready."""
    made = EXECUTORS[name](Sleeping(seconds), workers=workers)
    assert isinstance(made, Pool)
    try:
        while made.facts()["workers"] < workers:
            submitted(made, workers)
            drained(made)
        yield made
    finally:
        made.close()


def submitted(executor: Pool[Any], count: int) -> None:
    for number in range(count):
        executor.submit(Trial(number, ARCHITECTURE))


def drained(executor: Pool[Any]) -> int:
    """Wait for all results; how many there were."""
    return sum(not isinstance(outcome, Exception) for _, outcome in executor.completed())


def timed(executor: Pool[Any], count: int) -> float:
    """Seconds for so many trials."""
    began = time.perf_counter()
    submitted(executor, count)
    assert drained(executor) == count
    return time.perf_counter() - began


def resident() -> float:
    """MiB that this process holds in main memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- others to compare with ---------------------------------------------------------------------------------


def of_tasks(count: int) -> float:
    """Milliseconds of one plain Ray task, of which two run at a time."""
    import ray

    def evaluate(trial: Trial) -> dict[str, float]:
        return Sleeping()(trial, seed=0)

    remote: Any = ray.remote(num_cpus=1)(evaluate)
    ray.get([remote.remote(Trial(number, ARCHITECTURE)) for number in range(100)])
    began = time.perf_counter()
    ray.get([remote.remote(Trial(number, ARCHITECTURE)) for number in range(count)])
    return 1000 * (time.perf_counter() - began) / count


def of_tune(trainable: Any, count: int, folder: str, **settings: Any) -> float:
    """Milliseconds of one more sample of Ray Tune."""
    from ray import tune

    def seconds(samples: int) -> float:
        tuner = tune.Tuner(
            trainable,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=samples, max_concurrent_trials=AT_ONCE, **settings),
            run_config=tune.RunConfig(storage_path=f"{folder}/tune", verbose=0),
        )
        began = time.perf_counter()
        assert len(tuner.fit()) == samples
        return time.perf_counter() - began

    first = seconds(FEW)
    return 1000 * (seconds(count) - first) / (count - FEW)


def trainables() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """What Ray Tune is given: label, trainable, settings."""
    from ray import tune

    def function(config: dict[str, float]) -> None:
        tune.report({"valid_accuracy": 0.5})

    class Reused(tune.Trainable):
        def step(self) -> dict[str, Any]:
            return {"valid_accuracy": 0.5, "done": True}

        def reset_config(self, new_config: dict[str, float]) -> bool:
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            return

    yield "Ray Tune, a function", function, {}
    yield "Ray Tune, a class whose actors are reused", Reused, {"reuse_actors": True}


# --- the tables ---------------------------------------------------------------------------------------------


def overhead(options: argparse.Namespace, folder: str) -> None:
    print("| no work | at a time | ms a trial |\n|---|---|---|")

    def row(label: str, at_once: int, milliseconds: float) -> None:
        print(f"| {label} | {at_once} | {milliseconds:.2f} |", flush=True)

    count = options.trials
    with pool("local", AT_ONCE) as executor:
        row("processes (`local`)", AT_ONCE, 1000 * timed(executor, count) / count)
    with cluster(AT_ONCE, folder):
        row("plain Ray tasks", AT_ONCE, of_tasks(count))
        for workers in (1, AT_ONCE):
            with pool("ray", workers) as executor:
                row("the Ray pool (`ray`)", workers, 1000 * timed(executor, count) / count)
        for label, trainable, settings in trainables() if options.tune > FEW else ():
            row(label, AT_ONCE, of_tune(trainable, options.tune, folder, **settings))


def scaling(options: argparse.Namespace, folder: str) -> None:
    print(
        f"| workers | trials of {options.sleep:g} s | seconds | ideal | efficiency |\n|---|---|---|---|---|"
    )
    ideal = options.each * options.sleep
    with cluster(max(options.workers), folder):
        for workers in options.workers:
            with pool("ray", workers, options.sleep) as executor:
                seconds = timed(executor, workers * options.each)
            share = f"{100 * ideal / seconds:.0f} %"
            print(
                f"| {workers} | {workers * options.each} | {seconds:.2f} | {ideal:.2f} | {share} |",
                flush=True,
            )


def queue(options: argparse.Namespace, folder: str) -> None:
    print(
        "| queued | MiB before | MiB queued | MiB after | seconds | results a second |\n" + "|---" * 6 + "|"
    )
    with cluster(AT_ONCE, folder), pool("ray", AT_ONCE) as executor:
        before, began = resident(), time.perf_counter()
        submitted(executor, options.queued)
        queued = resident()
        assert drained(executor) == options.queued
        seconds = time.perf_counter() - began
        print(
            f"| {options.queued:,} | {before:.0f} | {queued:.0f} | {resident():.0f} | {seconds:.1f} "
            f"| {options.queued / seconds:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument(
        "--tune", type=int, default=8, help=f"samples of Ray Tune (0: none; {FEW + 1} at least)"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--sleep", type=float, default=0.2)
    parser.add_argument("--each", type=int, default=20, help="sleeping trials a worker")
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--part", action="append", choices=PARTS)
    options = parser.parse_args()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the one that prints in spite of verbose=0
    tables = {"overhead": overhead, "scaling": scaling, "queue": queue}
    with tempfile.TemporaryDirectory(prefix="nas-", ignore_cleanup_errors=True) as folder:
        for part in options.part or PARTS:
            tables[part](options, folder)
            print()


if __name__ == "__main__":
    main()
