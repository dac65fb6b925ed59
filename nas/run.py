"""Run: a directory with configuration, ledger, checkpoint and best architecture, and nothing outside it.

The ledger (events.jsonl) is the one source of truth. A process may die at any moment: what is replaced is
replaced atomically, what is appended is cut back, on resume, to what the checkpoint covers.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from nas.documents import read_yaml

CONFIG, LEDGER, CHECKPOINT, BEST, ENVIRONMENT = (
    "config.yaml", "events.jsonl", "checkpoint.pt", "best.yaml", "environment.json",
)  # fmt: skip
TRANSIENT = frozenset(
    {"time", "seconds", "pid", "host", "worker"}
)  # keys of the ledger that differ between equal runs


class InUse(ValueError):
    """Another process works in the run's folder."""


class RunFailed(RuntimeError):
    """A run that cannot give a result, through no mistake in its input."""


class Run:
    """One run's folder, locked while it is open.

    `Run.create` makes a new one, `Run.open` takes up an old one; both are context managers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: IO[str] | None = None
        self._before = 0.0  # seconds used by earlier processes
        self._started = time.monotonic()
        self._read: tuple[int, list[dict[str, Any]]] | None = None  # the ledger's length, and its lines then

    # --- opening and closing --------------------------------------------------------------------------------

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any], environment: Mapping[str, Any]) -> Run:
        """A new run. Raises ValueError if the folder holds one already, or is no folder."""
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file: name another --run")
        run = cls(folder)
        run._check_free()
        folder.mkdir(parents=True, exist_ok=True)
        run._acquire()
        run._check_free()  # another process may have been faster
        replace(folder / ENVIRONMENT, json.dumps(environment, indent=2) + "\n")
        replace(folder / CONFIG, dump(config))
        return run

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An old run, its ledger repaired.

        Raises ValueError if there is none, or another process works in it.
        """
        check_run(folder)
        run = cls(folder)
        run._acquire()
        run._repair()
        seconds = [event["seconds"] for event in run.events() if "seconds" in event]
        run._before = max(seconds, default=0.0)
        return run

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _check_free(self) -> None:
        if (self.folder / CONFIG).exists():
            where = self.folder
            way_out = f"go on with `nas resume {where}`, or name another --run"
            raise ValueError(f"{where} holds a run already: {way_out}")

    def _acquire(self) -> None:
        """Lock the folder, and sweep up what a process that was killed left half written."""
        path = self.folder / ".lock"
        lock = open(path, "a+")  # noqa: SIM115  (held as long as the run is open)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            owner = path.read_text().strip() or "another process"
            raise InUse(f"{self.folder} is in use by {owner}: wait for it, or stop it") from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        self._lock = lock
        for partial in self.folder.glob(".*.part"):
            partial.unlink()

    # --- the ledger -----------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Time spent in this run, by all processes that worked on it."""
        return self._before + time.monotonic() - self._started

    def log(self, kind: str, **content: Any) -> dict[str, Any]:
        """Append one line to the ledger and hand it to the system. Raises OSError if the disk is full."""
        self._read = None  # a long search need not hold it
        event = {"kind": kind, **content, "time": round(time.time(), 3), "seconds": round(self.seconds, 3)}
        line = (json.dumps(event) + "\n").encode()
        path = self.folder / LEDGER
        before = path.stat().st_size if path.exists() else 0
        with open(path, "ab", buffering=0) as ledger:
            try:
                if ledger.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            except OSError:
                ledger.truncate(before)
                raise
        return event

    def events(self) -> list[dict[str, Any]]:
        """All whole lines of the ledger, read once until it changes: leave them as they are."""
        path = self.folder / LEDGER
        size = path.stat().st_size if path.exists() else 0
        if self._read is None or self._read[0] != size:
            self._read = (size, list(events(self.folder)))
        return list(self._read[1])

    def _repair(self) -> None:
        """Cut off a torn last line."""
        path = self.folder / LEDGER
        if path.exists():
            lines = list(_lines(path))
            whole = sum(length for _, length in lines)
            if whole < path.stat().st_size:
                os.truncate(path, whole)
            self._read = (whole, [event for event, _ in lines])

    def cut_back(self, covered: int) -> None:
        """Forget the lines after the first `covered` bytes: the checkpoint does not know of them."""
        path = self.folder / LEDGER
        if path.exists() and path.stat().st_size > covered:
            os.truncate(path, covered)

    def keep(self, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Forget what follows the last line that is wanted."""
        path, place, covered = self.folder / LEDGER, 0, 0
        if path.exists():
            for event, length in _lines(path):
                place += length
                covered = place if wanted(event) else covered
            self.cut_back(covered)

    # --- tensors and the best architecture ------------------------------------------------------------------

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint; it remembers how much of the ledger it covers."""
        path, covers = self.folder / LEDGER, 0
        if path.exists():
            with open(path, "rb") as ledger:
                os.fsync(ledger)  # a checkpoint must not outlive the lines that it covers
                covers = os.stat(ledger.fileno()).st_size
        save_tensors(self.folder / CHECKPOINT, {**state, "covers": covers})

    def load(self) -> dict[str, Any] | None:
        """The checkpoint, on the CPU, or None if none was saved yet."""
        return load_tensors(self.folder / CHECKPOINT)

    def save_best(self, content: Mapping[str, Any]) -> None:
        """Replace best.yaml."""
        replace(self.folder / BEST, dump(content))

    @property
    def identity(self) -> str:
        """Unlike that of any other run, and the same whenever this one is taken up."""
        parts = [str(self.folder.absolute()).encode()]
        parts += [(self.folder / name).read_bytes() for name in (CONFIG, ENVIRONMENT)]
        return hashlib.sha256(b"\n".join(parts)).hexdigest()[:16]

    @property
    def environment(self) -> dict[str, Any]:
        """What was written down of versions, hardware and data when the run began."""
        return read_environment(self.folder)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return read_yaml(self.folder / CONFIG)


def read_environment(folder: Path) -> dict[str, Any]:
    """A run's environment.json; empty if it is missing."""
    path = folder / ENVIRONMENT
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def new_folder(label: str) -> Path:
    """``runs/<date>-<label>-<n>``, the first n that is free."""
    stem = f"{time.strftime('%Y%m%d')}-{label}"
    number = 1
    while (Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return Path("runs") / f"{stem}-{number}"


def check_run(folder: Path) -> None:
    """Raises ValueError if `folder` holds no run."""
    if not (folder / CONFIG).is_file():
        what = "does not exist" if not folder.exists() else f"holds no run (no {CONFIG})"
        raise ValueError(f"{folder} {what}; `nas list runs` shows the runs")


def of_one(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run's network or search; of one of them, if it searches with several seeds."""
    one: dict[str, Any] = config["search"] if config["command"] == "seeds" else config
    return one


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a run's ledger; a torn last line is left out."""
    path = folder / LEDGER
    if path.exists():
        for event, _ in _lines(path):
            yield event


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """(event, length in bytes) of each whole line; a torn last line is left out.

    Raises ValueError if another line is damaged: what follows it must not be lost.
    """
    with open(path, "rb") as ledger:
        lines = ledger.readlines()
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            event = None
        if isinstance(event, dict):
            yield event, len(line)
        elif number < len(lines):
            raise ValueError(f"{path} is damaged in line {number}: restore it, or remove that line")


def replace(path: Path, content: str | bytes) -> None:
    """Write a file so that at any moment the old or the new one is there, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_tensors(path: Path, state: Mapping[str, Any]) -> None:
    """Replace a file of tensors and numbers, atomically."""
    replace(path, packed_state(state))


def packed_state(state: Mapping[str, Any]) -> bytes:
    """Tensors and numbers as bytes."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, Any]:
    """What `packed_state` packed, on the CPU."""
    import io

    import torch

    found: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return found


def load_tensors(path: Path) -> dict[str, Any] | None:
    """What `save_tensors` wrote, or None if there is no file. Raises ValueError if it is damaged."""
    import torch

    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is damaged and cannot be read ({type(error).__name__})") from error
    return state


def dump(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """YAML, keys in the order given."""
    return yaml.safe_dump(_plain(content), sort_keys=False, allow_unicode=True, width=110)


def _plain(content: Any) -> Any:
    """Tuples as lists, mappings as dicts: what YAML's safe writer knows."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return str(content) if isinstance(content, Path) else content


def environment(**facts: Any) -> dict[str, Any]:
    """What a result may depend on beside the configuration: versions, hardware, threads, command line."""
    import importlib.metadata
    import subprocess

    import torch

    from nas.kernels import build

    versions = {"python": platform.python_version()}
    for name in ("torch", "numpy", "nas-framework", "networkx", "scikit-learn"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    here = Path(__file__).parent
    commit = subprocess.run(
        ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    cuda = torch.cuda.is_available()
    return {
        "versions": versions,
        "commit": commit.stdout.strip() or None,
        "kernels": [name for name in build.LIBRARIES if build.compiled(name)],
        "hardware": {
            "machine": platform.machine(),
            "system": platform.platform(),
            "cpus": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
        },
        "threads": torch.get_num_threads(),
        "environment": {
            k: v for k, v in os.environ.items() if k.startswith(("OMP_", "MKL_", "CUDA_VISIBLE"))
        },
        "command": sys.argv,
        **facts,
    }
