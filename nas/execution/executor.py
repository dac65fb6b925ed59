"""Trial, Evaluator, Executor: what is evaluated, by whom, and where; and the executor of one machine."""

from __future__ import annotations

import multiprocessing
import pickle
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from nas.execution.workers import begin_worker, end
from nas.registry import Registry, load_file, loaded_files
from nas.search_space import Architecture
from nas.seeding import derive

Result = Mapping[str, float]
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Trial:
    """One evaluation to make.

    `epochs`: how long to train, None for the evaluator's own default. `hurdles`: validation accuracies by
    epoch, below which the trial is hopeless and stops (`nas.execution.early_stop`); empty: it never does, and
    nothing is measured on the way.
    """

    number: int
    architecture: Architecture
    epochs: int | None = None
    hurdles: tuple[float, ...] = ()


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


def devices(device: str, workers: int) -> int:
    """The devices that so many workers keep busy: ``cuda`` means all of them, another name one device."""
    import torch

    return max(1, min(workers, torch.cuda.device_count())) if device == "cuda" else 1


EXECUTORS: Registry[Callable[..., Executor]] = Registry("executor")


@EXECUTORS.register("local")
class Local(Executor):
    """This machine: in this process, or in `workers` processes of `threads` threads each.

    A process that dies takes its own trial alone with it, which is evaluated once more.
    """

    def __init__(
        self, evaluate: Evaluator, seed: int = 0, *, workers: Positive = 1, threads: Positive = 1
    ) -> None:
        self.evaluate, self.seed, self.workers, self.threads = evaluate, seed, workers, threads
        self._queue: deque[Trial] = deque()
        self._running: dict[Future[Result], tuple[Trial, int]] = {}  # with the number of the worker
        self._pools: dict[int, ProcessPoolExecutor] = {}  # of one process each, by number of the worker
        self._died: set[int] = set()  # trials whose process died once

    def submit(self, trial: Trial) -> None:
        self._queue.append(trial)
        self._dispatch()

    def _dispatch(self) -> None:
        """Hand waiting trials to workers that are free."""
        busy = {worker for _, worker in self._running.values()}
        for worker in range(self.workers if self.workers > 1 else 0):
            if worker not in busy and self._queue:
                trial = self._queue.popleft()
                self._running[self._start(trial, worker)] = trial, worker

    def _start(self, trial: Trial, worker: int) -> Future[Result]:
        if worker in self._pools:
            try:
                return self._pools[worker].submit(_evaluate, trial, self._key(trial))
            except BrokenProcessPool:  # the process died while it was idle
                pass
        import torch

        deterministic = torch.are_deterministic_algorithms_enabled()
        pool = self._pools[worker] = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(loaded_files(), self._pickled(), self.threads, deterministic, worker),
        )
        return pool.submit(_evaluate, trial, self._key(trial))

    def _pickled(self) -> bytes:
        try:
            return pickle.dumps(self.evaluate)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"the evaluation cannot be sent to other processes ({error}): define what it calls at the "
                "top of a file, or search with one worker"
            ) from error

    def completed(self) -> Iterator[tuple[Trial, Result | Exception]]:
        while self._queue and self.workers == 1:
            trial = self._queue.popleft()
            yield trial, self._evaluate_here(trial)
        while self._running:
            finished, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in finished:
                trial, worker = self._running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    self._pools.pop(worker).shutdown(wait=False)
                    if trial.number not in self._died:
                        self._died.add(trial.number)
                        self._queue.appendleft(trial)
                        self._dispatch()
                        continue
                    error = RuntimeError("its process died twice: out of memory, or killed by hand")
                self._dispatch()
                if error is not None and not isinstance(error, Exception):
                    raise error
                yield trial, error if isinstance(error, Exception) else future.result()

    def close(self) -> None:
        for pool in self._pools.values():  # what is still being evaluated is evaluated again on resume
            end(pool)

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


def _start(files: list[Path], evaluator: bytes, threads: int, deterministic: bool, worker: int) -> None:
    """Make a worker process ready. The evaluator may be made of what is defined in the files."""
    import torch

    global _evaluator
    begin_worker()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    try:
        for path in files:
            load_file(path)
        evaluate: Evaluator = pickle.loads(evaluator)
    except Exception as error:  # told as the failure of each trial; raised here, it would end the process
        evaluate = _Failing(error)
    if getattr(evaluate, "device", None) == "cuda" and torch.cuda.device_count() > 1:
        torch.cuda.set_device(worker % torch.cuda.device_count())  # what "cuda" means in this process
    _evaluator = evaluate


@dataclass(frozen=True)
class _Failing:
    """In place of an evaluator that could not be made in this process."""

    error: Exception

    def __call__(self, trial: Trial, *, seed: int) -> Result:
        raise self.error


def _evaluate(trial: Trial, seed: int) -> Result:
    assert _evaluator is not None
    return _evaluator(trial, seed=seed)
