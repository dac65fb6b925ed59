"""How many results a second the process that drives a search sustains, with the workers of a large cluster.

    python benchmarks/driver_rate.py [--workers 10000] [--results 20000] [--space darts] [--order free]
        [--strategy random --strategy regularized_evolution] [--ended 1] [--ended 100] [--profile]

The whole loop of a search runs: propose, submit, two lines of the ledger for each trial, best.yaml and,
unless --no-board, TensorBoard. An evaluation is a number made of the architecture's digest. What differs is
who evaluates:

simulated   the executor of `nas bench`, on a clock of its own: what strategy, ledger and loop take
pool        the common part of the executors `local` and `ray`, with workers that answer at once: what keeping
            so many workers busy takes besides. --ended: so many results are there whenever it looks

Measured is the window in which all workers are busy, from the first result on. Rate and shortest trial are
of this process's CPU time, so that others on the machine matter less. The shortest trial is workers / rate:
where trials are shorter on average, this process cannot keep so many workers busy.

The last table asks Ray itself: one `ray.wait` over a handle for each worker, none of which ends.
"""

from __future__ import annotations

import argparse
import cProfile
import logging
import os
import pstats
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zlib import crc32

from nas.config import resolve_search
from nas.execution import Evaluator, Executor, Trial
from nas.execution.pool import Pool
from nas.execution.simulated import Simulated
from nas.loop import Search, Watcher, begin
from nas.report.tensorboard import replay
from nas.run import LEDGER
from nas.search_space import Architecture
from nas.strategies import STRATEGIES

STRATEGY_NAMES = ("random", "regularized_evolution")
SHOWN = 25  # lines of a profile


def accuracy(architecture: Architecture) -> float:
    """A number in 0..1 made of the digest."""
    return int(architecture.digest[:8], 16) / 2**32


def seconds(trial: Trial) -> float:
    """What a trial takes on the simulated clock: an hour, give or take a half."""
    return 3600 * (0.5 + crc32(trial.architecture.literal.encode()) / 2**32)


class Instant(Pool[int]):
    """A pool whose workers answer at once; of their answers `ended` are there whenever it looks."""

    def __init__(self, evaluate: Evaluator, *, workers: int, ended: int) -> None:
        super().__init__(
            evaluate, workers=workers, threads=1, timeout=None, retries=2, backoff=1.0, storage=None
        )
        self.ended = ended
        self._answers: dict[int, Any] = {}
        self._last = 0

    def begin(self, worker: int) -> int:
        return self._handle("ready")

    def send(self, worker: int, trial: Trial, seed: int) -> int:
        return self._handle(self.evaluate(trial, seed=seed))

    def _handle(self, answer: Any) -> int:
        self._last += 1
        self._answers[self._last] = answer
        return self._last

    def wait(self, handles: Sequence[int], seconds: float) -> Sequence[int]:
        starting = len(self._starting)
        return handles[:starting] if starting else list(islice(handles, self.ended))

    def outcome(self, handle: int) -> Any:
        return self._answers.pop(handle)

    def drop(self, worker: int) -> None:
        return


class Driven(Search):
    """A search whose trials are evaluated by an executor of ours."""

    asked: argparse.Namespace
    ended: int

    def executor(self) -> Executor:
        from nas.evaluators import Objective

        evaluate = Objective(accuracy, self.goals[0].metric)
        if self.ended:
            return Instant(evaluate, workers=self.asked.workers, ended=self.ended)
        return Simulated(evaluate, seconds, workers=self.asked.workers)


class Measured(Exception):
    """Ends a search when its window does: what is still running is of no interest."""


class Window(Watcher):
    """Clocks at the first result and at the last proposal."""

    def __init__(self, proposals: int, profile: cProfile.Profile | None) -> None:
        self.proposals, self.profile = proposals, profile
        self.started = self.told = 0
        self.clocks: deque[tuple[int, float, float]] = deque()  # results, CPU, wall

    def event(self, event: Mapping[str, Any]) -> None:
        self.started += event["kind"] == "start"
        self.told += event["kind"] == "trial"
        first = event["kind"] == "trial" and self.told == 1
        last = event["kind"] == "start" and self.started == self.proposals
        if first or last:
            self.clocks.append((self.told, time.process_time(), time.perf_counter()))
            if self.profile is not None:
                self.profile.enable() if first else self.profile.disable()
        if last:
            raise Measured


def resident() -> float:
    """MiB that this process holds in main memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(strategy: str, ended: int, options: argparse.Namespace, folder: Path) -> str:
    """A row of the table."""
    proposals = options.workers + options.results
    layers = {
        "space": options.space, "strategy": strategy, "budget": f"{proposals}trials", "controls": 0,
        "search": {"lag": options.workers - 1, "order": options.order},
    }  # fmt: skip
    config = resolve_search([layers])
    profile = cProfile.Profile() if options.profile else None
    window, before, began = Window(proposals, profile), resident(), time.process_time()
    with begin(config, folder) as run:
        search = Driven(run, config, None, accuracy, window)
        search.asked, search.ended = options, ended
        if options.board:
            search.board = replay([], folder / "tensorboard", space=search.space, config=config)
        with suppress(Measured):
            search.search()
        if search.board is not None:
            search.board.close()
    if len(window.clocks) < 2:
        return f"| {strategy} | {options.space} has too few networks for {options.workers:,} workers |"
    (first, cpu, wall), (last, cpu_end, wall_end) = window.clocks
    rate = (last - first) / (cpu_end - cpu)
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(SHOWN)
    cells = (
        strategy, f"pool, {ended} at a look" if ended else "simulated",
        f"{cpu - began:.0f}", f"{last - first:,}",
        f"{rate:,.0f}", f"{(last - first) / (wall_end - wall):,.0f}", f"{options.workers / rate:,.0f}",
        f"{resident() - before:,.0f}", f"{(folder / LEDGER).stat().st_size / 2**20:,.0f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def alone() -> ProcessPoolExecutor:
    """A fresh process: what an earlier row held in memory is not counted."""
    return ProcessPoolExecutor(1, get_context("spawn"))


@contextmanager
def unready(count: int, folder: str) -> Iterator[list[Any]]:
    """So many handles of Ray tasks that never begin."""
    import ray

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    ray.init(
        "local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
        object_store_memory=200 << 20, _temp_dir=folder,
    )  # fmt: skip
    try:
        never: Any = ray.remote(resources={"nowhere": 1})(accuracy)
        yield [never.remote(None) for _ in range(count)]
    finally:
        ray.shutdown()


def waits(options: argparse.Namespace, folder: str) -> None:
    """Milliseconds of one look at all workers."""
    import ray

    print("\n| handles | ms of one ray.wait |\n|---|---|")
    with unready(options.workers, folder) as handles:
        for count in (10, 100, 1000, options.workers):
            began = time.perf_counter()
            for _ in range(10):
                ray.wait(handles[:count], num_returns=min(count, len(handles)), timeout=0)
            print(f"| {count:,} | {1000 * (time.perf_counter() - began) / 10:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=10_000)
    parser.add_argument("--results", type=int, default=20_000)
    parser.add_argument("--space", default="darts")
    parser.add_argument("--order", default="free", choices=("free", "number"))
    parser.add_argument("--strategy", action="append", choices=sorted(STRATEGIES))
    parser.add_argument(
        "--ended", type=int, action="append", help="0: simulated alone (default: 0, 1 and 100)"
    )
    parser.add_argument("--no-board", dest="board", action="store_false", help="without TensorBoard")
    parser.add_argument("--no-ray", dest="ray", action="store_false", help="without the last table")
    parser.add_argument("--profile", action="store_true", help="where the time goes within the window")
    options = parser.parse_args()
    heads = (
        "strategy", "evaluated by", "first proposals, s", "results", "a second of CPU", "a second",
        f"shortest trial for {options.workers:,} workers, s", "MiB grown", "MiB of ledger",
    )  # fmt: skip
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|", flush=True)
    for strategy in options.strategy or STRATEGY_NAMES:
        for ended in options.ended if options.ended is not None else (0, 1, 100):
            with tempfile.TemporaryDirectory(prefix="nas-") as folder, alone() as process:
                print(
                    process.submit(measure, strategy, ended, options, Path(folder) / "run").result(),
                    flush=True,
                )
    if options.ray:
        with tempfile.TemporaryDirectory(prefix="nas-", ignore_cleanup_errors=True) as folder:
            waits(options, folder)


if __name__ == "__main__":
    main()
