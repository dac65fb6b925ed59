"""What training a path of a supernet costs, beside the same network built alone.

    python benchmarks/sampled_step.py [--spaces nasbench201 darts mobile] [--rounds 30] [--batch 64]

Each round draws an architecture that was not seen before, and times one weight step of the strategy `rsws`
along it, and one step of a `Network` of its own in a plain loop of PyTorch: SGD with momentum, gradients
clipped. Ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from nas.data import Split
from nas.data.batches import Examples
from nas.network import Network
from nas.search_space import Architecture, SearchSpace, space
from nas.strategies import STRATEGIES, Task
from nas.strategies.sampled import Sampled

SCALES = {
    "nasbench201": {"channels": 16, "cells": 1},
    "darts": {"channels": 16, "cells": 8},
    "mobile": {"width": 0.5},
}


def strategy_of(made: SearchSpace, batch: int, size: int) -> Sampled:
    """A search that is about to begin."""
    images = np.zeros((2 * batch, size, size, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    part = Split(images=images, labels=np.zeros(2 * batch, dtype=np.int64))
    strategy = STRATEGIES["rsws"](batch=batch)
    strategy.horizon, strategy.rate = 1, strategy.lr
    strategy.prepare(Task(made, device="cpu", examples=Examples(part, part, (0.5,) * 3, (0.2,) * 3)))
    strategy.supernet.train()
    return strategy


def alone(strategy: Sampled, path: Architecture, x: Tensor, y: Tensor) -> Callable[[], None]:
    """A step of the network of a path, which has its own weights."""
    published = strategy.task.space.supernet
    network = Network(
        strategy.task.space.fill(path),
        affine=published.get("affine", True),
        pool_norm=published.get("pool_norm", False),
    )
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        network.parameters(), strategy.lr, momentum=strategy.momentum, weight_decay=strategy.weight_decay
    )

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), strategy.clip)
        optimizer.step()

    step()
    return step


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spaces", nargs="+", default=list(SCALES), choices=SCALES)
    for name, default in {"rounds": 30, "batch": 64, "size": 32, "threads": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((options.batch, 3, options.size, options.size), generator=generator)
    x = x.to(memory_format=torch.channels_last)
    y = torch.randint(10, (options.batch,), generator=generator)
    table = Table(title=f"batch {options.batch}, {options.size} x {options.size} pixels")
    for column in ("", "path, ms", "alone, ms", "path / alone"):
        table.add_column(column, justify="left" if not column else "right")
    for name in options.spaces:
        size = (3, options.size, options.size)
        strategy = strategy_of(space(name, input=size, **SCALES[name]), options.batch, options.size)
        shared, own = [], []
        for place in range(options.rounds + 1):  # the first warms up
            paths = strategy.sample(0, place)
            built = alone(strategy, paths[0], x, y)
            shared.append(seconds(partial(strategy.weight_step, (x, y), paths)))
            own.append(seconds(built))
        ratios = sorted(a / b for a, b in zip(shared[1:], own[1:], strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        table.add_row(
            name,
            *(f"{1000 * statistics.median(each[1:]):.1f}" for each in (shared, own)),
            f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})",
        )
    console = Console(width=140)
    console.print(table)
    console.print("Medians, and of the ratios the quartiles.", style="dim")
    console.print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
                  f"torch {torch.__version__}")  # fmt: skip


if __name__ == "__main__":
    main()
