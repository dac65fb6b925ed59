"""Simulated: workers on a clock of its own, for evaluations whose results and costs are known."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from nas.execution.executor import Evaluator, Executor, Result, Trial


class Simulated(Executor):
    """Trials finish in the order of the simulated clock, whatever the real time.

    Args:
        evaluate: gives the result at once.
        cost: seconds that the evaluation of a trial takes on the clock.
        workers: that work at a time; a trial waits for the first that is free.
    """

    def __init__(self, evaluate: Evaluator, cost: Callable[[Trial], float], *, workers: int = 1) -> None:
        self.evaluate, self.cost = evaluate, cost
        self.now = 0.0  # seconds
        self._free = [0.0] * workers
        self._running: list[tuple[float, int, Trial, Result | Exception]] = []

    def submit(self, trial: Trial) -> None:
        outcome: Result | Exception
        try:
            outcome, cost = self.evaluate(trial, seed=0), self.cost(trial)
        except ValueError as error:
            outcome, cost = error, 0.0
        end = max(self.now, heapq.heappop(self._free)) + cost
        heapq.heappush(self._free, end)
        heapq.heappush(self._running, (end, trial.number, trial, outcome))

    def completed(self) -> Iterator[tuple[Trial, Result | Exception]]:
        while self._running:
            end, _, trial, outcome = heapq.heappop(self._running)
            self.now = max(self.now, end)
            yield trial, outcome

    def close(self) -> None:
        self._running.clear()
