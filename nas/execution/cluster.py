"""Joining a Ray cluster, or starting one on this machine; and what is sent to it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.execution.workers import Packed
from nas.run import RunFailed
from nas.settings import cores

LINES = "nas"  # the name under which we hear what workers print
_joined = False  # by us, so that it is ours to leave


def connect(
    address: str, *, workers: int, asked: Mapping[str, Any], runtime_env: Mapping[str, Any] | None,
    note: Callable[[str], None], logs: Path | None = None,
) -> None:  # fmt: skip
    """Join the cluster at `address` (see `RayPool`), unless this process is in one already.

    `asked`: what each worker needs. `note` is told about the cluster; `logs` is the folder for what workers
    print. Raises RunFailed if there is no cluster at the address, ValueError if a new one of this machine
    alone can never have such a worker.
    """
    global _joined
    import ray

    if ray.is_initialized():
        return
    # Workers without a GPU of their own see those that this process sees: Ray would hide them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    common: dict[str, Any] = {
        "log_to_driver": True,
        "logging_level": logging.ERROR,
        "runtime_env": dict(runtime_env) if runtime_env else None,
    }
    if address != "local":
        named = os.environ.get("RAY_ADDRESS") if address == "auto" else address
        try:
            _init(address, **common)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            if named or not isinstance(error, ConnectionError):
                why = str(error).partition("\n")[0]
                raise RunFailed(
                    f"there is no Ray cluster to join at {named or address!r} ({why}): "
                    "start it with `ray start --head`, or leave executor.address out"
                ) from error
    if not ray.is_initialized():
        _start(workers, asked, common)
    _joined = True
    if logs is not None:
        _listen(logs)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    have = ray.cluster_resources()
    note(
        f"Ray cluster of {len(nodes)} node{'s' * (len(nodes) > 1)}: {have.get('CPU', 0):g} CPUs, "
        f"{have.get('GPU', 0):g} GPUs"
    )
    if not any(_holds(node["Resources"], asked) for node in nodes):
        note(f"no node has what a worker asks for ({_told(asked)}): waiting for one to join")


def _start(workers: int, asked: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    """A cluster of this machine alone, that ends with this process."""
    import ray

    # As many workers as were asked for, also on fewer cores: the local executor does so too.
    cpus = max(cores(), math.ceil(workers * asked["num_cpus"]))
    try:
        _init("local", num_cpus=cpus, include_dashboard=False, **common)
    except (RuntimeError, ValueError, OSError) as error:
        raise RunFailed(f"no Ray cluster could be started on this machine: {error}") from error
    here = ray.cluster_resources()
    if not _holds(here, asked):
        ray.shutdown()
        raise ValueError(
            f"a worker asks for {_told(asked)}, which this machine does not have "
            f"({here.get('GPU', 0):g} GPUs): lower executor.gpus, executor.memory or executor.resources, or "
            "name a cluster by executor.address"
        )


def _init(address: str, **settings: Any) -> None:
    """`ray.init`, which takes SIGTERM for itself: what it means here is not for Ray to say."""
    import ray

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, **settings)
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)


def disconnect() -> None:
    """Leave the cluster, if we joined it; one that we started ends."""
    global _joined
    if _joined:
        import ray

        _joined = False
        ray.shutdown()


def wants(asked: Mapping[str, Any]) -> dict[str, float]:
    """What a worker asks for, by Ray's names."""
    own = {"CPU": asked["num_cpus"], "GPU": asked["num_gpus"], "memory": asked.get("memory", 0)}
    return {name: amount for name, amount in {**own, **asked["resources"]}.items() if amount}


def _holds(resources: Mapping[str, float], asked: Mapping[str, Any]) -> bool:
    return all(resources.get(name, 0) >= amount for name, amount in wants(asked).items())


def _told(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in wants(asked).items())


def packed(content: Any, *, threads: int) -> Packed:
    """Something as it travels: its arrays beside it, so that a node's workers share them in memory."""
    from ray import cloudpickle

    arrays: list[Any] = []

    def dumps(each: Any) -> bytes:
        data: bytes = cloudpickle.dumps(
            each, protocol=5, buffer_callback=lambda b: arrays.append(np.frombuffer(b.raw(), np.uint8))
        )
        return data

    return replace(Packed.of(content, threads=threads, dumps=dumps), buffers=arrays)


def _listen(folder: Path) -> None:
    """Write what workers print into `folder`, a file a process, and not to the terminal.

    Where Ray does not offer it, everything stays as Ray does it.
    """
    try:
        from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher
    except ImportError:
        return

    def write(batch: Mapping[str, Any]) -> None:
        lines = [str(line) for line in batch.get("lines", ()) if not str(line).startswith(":")]
        if lines and str(batch.get("pid")).isdigit():  # the rest is of Ray's own parts
            with contextlib.suppress(OSError):  # a full disk: the search's own writes will say so
                folder.mkdir(exist_ok=True)
                with open(folder / f"{batch.get('ip')}-{batch['pid']}.log", "a") as file:
                    file.write("\n".join(lines) + "\n")

    dispatcher.remove_handler("ray_print_logs")
    dispatcher.remove_handler(LINES)
    dispatcher.add_handler(LINES, write)
