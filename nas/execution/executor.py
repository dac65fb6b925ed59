"""Trial, Evaluator, Executor: what is evaluated, by whom, and where; and the executor of one machine."""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field

from nas.registry import Registry
from nas.search_space import Architecture
from nas.seeding import derive

Result = Mapping[str, float]
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Trial:
    """One evaluation to make. `epochs`: how long to train, None for the evaluator's own default."""

    number: int
    architecture: Architecture
    epochs: int | None = None


class Evaluator(Protocol):
    """Gives an architecture's result. Picklable; the same trial and seed give the same result."""

    def __call__(self, trial: Trial, *, seed: int) -> Result: ...


class Executor(ABC):
    """Evaluates trials, somewhere. A failing evaluation is a result (an exception), not a crash."""

    @abstractmethod
    def submit(self, trial: Trial) -> None:
        """Start, or queue, the evaluation."""

    @abstractmethod
    def completed(self) -> Iterator[tuple[Trial, Result | Exception]]:
        """The submitted trials as they finish; ends when none is left."""

    @abstractmethod
    def close(self) -> None:
        """Stop what is running."""


EXECUTORS: Registry[Callable[..., Executor]] = Registry("executor")


@EXECUTORS.register("local")
class Local(Executor):
    """This machine: in this process, or in `workers` processes of `threads` threads each."""

    def __init__(
        self, evaluate: Evaluator, seed: int = 0, *, workers: Positive = 1, threads: Positive = 1
    ) -> None:
        self.evaluate, self.seed, self.workers, self.threads = evaluate, seed, workers, threads
        self._queue: deque[Trial] = deque()
        self._running: dict[Future[Result], Trial] = {}
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, trial: Trial) -> None:
        if self.workers == 1:
            self._queue.append(trial)
            return
        import torch

        for attempt in range(2):
            self._pool = self._pool or ProcessPoolExecutor(
                self.workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(self.evaluate, self.threads, torch.are_deterministic_algorithms_enabled()),
            )
            try:
                self._running[self._pool.submit(_evaluate, trial, self._key(trial))] = trial
                return
            except BrokenProcessPool:  # a worker was killed: its trials report that, new ones get new workers
                self._pool = None
                if attempt:
                    raise

    def completed(self) -> Iterator[tuple[Trial, Result | Exception]]:
        while self._queue:
            trial = self._queue.popleft()
            yield trial, self._evaluate_here(trial)
        while self._running:
            finished, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in finished:
                trial = self._running.pop(future)
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield trial, error if isinstance(error, Exception) else future.result()

    def close(self) -> None:
        if self._pool is not None:
            workers = list((self._pool._processes or {}).values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:  # what is still being evaluated is evaluated again on resume
                worker.terminate()

    def _key(self, trial: Trial) -> int:
        return derive(self.seed, "trial", trial.number)

    def _evaluate_here(self, trial: Trial) -> Result | Exception:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return self.evaluate(trial, seed=self._key(trial))
        except Exception as error:
            return error
        finally:
            torch.set_num_threads(before)


_evaluator: Evaluator | None = None  # of a worker process


def _start(evaluate: Evaluator, threads: int, deterministic: bool) -> None:
    import signal
    import threading

    import torch

    global _evaluator
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    _evaluator = evaluate


def _end_with_parent() -> None:
    """A parent that is killed closes nothing: without this its workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _evaluate(trial: Trial, seed: int) -> Result:
    assert _evaluator is not None
    return _evaluator(trial, seed=seed)
