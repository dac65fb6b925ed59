"""A supernet trained by several processes: what they compute is what one computes with the whole batch."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from commands import begin, descendants, executed, wait_for
from conftest import TINY_DARTS, sets
from strategy_helpers import ONE_SHOT

import nas
from nas.data.batches import Examples
from nas.data.dataset import Split
from nas.group import Ranks
from nas.run import events, load_tensors
from nas.strategies import STRATEGIES, OneShot, Task

RANDOM = {"p_darts": {"dropout": (0.0, 0.0, 0.0)}}  # what is drawn an image is not for a part
CASES: list[tuple[str, dict[str, Any]]] = [(name, RANDOM.get(name, {})) for name in ONE_SHOT if name != "ofa"]
DERIVED = ("derived_accuracy", "gap", "weighted_operations", "skip_connections", "collapsed")
CASES += [("darts", {"order": 2}), ("darts", {"order": 2, "unrolled": "exact"})]
CHAOTIC = ("fairnas",)  # a path of `none` alone: batch norms of zero variance enlarge rounding 300 times


def examples() -> Examples:
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 8).astype(np.int64)
    images = rng.integers(0, 256, (32, 1, 8, 8)).astype(np.uint8) // 4 + 40 * labels[:, None, None, None]
    split = Split(images.astype(np.uint8), labels)
    return Examples(split, split, (0.4,), (0.3,))


def searched(name: str, arguments: dict[str, Any], group: Ranks | None = None) -> dict[str, Any]:
    """Metrics and tensors of a small search."""
    strategy: OneShot = STRATEGIES[name](**{"epochs": 1, "batch": 16, **arguments})
    space = nas.space("nasbench201", channels=4, cells=1, classes=4, input=(1, 8, 8))
    task = Task(space, seed=3, epochs=1, examples=examples(), group=group)
    strategy.resume(task, [], None)
    metrics = [dict(report.metrics) for report in strategy.reports(task)]
    state = strategy.state()
    return {"metrics": metrics, "weights": state["supernet"], "alphas": state.get("alphas", {})}


def rank(number: int, size: int, port: int, folder: str, arguments: dict[str, Any]) -> None:
    """One process of the group: every case in turn."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=number, world_size=size)
    for place, (name, own) in enumerate(CASES):
        found = searched(name, {**own, **arguments}, Ranks())
        if number == size - 1:
            torch.save(found, Path(folder) / f"{place}.pt")
    dist.destroy_process_group()


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases, searched by a group of two."""
    folder = tmp_path_factory.mktemp("group")
    mp.spawn(rank, (2, free_port(), str(folder), {}), nprocs=2)  # type: ignore[no-untyped-call]
    return folder


@pytest.mark.parametrize("place", range(len(CASES)), ids=[name for name, _ in CASES])
def test_two_processes_compute_what_one_computes(by_two: Path, place: int) -> None:
    """Equal but for the order of sums: gradients, statistics of batch norms, metrics, second order."""
    name, arguments = CASES[place]
    one, two = searched(name, arguments), torch.load(by_two / f"{place}.pt")
    bound = 2e-2 if name in CHAOTIC or "order" in arguments else 2e-3  # a difference enlarges rounding, too
    for a, b in zip(one["metrics"], two["metrics"], strict=True):
        for name in DERIVED:  # of the network derived from the alphas, which may jump
            a.pop(name, None), b.pop(name, None)
        assert a == pytest.approx(b, rel=bound, abs=bound)
    for key in ("weights", "alphas"):
        assert one[key].keys() == two[key].keys()
        for tensor, tensors in one[key].items():
            torch.testing.assert_close(two[key][tensor], tensors, rtol=bound, atol=bound)


def test_means_of_two_processes_and_how_they_differ(tmp_path: Path) -> None:
    mp.spawn(_in_two, (2, free_port(), tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    for number in range(2):
        found = torch.load(tmp_path / f"{number}.pt")
        assert found["mean"] == [0.5, 0.5]
        assert found["gradient"] == [1.0, 1.0]  # d(sum of all ranks' results) / dx: two halves
        assert "the alphas are not the same in all 2" in found["said"]
        assert found["norm"].dtype == torch.bfloat16
        own = torch.arange(16.0).view(2, 8)[number].view(2, 1, 2, 2)
        expected = (own - 7.5) / torch.arange(16.0).var(correction=0).sqrt()
        assert torch.allclose(found["norm"].float(), expected, rtol=0.01, atol=0.01)
        assert found["running"].tolist() == [7.5]


def _in_two(number: int, size: int, port: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=size)
    group = Ranks()
    group.agree([torch.ones(3)], "alphas")
    said = ""
    try:
        group.agree([torch.ones(3) + number * 1e-7], "alphas")
    except RuntimeError as error:
        said = str(error)
    x = torch.full((2,), float(number), requires_grad=True)
    (mean,) = group.mean([x])
    mean.sum().backward()
    assert x.grad is not None
    images, running = torch.arange(16.0).view(2, 8)[number].view(2, 1, 2, 2), torch.zeros(2, 1)
    with group.together():  # statistics in float32, of the whole batch
        norm = torch.nn.functional.batch_norm(
            images.bfloat16(), running[0], running[1], None, None, True, 1.0
        )
    found = {"mean": mean.tolist(), "gradient": x.grad.tolist(), "said": said}
    found |= {"norm": norm, "running": running[0]}
    torch.save(found, folder / f"{number}.pt")
    dist.destroy_process_group()


class Several(Ranks):
    """A group that is never spoken to."""

    def __init__(self, size: int) -> None:
        self.rank, self.size = 0, size


def test_a_batch_that_cannot_be_shared_is_told() -> None:
    with pytest.raises(ValueError, match="batches of 16 images cannot be shared among 3 workers"):
        searched("darts", {}, Several(3))


def test_whole_batches_cannot_be_compiled() -> None:
    with pytest.raises(ValueError, match=r"set strategy\.batch_norms=local, or leave strategy\.compile out"):
        searched("darts", {"compile": True}, Several(2))


@pytest.mark.slow
def test_a_worker_that_is_lost_costs_an_epoch(tmp_path: Path) -> None:
    """Ray Train's workers, one of them killed: all go on from the last epoch, to what one process finds."""
    given = sets([*TINY_DARTS, "budget=4epochs", "ranking.networks=0", "strategy.batch=20"])
    assert executed("search", *given, "--run", "one", folder=tmp_path).returncode == 0
    ray = ["--executor", "ray", "--workers", 2, "--set", "executor.address=local"]
    shared = begin("search", *given, *ray, "--run", "two", "--quiet", folder=tmp_path)
    wait_for(lambda: sum(event["kind"] == "epoch" for event in events(tmp_path / "two")) >= 2, shared)
    victims = [
        pid for pid in descendants(shared.pid) if b"ray::" in cmdline(pid) and b"Train" in cmdline(pid)
    ]
    assert victims
    os.kill(victims[-1], signal.SIGKILL)
    _, told = shared.communicate(timeout=150)
    assert shared.returncode == 0, told
    found = [[e["literal"] for e in events(tmp_path / run) if e["kind"] == "epoch"] for run in ("one", "two")]
    assert found[0] == found[1]
    assert len(found[0]) == 4
    states = [load_tensors(tmp_path / run / "checkpoint.pt") for run in ("one", "two")]
    assert states[0] is not None
    assert states[1] is not None
    for name, tensor in states[0]["supernet"].items():
        torch.testing.assert_close(states[1]["supernet"][name], tensor, rtol=2e-3, atol=2e-3)


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
