"""RayPool: the executor of a Ray cluster, one machine or many.

The workers are actors that live as long as the search. Ray places, watches and replaces them; what is
evaluated, in which order and how often, is decided here, and the run's ledger stays the one record. The data
go to each node once, into its object store, and are mapped from there by all workers of the node.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nas.execution.cluster import connect, disconnect, packed
from nas.execution.executor import EXECUTORS, Evaluator, Trial
from nas.execution.pool import Count, Lost, Outcome, Pool, Positive, Seconds
from nas.execution.workers import Packed, evaluated

if TYPE_CHECKING:
    import ray

    Handle = ray.ObjectRef[Any]
else:
    Handle = Any

Amount = Annotated[float, Field(ge=0)]


@EXECUTORS.register("ray")
class RayPool(Pool[Handle]):
    """A Ray cluster: workers are actors on its nodes, which may join and leave

    Args:
        workers: at most so many trials at a time; a worker joins when the cluster has room for it.
        threads: of each.
        address: of the cluster: auto (one that runs on this machine, or a new one of this machine alone),
            local (a new one), HOST:PORT, or ray://HOST:PORT from outside it.
        gpus: of each worker, also a part of one; None: one if the search's device is CUDA.
        cpus: of each worker; None: its threads.
        memory: bytes that a node must have free for each worker.
        resources: of each worker, by the names that the cluster gives them.
        placement: spread workers over the nodes, or pack them on few.
        runtime_env: Ray's runtime environment of the workers: packages, working_dir, variables.
        timeout: seconds after which a trial's worker is ended; None: it may take for ever.
        retries: how often a trial is begun again that lost its worker, was late or met a full disk.
        backoff: seconds before the first retry; they double with each.
        storage: a folder that all nodes see, or s3://..., gs://...: trainings of candidates leave there
            what another attempt goes on from.
    """

    def __init__(
        self, evaluate: Evaluator, seed: int = 0, *, workers: Positive = 1, threads: Positive = 1,
        address: str = "auto", gpus: Amount | None = None, cpus: Amount | None = None,
        memory: Count | None = None, resources: dict[str, float] | None = None,
        placement: Literal["spread", "pack"] = "pack", runtime_env: dict[str, Any] | None = None,
        timeout: Seconds | None = None, retries: Count = 2, backoff: Seconds = 1.0,
        storage: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            evaluate, seed, workers=workers, threads=threads, timeout=timeout, retries=retries,
            backoff=backoff, storage=storage,
        )  # fmt: skip
        self.address, self.runtime_env = address, runtime_env
        self.gpus = gpus if gpus is not None else float(getattr(evaluate, "device", "cpu") == "cuda")
        self.options: dict[str, Any] = {
            "num_cpus": threads if cpus is None else cpus,
            "num_gpus": self.gpus,
            "resources": resources or {},
            "scheduling_strategy": "SPREAD" if placement == "spread" else "DEFAULT",
            **({} if memory is None else {"memory": memory}),
        }
        self._actors: dict[int, Any] = {}  # by number of the worker

    @cached_property
    def _sent(self) -> Handle:
        """The evaluator, in the object store."""
        import ray

        return ray.put(packed(self.evaluate, threads=self.threads))

    def submit(self, trial: Trial) -> None:
        self.connect()
        super().submit(trial)

    def connect(self) -> None:
        """Join the cluster, if that is not done."""
        connect(
            self.address,
            workers=self.workers,
            asked=self.options,
            runtime_env=self.runtime_env,
            note=self.note,
            logs=self.logs,
        )

    def begin(self, worker: int) -> Handle:
        import ray

        remote: Any = ray.remote(_Worker)
        actor = self._actors[worker] = remote.options(**self.options).remote(self._sent)
        ready: Handle = actor.ready.remote()
        return ready

    def send(self, worker: int, trial: Trial, seed: int) -> Handle:
        sent: Handle = self._actors[worker].evaluate.remote(trial, seed)
        return sent

    def wait(self, handles: Sequence[Handle], seconds: float) -> Sequence[Handle]:
        import ray

        ended, _ = ray.wait(list(handles), num_returns=len(handles), timeout=0)
        if not ended:
            ended, _ = ray.wait(list(handles), num_returns=1, timeout=seconds)
        return ended

    def outcome(self, handle: Handle) -> Any:
        import ray

        try:
            return ray.get(handle)
        except ray.exceptions.RayTaskError as error:  # what cannot be sent back
            return RuntimeError(str(error.cause))
        except ray.exceptions.OutOfMemoryError as error:
            return MemoryError(str(error).partition("\n")[0])
        except ray.exceptions.RayError as error:
            raise Lost(_reason(error)) from error

    def drop(self, worker: int) -> None:
        import ray

        if worker in self._actors:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(self._actors.pop(worker))

    def facts(self) -> dict[str, float]:
        found = super().facts()
        return {**found, "gpus": self.gpus * found["running"]} if self.gpus else found

    def close(self) -> None:
        super().close()
        disconnect()


class _Worker:
    """One worker: an actor."""

    def __init__(self, packed: Packed) -> None:
        self._evaluate = packed.opened()

    def ready(self) -> str:
        """Where it is."""
        return f"process {os.getpid()} on {socket.gethostname()}"

    def evaluate(self, trial: Trial, seed: int) -> Outcome:
        return evaluated(self._evaluate, trial, seed=seed)


def _reason(error: Exception) -> str:
    """Ray's explanations are pages long; the last line of one says what went wrong in a constructor."""
    if type(error).__name__ == "ActorUnavailableError":
        return "its node does not answer"
    if "__init__" not in str(error) and "RuntimeEnv" not in type(error).__name__:
        return "its process died, or its node"
    return str(error).strip().rpartition("\n")[2].strip()[:200]
