"""An executor for tests of strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nas.execution import Executor, Result, Trial


class Evaluated(Executor):
    """Evaluates by a function, in the order of submission; an exception of it is a failed trial.

    `evaluated`: the trials so far.
    """

    def __init__(self, evaluate: Callable[[Trial], Result]) -> None:
        self.evaluate = evaluate
        self.queue: list[Trial] = []
        self.evaluated: list[Trial] = []

    def submit(self, trial: Trial) -> None:
        self.queue.append(trial)

    def completed(self) -> Iterator[tuple[Trial, Result | Exception]]:
        while self.queue:
            trial = self.queue.pop(0)
            self.evaluated.append(trial)
            try:
                yield trial, self.evaluate(trial)
            except RuntimeError as error:
                yield trial, error

    def close(self) -> None:
        self.queue.clear()
