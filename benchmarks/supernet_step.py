"""A search step of DARTS: this package's supernet against the plain formulation, in the same run.

    python benchmarks/supernet_step.py [--batch 16] [--channels 16] [--cells 8] [--rounds 5] [--device cpu]
    [--size 32] [--threads N] [--second-order]

The reference is `reference_darts.py`: one mixture module an edge, NCHW. Beside it: `plain`, our supernet with
one mixture an edge; `fused`, with what `nas.supernet.fuse` makes of it, by PyTorch's own operations; and
`compiled`, the same with the compiled kernels of `nas.kernels`. That all are one function is what
`tests/test_supernet.py` and `tests/test_fuse.py` check. Rounds alternate, so that what else the machine does
hits all; a ratio is the median over rounds of reference / ours, with the least and the greatest.

Weight step: forward, backward, clipping, SGD. Alpha step: the gradient of the alphas of first (or second)
order, Adam. Kernels: operations that compute, views and allocations not counted, a call of a compiled kernel
as one. Kept: bytes of the distinct tensors that the forward pass leaves to the backward pass.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import reference_darts as plain
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nas.data import Split
from nas.data.batches import Examples
from nas.kernels import build, depthwise, mixing
from nas.search_space import space
from nas.strategies import Darts, Task
from nas.supernet import Supernet

Step = Callable[[], object]
FREE = ("empty", "detach", "alias", "_local_scalar", "record_function", "lift_fresh", "new_empty")
CALLS = [(depthwise, "_called"), (mixing, "_call")]  # of compiled kernels


@dataclass
class Subject:
    """One way to compute the same: its steps, its loss, its number of parameter tensors."""

    name: str
    steps: dict[str, Step]
    loss: Callable[[], Tensor]
    tensors: int
    compiled: bool = False

    @contextmanager
    def kernels(self) -> Iterator[None]:
        """With compiled kernels, or without."""
        with nullcontext() if self.compiled else build.off():
            yield


def ours(options: argparse.Namespace, name: str) -> Subject:
    """Our supernet under DARTS."""
    size = (3, options.size, options.size)
    made = space("darts", channels=options.channels, cells=options.cells, input=size)
    images = np.zeros((2 * options.batch, options.size, options.size, 3), dtype=np.uint8).transpose(
        0, 3, 1, 2
    )
    part = Split(images=images, labels=np.zeros(2 * options.batch, dtype=np.int64))
    strategy = Darts(batch=options.batch, order=2 if options.second_order else 1)
    strategy.horizon, strategy.rate = 1, 0.025
    torch.manual_seed(0)
    strategy.build = lambda: Supernet(made, fuse=name != "plain")  # type: ignore[method-assign]
    strategy.prepare(Task(made, device=options.device, examples=Examples(part, part, (0.5,) * 3, (0.2,) * 3)))
    strategy.supernet.train()
    x, y = batch(options)
    x = x.to(memory_format=torch.channels_last)
    pair = (x, y)
    return Subject(
        name,
        {"weight": lambda: strategy.weight_step(pair), "alpha": lambda: strategy.alpha_step(pair, pair)},
        lambda: strategy.loss(strategy.weights, pair),
        len(strategy.weights),
        compiled=name == "compiled",
    )


def reference(options: argparse.Namespace) -> Subject:
    """The plain formulation."""
    torch.manual_seed(0)
    network = plain.Network(C=options.channels, layers=options.cells).to(options.device).train()
    alphas = tuple(a.detach().to(options.device).requires_grad_() for a in plain.initial_alphas())
    weights, arch = plain.weight_optimizer(network), plain.alpha_optimizer(alphas)
    pair = batch(options)

    def alpha_step() -> None:
        if options.second_order:
            plain.architect_step_second_order(
                network, alphas=alphas, train=pair, valid=pair, optimizer=arch, sgd=weights
            )
        else:
            plain.architect_step_first_order(network, alphas=alphas, valid=pair, optimizer=arch)

    return Subject(
        "reference",
        {
            "weight": lambda: plain.weight_step(network, alphas=alphas, train=pair, optimizer=weights),
            "alpha": alpha_step,
        },
        lambda: plain.loss_of(network, alphas=alphas, batch=pair),
        len(list(network.parameters())),
    )


def batch(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Random images and labels on the device, the same in each call."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((options.batch, 3, options.size, options.size), generator=generator)
    return x.to(options.device), torch.randint(10, (options.batch,), generator=generator).to(options.device)


def seconds(step: Step, device: str) -> float:
    """Of one call, the device's work included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Counting(TorchDispatchMode):
    """Counts operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        view = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
        name = str(func).partition(".")[2]
        found = func(*args, **(kwargs or {}))
        if name.startswith("_foreach"):  # on CPUs one of each tensor
            self.count += len(args[0])
        elif not view and not name.startswith(FREE):
            self.count += 1
        return found


def kernels(step: Step) -> int:
    """Operations of a step."""
    calls, originals = [0], [getattr(module, name) for module, name in CALLS]

    def counted(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return original(*args, **kwargs)

        return call

    for (module, name), original in zip(CALLS, originals, strict=True):
        setattr(module, name, counted(original))
    try:
        with Counting() as counting:
            step()
    finally:
        for (module, name), original in zip(CALLS, originals, strict=True):
            setattr(module, name, original)
    return counting.count + calls[0]


def kept(loss: Callable[[], Tensor]) -> float:
    """MiB that the forward pass leaves to the backward pass."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = loss()
    del found
    return sum(sizes.values()) / 2**20


def times(subjects: list[Subject], step: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each subject in each round; the first round is a warm-up."""
    found: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    for _ in range(options.rounds + 1):
        for subject in subjects:
            with subject.kernels():
                found[subject.name].append(seconds(subject.steps[step], options.device))
    return {name: each[1:] for name, each in found.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = {"batch": 16, "channels": 16, "cells": 8, "rounds": 5, "size": 32, "threads": 0}
    for name, default in given.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--second-order", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    subjects = [reference(options), *(ours(options, name) for name in ("plain", "fused", "compiled"))]
    if build.compiled("mixing") is None or options.device != "cpu":
        subjects.pop()
    timed = {step: times(subjects, step, options) for step in ("weight", "alpha")}
    order = "second" if options.second_order else "first"
    table = Table(title=f"C={options.channels}, {options.cells} cells, batch {options.batch}, {order} order")
    for column in ("", "weight step", "ratio", "alpha step", "ratio", "kernels", "kept, MiB", "tensors"):
        table.add_column(column, justify="left" if not column else "right")
    for subject in subjects:
        cells = []
        for step in ("weight", "alpha"):
            own, base = timed[step][subject.name], timed[step]["reference"]
            ratios = sorted(b / a for a, b in zip(own, base, strict=True))
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            cells += [f"{statistics.median(own):.3f} s", spread]
        with subject.kernels():
            cells += [f"{kernels(subject.steps['weight']):,}", f"{kept(subject.loss):,.0f}"]
        table.add_row(subject.name, *cells, str(subject.tensors))
    console = Console(width=140)
    console.print(table)
    console.print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
                  f"torch {torch.__version__}")  # fmt: skip


if __name__ == "__main__":
    main()
