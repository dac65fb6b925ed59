"""Kill and resume: a run that is killed again and again ends with the same bits as one that never was."""

from __future__ import annotations

import builtins
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from conftest import TINY_DARTS, TINY_RANDOM, TINY_TRAIN, sets

TINY = ["--set", "data.limit=100", "--set", "network.channels=2", "--set", "train.epochs=2", "--quiet"]
SPACE = ["--set", "space.channels=2", "--controls", "1"]
KINDS = {
    "darts": ["search", "--strategy", "darts", "--budget", "4epochs", *SPACE, *TINY],
    "random": [
        "search",
        "--strategy",
        "random",
        "--budget",
        "5trials",
        "--set",
        "strategy.epochs=1",
        *SPACE,
        *TINY,
    ],
    "train": ["train", "darts:DARTS_V2", *TINY, "--set", "train.epochs=5"],
}
TRANSIENT = ("time", "seconds", "pid", "host", "worker")
START = [sys.executable, "-c", "from nas.cli import main; main()"]
# Kills the process inside the k-th write of a file: before the atomic replacement, after it, or in mid-line.
SABOTAGE = """
import os, signal, sys
target, moment, count = os.environ["TARGET"], os.environ["MOMENT"], int(os.environ["COUNT"])
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def hook(event, arguments):
    global count
    if event != "os.rename" or not str(arguments[1]).endswith(target):
        return
    count -= 1
    if count == 0:
        die()
if moment == "replace":
    sys.addaudithook(hook)
else:
    import builtins
    plain = builtins.open
    def torn(path, mode="r", *rest, **named):
        global count
        file = plain(path, mode, *rest, **named)
        if "ab" in mode and str(path).endswith(target):
            count -= 1
            if count == 0:
                class Torn:
                    def __enter__(self): return self
                    def __exit__(self, *error): pass
                    def write(self, data):
                        os.write(file.fileno(), data[: len(data) // 2])
                        die()
                return Torn()
        return file
    builtins.open = torn
"""


def start(arguments: list[str], folder: Path, **extra: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", **extra}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        [*START, *arguments], cwd=folder, env=environment, start_new_session=True, **pipes
    )  # type: ignore[call-overload, no-any-return]


def finished(process: subprocess.Popen[str], *, limit: float | None = None) -> bool:
    """Whether the process ended by itself within `limit` seconds; if not, its whole group is killed."""
    try:
        _, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode == 0


def command(kind: str, run: Path) -> list[str]:
    """Begin the run, or go on with it."""
    return (
        ["resume", str(run), "--quiet"]
        if (run / "config.yaml").exists()
        else [*KINDS[kind], "--run", str(run)]
    )


def ledger(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    kept = [event for event in lines if event["kind"] not in ("start", "resume")]
    return [{key: value for key, value in event.items() if key not in TRANSIENT} for event in kept]


def tensors(content: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(content, torch.Tensor):
        yield path, content
    elif isinstance(content, dict | list | tuple):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in pairs:
            yield from tensors(value, f"{path}/{key}")


def assert_same_bits(run: Path, reference: Path) -> None:
    if (reference / "best.yaml").exists():
        assert (run / "best.yaml").read_bytes() == (reference / "best.yaml").read_bytes()
    assert ledger(run) == ledger(reference)
    checkpoints = sorted(reference.rglob("checkpoint.pt"))
    assert checkpoints
    for checkpoint in checkpoints:
        ours = torch.load(run / checkpoint.relative_to(reference), weights_only=True)
        theirs = dict(tensors(torch.load(checkpoint, weights_only=True)))
        assert theirs
        for name, tensor in tensors(ours):
            assert torch.equal(tensor, theirs.pop(name)), (checkpoint, name)
        assert not theirs
    assert not list(run.rglob("*.part"))


@pytest.fixture(scope="module", params=KINDS)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, float]:
    """A run that is left alone, and how long it took."""
    run = tmp_path_factory.mktemp(request.param) / "reference"
    began = time.monotonic()
    assert finished(start(command(request.param, run), run.parent))
    return request.param, run, time.monotonic() - began


def test_killed_at_random_moments(reference: tuple[str, Path, float], tmp_path: Path) -> None:
    kind, undisturbed, took = reference
    kill_and_compare(kind, undisturbed, took, tmp_path / "run", kills=7, seed=0)


@pytest.mark.slow
def test_killed_many_times(reference: tuple[str, Path, float], tmp_path: Path) -> None:
    kind, undisturbed, took = reference
    for seed in range(1, 4):
        kill_and_compare(kind, undisturbed, took, tmp_path / str(seed), kills=15, seed=seed)


def kill_and_compare(kind: str, undisturbed: Path, took: float, run: Path, *, kills: int, seed: int) -> None:
    rng = Random(f"{kind}-{seed}")
    for _ in range(kills):
        # Importing takes the first two or three seconds; a fraction of the kills falls there too.
        if finished(start(command(kind, run), run.parent), limit=rng.uniform(2.0, max(3.0, 0.7 * took))):
            break
    assert finished(start(command(kind, run), run.parent))
    assert_same_bits(run, undisturbed)


@pytest.mark.parametrize(
    ("target", "moment"),
    [
        ("checkpoint.pt", "replace"),
        ("best.yaml", "replace"),
        ("config.yaml", "replace"),
        ("events.jsonl", "line"),
    ],
)
def test_killed_inside_a_write(
    target: str, moment: str, reference: tuple[str, Path, float], tmp_path: Path
) -> None:
    kind, undisturbed, _ = reference
    if kind == "train" and target == "best.yaml":
        return  # a training writes none
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE)
    run = tmp_path / "run"
    count = {"config.yaml": 1}.get(target, 2)
    sabotage = {"PYTHONPATH": str(tmp_path), "TARGET": target, "MOMENT": moment, "COUNT": str(count)}
    assert not finished(start(command(kind, run), tmp_path, **sabotage))
    assert finished(start(command(kind, run), tmp_path))
    assert_same_bits(run, undisturbed)


# --- many kills, in processes that are forked from one that has imported everything -----------------------

MANY = {
    "darts": ["search", *sets([*TINY_DARTS, "budget=4epochs", "controls=1"])],
    "random": ["search", *sets([*TINY_RANDOM, "budget=6trials", "search.lag=2", "controls=1"])],
    "train": [
        "train",
        "darts:DARTS_V2",
        *sets([*TINY_TRAIN, "train.epochs=6", "train.valid=0.2", "train.ema=0.9"]),
    ],
}
OPTIONS = ["--device", "cpu", "--quiet"]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["nas.loop", "nas.cli.search", "nas.report", "torch.utils.tensorboard", "sklearn.datasets"]
)


class Trap:
    """Kills this process at the k-th moment of writing a run's files.

    A moment is: half of a ledger's line or of a new file is written; a new file is about to replace the old
    one; it has just replaced it.
    """

    def __init__(self, moment: int) -> None:
        self.left, self.open, self.replace = moment, builtins.open, os.replace
        builtins.open, os.replace = self.opened, self.replaced  # type: ignore[assignment]

    def moment(self) -> bool:
        self.left -= 1
        return self.left == 0

    def opened(self, path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        file = self.open(path, mode, *rest, **named)
        ours = mode in ("ab", "wb") and str(path).endswith(("events.jsonl", ".part"))
        return Torn(file, self) if ours else file

    def replaced(self, old: Any, new: Any) -> None:
        if self.moment():
            die()
        self.replace(old, new)
        if self.moment():
            die()


class Torn:
    """A file in which a write may be the last."""

    def __init__(self, file: Any, trap: Trap) -> None:
        self.file, self.trap = file, trap

    def write(self, data: bytes) -> int:
        if self.trap.moment():
            os.write(self.file.fileno(), data[: len(data) // 2])
            die()
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live(arguments: list[str], folder: Path, moment: int) -> None:
    """One life of the command, in a child process: until its end, or the moment (0: none) of its death."""
    from nas.cli import main

    os.setsid()
    os.chdir(folder)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    if moment:
        Trap(moment)
    sys.argv = ["nas", *arguments]
    main()


def lived(kind: str, run: Path, *, moment: int = 0, seconds: float | None = None) -> bool:
    """Whether a life came to its end; if not, it was killed, at a moment or after so many seconds."""
    arguments = (
        ["resume", str(run)]
        if (run / "config.yaml").exists()
        else [*MANY[kind], "--device", "cpu", "--run", str(run)]
    )
    process = FORKS.Process(target=live, args=([*arguments, "--quiet"], run.parent, moment))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL), (run.parent / "log").read_text()
    return process.exitcode == 0


@pytest.fixture(scope="module", params=MANY)
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, float]:
    """A run that is left alone, in a process of its own kind, and how long a fork takes for it."""
    folder = tmp_path_factory.mktemp(request.param)
    process = start([*MANY[request.param], *OPTIONS, "--run", str(folder / "reference")], folder)
    lived(request.param, folder / "first")
    began = time.monotonic()
    assert lived(request.param, folder / "second")
    took = time.monotonic() - began
    assert finished(process)
    assert_same_bits(folder / "second", folder / "reference")
    return request.param, folder / "reference", took


def kill_inside_writes(kind: str, reference: Path, run: Path, *, seed: int) -> int:
    rng, kills = Random(f"{kind}-{seed}"), 0
    while not lived(kind, run, moment=rng.randint(1, 12)):
        kills += 1
    assert_same_bits(run, reference)
    return kills


def kill_at_random(kind: str, reference: Path, took: float, run: Path, *, seed: int) -> int:
    rng, kills = Random(f"{kind}-{seed}"), 0
    while not lived(kind, run, seconds=rng.uniform(0, took)):
        kills += 1
    assert_same_bits(run, reference)
    return kills


def test_killed_inside_many_writes(whole: tuple[str, Path, float], tmp_path: Path) -> None:
    kind, reference, _ = whole
    assert kill_inside_writes(kind, reference, tmp_path / "run", seed=0) >= 5


def test_killed_at_any_time(whole: tuple[str, Path, float], tmp_path: Path) -> None:
    kind, reference, took = whole
    assert (
        sum(kill_at_random(kind, reference, took, tmp_path / f"{seed}", seed=seed) for seed in range(2)) >= 2
    )


@pytest.mark.slow
def test_killed_hundreds_of_times(whole: tuple[str, Path, float], tmp_path: Path) -> None:
    kind, reference, took = whole
    kills = 0
    for seed in range(1, 16):
        kills += kill_inside_writes(kind, reference, tmp_path / f"write{seed}", seed=seed)
        kills += kill_at_random(kind, reference, took, tmp_path / f"time{seed}", seed=seed)
    assert kills >= 100


@pytest.mark.slow
def test_killed_once_at_each_moment(whole: tuple[str, Path, float], tmp_path: Path) -> None:
    kind, reference, _ = whole
    moment = 1
    while not lived(kind, tmp_path / f"{moment}", moment=moment):
        assert lived(kind, tmp_path / f"{moment}")
        assert_same_bits(tmp_path / f"{moment}", reference)
        moment += 1
    assert moment > 20
