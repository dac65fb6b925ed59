"""Seconds of a search step of DARTS: this package's supernet against the plain formulation, in the same run.

    python benchmarks/supernet_step.py [--batch 16] [--channels 16] [--cells 8] [--rounds 5] [--device cpu]
    [--size 32]

The plain formulation is `reference_darts.py` (one mixture module an edge, NCHW). Rounds alternate, so that
what else the machine does hits both; the median of the ratios is what counts. Weight step: forward, backward,
clipping, SGD.
Alpha step: the gradient of the alphas of first order, Adam.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import reference_darts as plain
import torch

from nas.data import Split
from nas.data.batches import Examples
from nas.search_space import space
from nas.strategies import Darts, Task


def ours(options: argparse.Namespace) -> tuple[Callable[[], object], Callable[[], object], int]:
    """Weight step, alpha step, number of parameters."""
    made = space(
        "darts", channels=options.channels, cells=options.cells, input=(3, options.size, options.size)
    )
    images = np.zeros((2 * options.batch, 3, options.size, options.size), dtype=np.uint8)
    part = Split(images=images, labels=np.zeros(2 * options.batch, dtype=np.int64))
    strategy = Darts(batch=options.batch)
    strategy.horizon, strategy.rate = 1, 0.025
    strategy.prepare(Task(made, device=options.device, examples=Examples(part, part, (0.5,) * 3, (0.2,) * 3)))
    strategy.supernet.train()
    x, y = batch(options)
    x = x.to(memory_format=torch.channels_last)

    def alpha_step() -> None:
        strategy.alpha_step((x, y), (x, y))

    return lambda: strategy.weight_step((x, y)), alpha_step, sum(w.numel() for w in strategy.weights.values())


def reference(options: argparse.Namespace) -> tuple[Callable[[], object], Callable[[], object], int]:
    """The same of the plain formulation."""
    network = plain.Network(C=options.channels, layers=options.cells).to(options.device).train()
    alphas = tuple(a.detach().to(options.device).requires_grad_() for a in plain.initial_alphas())
    weights, arch = plain.weight_optimizer(network), plain.alpha_optimizer(alphas)
    pair = batch(options)

    def alpha_step() -> None:
        plain.architect_step_first_order(network, alphas=alphas, valid=pair, optimizer=arch)

    size = sum(p.numel() for p in network.parameters())
    return lambda: plain.weight_step(network, alphas=alphas, train=pair, optimizer=weights), alpha_step, size


def batch(options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels on the device."""
    shape = (options.batch, 3, options.size, options.size)
    return torch.randn(shape).to(options.device), torch.randint(10, (options.batch,)).to(options.device)


def seconds(step: Callable[[], object], device: str) -> float:
    """Of one call, the device's work included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("batch", 16),
        ("channels", 16),
        ("cells", 8),
        ("rounds", 5),
        ("size", 32),
        ("threads", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    here, there = ours(options), reference(options)
    print(
        f"{here[2]:,} and {there[2]:,} parameters, batch {options.batch}, {torch.get_num_threads()} threads"
    )
    for place, name in ((0, "weight step"), (1, "alpha step")):
        times = []
        for _ in range(options.rounds + 1):  # the first is a warm-up
            times.append((seconds(here[place], options.device), seconds(there[place], options.device)))  # type: ignore[arg-type]
        pairs = times[1:]
        ratio = statistics.median(b / a for a, b in pairs)
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name:<12} {mine:8.3f} s   plain {theirs:8.3f} s   {ratio:5.2f} times faster")


if __name__ == "__main__":
    main()
