"""Milliseconds that a trial of a search costs beside its evaluation; seconds to take a long search up again.

    python benchmarks/strategy_overhead.py [--trials 100000] [--space darts] [--cells 8]
    [--strategy random --strategy regularized_evolution ...]

The whole loop runs: propose, submit, tell, two lines of the ledger, best.yaml. The evaluation is a number
made of the architecture's digest. The space is so large that hardly a network comes twice. Of each strategy:
the mean of a trial in the window that ends at 1,000, 10,000 ... trials; then the run is opened again and all
of it is told to a new strategy. All in seconds of this process's CPU, so that others on the machine matter
less; the ratio is to the first strategy, in the same window of the same call.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zlib import crc32

from nas.config import resolve_search
from nas.loop import Search, Watcher, begin
from nas.run import Run
from nas.search_space import Architecture
from nas.strategies import STRATEGIES

STRATEGY_NAMES = ("random", "regularized_evolution", "evolution", "local_search", "reinforce", "asha")


class Clock(Watcher):
    """Remembers this process's CPU time after some numbers of trials."""

    def __init__(self, marks: list[int]) -> None:
        self.marks, self.trials, self.at = set(marks), 0, {0: time.process_time()}

    def event(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "trial":
            self.trials += 1
            if self.trials in self.marks:
                self.at[self.trials] = time.process_time()


def accuracy(architecture: Architecture) -> float:
    """A number in 0..1: half of it the mean of fixed weights of the choices, half of it noise."""
    weights = [crc32(repr(each).encode()) for each in architecture.choices.items()]
    return (sum(weights) / len(weights) + int(architecture.digest[:8], 16)) / 2**33


def windows(trials: int) -> dict[int, int]:
    """End -> beginning: the trials 500..1,000, 9,000..10,000, 99,000..100,000."""
    ends = [10**power for power in itertools.takewhile(lambda p: 10**p <= trials, itertools.count(3))]
    return {end: end - min(1000, end // 2) for end in ends or [trials]}


def configured(strategy: str, options: argparse.Namespace) -> dict[str, Any]:
    scale = {"name": options.space} | ({"cells": options.cells} if options.cells else {})
    layers = {"space": scale, "strategy": strategy, "budget": f"{options.trials}trials", "controls": 0}
    return resolve_search([layers])


def taken_up(strategy: str, options: argparse.Namespace, folder: Path) -> None:
    """Open a finished run again: all of it is told to a new strategy."""
    with Run.open(folder) as run:
        Search(run, configured(strategy, options), None, accuracy).search()


def measure(strategy: str, options: argparse.Namespace, folder: Path) -> tuple[list[float], float]:
    """Seconds a trial in each window; seconds to take the finished run up."""
    config = configured(strategy, options)
    spans = windows(options.trials)
    clock = Clock([*spans, *spans.values()])
    with begin(config, folder) as run:
        Search(run, config, None, accuracy, clock).search()
    times = [(clock.at[end] - clock.at[first]) / (end - first) for end, first in spans.items()]
    began = time.process_time()
    taken_up(strategy, options, folder)
    return times, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--space", default="darts")
    parser.add_argument("--cells", type=int, help="of the space (default: its own)")
    parser.add_argument("--strategy", action="append", choices=sorted(STRATEGIES))
    options = parser.parse_args()
    names = options.strategy or [name for name in STRATEGY_NAMES if name in STRATEGIES]
    ends = list(windows(options.trials))
    heads = [f"ms at {end:,}" for end in ends]
    print("| strategy | " + " | ".join(heads) + " | ratios | taken up, s |")
    print("|---|" + "---|" * (len(heads) + 2))
    first: list[float] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            times, again = measure(name, options, Path(folder) / "run")
        first = first or times
        ratios = ", ".join(f"{own / base:.2f}" for own, base in zip(times, first, strict=True))
        cells = " | ".join(f"{1000 * seconds:.2f}" for seconds in times)
        print(f"| {name} | {cells} | {ratios} | {again:.1f} |", flush=True)


if __name__ == "__main__":
    main()
