"""Local: the executor of one machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from typing import Any

from nas.execution.executor import EXECUTORS, Evaluator, Trial
from nas.execution.pool import Lost, Outcome, Pool
from nas.execution.workers import Packed, end, evaluated, processes

TRAINING = ("nas.train", "torch._dynamo")  # what a training imports: each optimizer does the second


@EXECUTORS.register("local")
class Local(Pool[Future[Any]]):
    """This machine: in this process, or with several workers in a process each

    One worker without a timeout is this process itself: nothing of it is begun again.

    Args:
        workers: trials at a time.
        threads: of each.
        timeout: seconds after which a trial's process is ended; None: it may take for ever.
        retries: how often a trial is begun again whose process died or was late, or that met a full disk.
        backoff: seconds before the first retry; they double with each.
        storage: a folder where trainings of candidates leave what another attempt goes on
            from.
    """

    @property
    def _here(self) -> bool:
        """Whether trials are evaluated in this process."""
        return self.workers == 1 and self.timeout is None

    # --- in this process ------------------------------------------------------------------------------------

    def submit(self, trial: Trial) -> None:
        if self._here:
            self._queue.append(trial)
        else:
            super().submit(trial)

    def completed(self) -> Iterator[tuple[Trial, Outcome]]:
        if not self._here:
            yield from super().completed()
        while self._queue:
            trial = self._queue.popleft()
            yield trial, self._evaluated(trial)

    def _evaluated(self, trial: Trial) -> Outcome:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return evaluated(self.evaluate, self.kept(trial), seed=self.key(trial))
        finally:
            torch.set_num_threads(before)

    # --- in processes ---------------------------------------------------------------------------------------

    @cached_property
    def _pools(self) -> dict[int, ProcessPoolExecutor]:
        """Of one process each, by number of the worker."""
        return {}

    @cached_property
    def _packed(self) -> Packed:
        return Packed.of(self.evaluate, threads=self.threads)

    def begin(self, worker: int) -> Future[Any]:
        pool = self._pools[worker] = processes(1, TRAINING, _start, self._packed, worker)
        return pool.submit(_ready)

    def send(self, worker: int, trial: Trial, seed: int) -> Future[Any]:
        try:
            return self._pools[worker].submit(_evaluate, trial, seed)
        except BrokenProcessPool as error:  # the process died while it was idle
            raise Lost("its process died") from error

    def wait(self, handles: Sequence[Future[Any]], seconds: float) -> Sequence[Future[Any]]:
        return list(wait(handles, seconds, return_when=FIRST_COMPLETED).done)

    def outcome(self, handle: Future[Any]) -> Any:
        try:
            return handle.result()
        except BrokenProcessPool as error:
            raise Lost("its process died: out of memory, or killed by hand") from error
        except Exception as error:  # what cannot be sent back
            return RuntimeError(f"{type(error).__name__}: {error}")

    def drop(self, worker: int) -> None:
        if worker in self._pools:
            end(self._pools.pop(worker))

    def facts(self) -> dict[str, float]:
        return {} if self._here else super().facts()


_evaluator: Evaluator | None = None  # of a worker process


def _start(packed: Packed, worker: int) -> None:
    import torch

    global _evaluator
    _evaluator = packed.opened()
    if getattr(_evaluator, "device", None) == "cuda" and torch.cuda.device_count() > 1:
        torch.cuda.set_device(worker % torch.cuda.device_count())  # what "cuda" means in this process


def _ready() -> None:
    """Ends when the process is made ready."""


def _evaluate(trial: Trial, seed: int) -> Outcome:
    assert _evaluator is not None
    return evaluated(_evaluator, trial, seed=seed)
