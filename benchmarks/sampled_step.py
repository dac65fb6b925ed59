"""What training a path of a supernet costs, beside the same network built alone.

    python benchmarks/sampled_step.py [--spaces nasbench201 darts mobile] [--rounds 30] [--batch 64]

Each round draws an architecture, times one weight step of the strategy `rsws` along it, and builds it as a
`Network` of its own, whose second step in a plain loop of PyTorch is timed: SGD with momentum, gradients
clipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import timing
import torch
from reference_network import step
from timing import Step
from torch import Tensor

from nas.network import Network
from nas.search_space import Architecture, SearchSpace, space
from nas.strategies.rsws import RSWS

SCALES = {
    "nasbench201": {"channels": 16, "cells": 1},
    "darts": {"channels": 16, "cells": 8},
    "mobile": {"width": 0.5},
}


def searching(made: SearchSpace, batch: int, size: int) -> RSWS:
    """A search that is about to begin."""
    strategy = RSWS(batch=batch)
    strategy.horizon, strategy.rate = 1, strategy.lr
    strategy.prepare(timing.task(made, batch=batch, size=size))
    strategy.supernet.train()
    return strategy


def alone(strategy: RSWS, path: Architecture, x: Tensor, y: Tensor) -> Step:
    """A step of the network of a path, which has its own weights."""
    made = strategy.task.space
    published = {"affine": True, "pool_norm": False, **made.supernet}
    network = Network(made.fill(path), affine=published["affine"], pool_norm=published["pool_norm"])
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(
        network.parameters(), strategy.lr, momentum=strategy.momentum, weight_decay=strategy.weight_decay
    )
    found = partial(step, network, x, y, optimizer, strategy.clip)
    found()
    return found


def lines(name: str, rounds: int, batch: int, size: int) -> Iterator[str]:
    """Of the table."""
    x, y = timing.pair(batch, size)
    x = x.to(memory_format=torch.channels_last)
    strategy = searching(space(name, input=(3, size, size), **SCALES[name]), batch, size)
    shared, own = [], []
    for place in range(rounds + 1):  # the first warms up
        paths = strategy.sample(0, place)
        built = alone(strategy, paths[0], x, y)
        shared.append(timing.seconds(partial(strategy.weight_step, (x, y), paths)))
        own.append(timing.seconds(built))
    yield timing.line(f"a path of {name} beside the network alone; batch {batch}", own[1:], shared[1:])


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
    timing.show(*(lines(name, options.rounds, options.batch, options.size) for name in options.spaces))


if __name__ == "__main__":
    main()
