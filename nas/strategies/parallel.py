"""Parallel: a supernet trained by several workers of a Ray cluster, each on its part of every batch.

Ray Train starts the workers and joins them to a group (`nas.group`); each runs the same strategy from the
same seeds. The first one tells what it reports, with the state that a checkpoint holds. If a worker is lost
all begin again from the last of these states.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

from nas.execution.cluster import disconnect, packed, wants
from nas.execution.ray import RayPool
from nas.run import RunFailed, packed_state, unpacked
from nas.search_space import Architecture, SearchSpace
from nas.strategies.strategy import OneShot, Report, Task
from nas.usage import peak_memory

if TYPE_CHECKING:
    import torch

SHOWN = 0.2  # seconds between two ticks of a progress bar


class Parallel(OneShot):
    """A strategy with a supernet, on the workers that an executor describes.

    Args:
        strategy: what each worker runs.
        made: gives workers, resources and cluster. A search that has ended needs none of them.
    """

    def __init__(self, strategy: OneShot, made: Callable[[], RayPool]) -> None:
        super().__init__()
        self.strategy, self._made, self.epochs = strategy, made, strategy.epochs
        self.peak: int | None = None
        self._begun = False

    @cached_property
    def pool(self) -> RayPool:
        """The workers' description; makes sure of their storage."""
        return self._made()

    # --- the search -----------------------------------------------------------------------------------------

    def resume(self, task: Task, past: Iterable[Report], state: dict[str, Any] | None) -> None:
        self.task, self._saved = task, state

    def reports(self, task: Task) -> Iterator[Report]:
        lost, last = 0, -1
        try:
            while True:
                try:
                    yield from self._trained(task)
                    return
                except _Lost as loss:
                    epoch = self._saved["epoch"] if self._saved else 0
                    lost, last = (lost + 1 if epoch == last else 1), epoch
                    if lost > self.pool.retries:
                        raise RunFailed(
                            f"the workers were lost {lost} times after epoch {epoch}: {loss}"
                        ) from loss
                    self.pool.note(f"a worker was lost: all go on after epoch {epoch} ({loss})")
                    time.sleep(self.pool.backoff * 2 ** (lost - 1))
        finally:
            disconnect()

    def _trained(self, task: Task) -> Iterator[Report]:
        """What one group of workers reports. Raises _Lost if it falls apart."""
        import ray
        from ray.util.queue import Empty, Queue

        self.pool.connect()
        line = Queue(2, actor_options={"num_cpus": 0})
        alone = replace(task, executor=None, tick=None, stopping=_never)
        sent = ray.put(packed((self.strategy, alone, self._saved), threads=self.pool.threads))
        failures: list[BaseException] = []
        fit = threading.Thread(
            target=_fit, args=(self.pool, {"sent": [sent], "line": line}, failures), daemon=True
        )
        fit.start()
        try:
            while True:
                try:
                    kind, content = line.get(timeout=1.0)
                except Empty:
                    if not fit.is_alive():
                        raise _Lost(_why(failures)) from None
                    continue
                if kind == "tick" and task.tick:
                    task.tick(*content)
                elif kind == "report":
                    report, saved, self.ended, self.peak = content
                    self._saved = unpacked(saved)
                    yield report
                elif kind == "error":
                    raise content
                elif kind == "end":
                    self.ended = content
                    return
        except ray.exceptions.RayError as error:
            raise _Lost(type(error).__name__) from error
        finally:
            line.shutdown(force=True)  # whoever still tells something ends
            fit.join(timeout=30.0)

    # --- afterwards, in this process ------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        assert self._saved is not None
        return self._saved

    def begin(self, task: Task) -> None:
        self.strategy.resume(task, [], self._saved)
        self.strategy.begin(task)
        self._begun = True

    @property
    def _here(self) -> OneShot:
        """The strategy with the last state, in this process."""
        if not self._begun:
            self.begin(self.task)
        return self.strategy

    def best(self) -> Architecture:
        return self._here.best()

    def tables(self) -> dict[str, list[list[float]]]:
        return self._here.tables()

    def random(self, rng: Random) -> Architecture:
        return self._here.random(rng)

    def score(self, architecture: Architecture) -> float:
        return self._here.score(architecture)

    def inherited(self, architecture: Architecture) -> tuple[SearchSpace, dict[str, torch.Tensor]]:
        return self._here.inherited(architecture)

    def prepare(self, task: Task) -> None:
        self.strategy.prepare(task)

    def train_epoch(self, number: int) -> dict[str, float]:
        return self._here.train_epoch(number)

    def load(self, state: dict[str, Any]) -> None:
        self.strategy.load(state)


class _Lost(Exception):
    """The group of workers fell apart."""


def _never() -> bool:
    return False


def _why(failures: list[BaseException]) -> str:
    """What Ray Train says of its workers, in a line."""
    if not failures:
        return "they ended early"
    own = getattr(failures[0], "worker_failures", None) or {0: failures[0]}
    return str(next(iter(own.values()))).strip().rpartition("\n")[2][:200]


def _fit(pool: RayPool, given: Mapping[str, Any], failures: list[BaseException]) -> None:
    """Train, in a thread: Ray Train waits for the end."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    needs = pool.options
    scaling = ScalingConfig(
        num_workers=pool.workers,
        use_gpu=needs["num_gpus"] > 0,
        resources_per_worker=wants(needs),
        placement_strategy="SPREAD" if needs["scheduling_strategy"] == "SPREAD" else "PACK",
    )
    with tempfile.TemporaryDirectory(prefix="nas-") as folder:
        trainer = TorchTrainer(
            _work,
            train_loop_config=dict(given),
            scaling_config=scaling,
            # NCCL does not let processes share a device.
            torch_config=TorchConfig(backend="nccl" if needs["num_gpus"] >= 1 else "gloo"),
            run_config=RunConfig(storage_path=pool.storage or folder),
        )
        try:
            trainer.fit()
        except Exception as error:
            failures.append(error)


def _work(given: dict[str, Any]) -> None:
    """One worker's search; the first one tells it."""
    import ray
    import torch
    from ray.train.torch import get_device

    from nas.group import Ranks

    group, line = Ranks(), given["line"]
    first, last = group.rank == 0, 0.0

    def tick(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if first and (done in (1, total) or now - last > SHOWN):
            last = now
            line.put(("tick", (done, total)))

    try:
        strategy, task, state = ray.get(given["sent"][0]).content()
        device = str(get_device())
        strategy.resume(task, [], state)
        for report in strategy.reports(replace(task, device=device, group=group, tick=tick)):
            if first:
                state = packed_state(strategy.state())
                line.put(("report", (report, state, strategy.ended, peak_memory(device))))
        if first:
            line.put(("end", strategy.ended))
    except (ArithmeticError, ValueError, RunFailed, torch.OutOfMemoryError) as error:
        line.put(("error", error))  # it would be the same again
