"""Kill and resume: a run that is killed again and again ends with the same bits as one that never was."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from commands import Begun, begin
from conftest import ledger

TINY = ["--set", "data.limit=100", "--set", "network.channels=2", "--set", "train.epochs=2", "--quiet"]
SPACE = ["--set", "space.channels=2", "--controls", "1"]
RANKING = ["--set", "ranking.networks=3", "--set", "ranking.epochs=1"]
KINDS = {
    "darts": ["search", "--strategy", "darts", "--budget", "4epochs", *RANKING, *SPACE, *TINY],
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


def finished(process: Begun, *, limit: float | None = None) -> bool:
    """Whether the process ended by itself within `limit` seconds; if not, its whole group is killed."""
    try:
        _, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill_group()
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


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.slow if kind == "darts" else ()) for kind in KINDS],
)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, float]:
    """A run that is left alone, and how long it took."""
    run = tmp_path_factory.mktemp(request.param) / "reference"
    began = time.monotonic()
    assert finished(begin(*command(request.param, run), folder=run.parent))
    return request.param, run, time.monotonic() - began


def test_killed_at_random_moments(reference: tuple[str, Path, float], tmp_path: Path) -> None:
    kind, undisturbed, took = reference
    assert_killed_is_the_same(kind, undisturbed, took, tmp_path / "run", kills=3, seed=0)


@pytest.mark.slow
def test_killed_many_times(reference: tuple[str, Path, float], tmp_path: Path) -> None:
    kind, undisturbed, took = reference
    for seed in range(1, 4):
        assert_killed_is_the_same(kind, undisturbed, took, tmp_path / str(seed), kills=15, seed=seed)


def assert_killed_is_the_same(
    kind: str, undisturbed: Path, took: float, run: Path, *, kills: int, seed: int
) -> None:
    rng = Random(f"{kind}-{seed}")
    for _ in range(kills):
        if finished(begin(*command(kind, run), folder=run.parent), limit=rng.uniform(0.1, 0.8 * took)):
            break
    assert finished(begin(*command(kind, run), folder=run.parent))
    assert_same_bits(run, undisturbed)


@pytest.mark.parametrize(
    ("target", "moment"),
    [
        pytest.param("checkpoint.pt", "replace", marks=pytest.mark.slow),
        pytest.param("best.yaml", "replace", marks=pytest.mark.slow),
        pytest.param("config.yaml", "replace", marks=pytest.mark.slow),
        ("events.jsonl", "line"),
    ],
)
def test_killed_inside_a_write(
    target: str, moment: str, reference: tuple[str, Path, float], tmp_path: Path
) -> None:
    kind, undisturbed, _ = reference
    if kind == "train" and target == "best.yaml":
        return  # a training writes none
    run = tmp_path / "run"
    count = {"config.yaml": 1}.get(target, 2)
    sabotage = {"TARGET": target, "MOMENT": moment, "COUNT": str(count)}
    assert not finished(begin(*command(kind, run), folder=tmp_path, before=SABOTAGE, **sabotage))
    assert finished(begin(*command(kind, run), folder=tmp_path))
    assert_same_bits(run, undisturbed)
