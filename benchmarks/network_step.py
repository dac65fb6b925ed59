"""Training one network: `nas.train.fit`, as candidates and found networks are trained, beside a plain loop.

    python benchmarks/network_step.py [--rounds 5] [--batch 16] [--channels 36] [--cells 20] [--size 32]

The network is DARTS_V2 without its second classifier. The reference is `reference_network.py`: modules and
loops, NCHW, batches that are tensors already. Here batches are cut, shifted, mirrored and normalised too. A
round is an epoch of four steps. That both are one function is what `tests/test_reference.py` checks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial

import numpy as np
import reference_network as plain
import timing
import torch

from nas.augment import Augment
from nas.data import Split
from nas.network import Network
from nas.recipe import Recipe
from nas.search_space import space
from nas.train import fit

STEPS = 4


def lines(rounds: int, batch: int, channels: int, cells: int, size: int) -> Iterator[str]:
    """Of the table."""
    recipe = Recipe(batch=batch, epochs=rounds + 1, lr=0.025, optimizer="sgd", clip=5.0)
    made = space("darts", channels=channels, cells=cells, input=(3, size, size))
    images = np.random.default_rng(0).integers(0, 256, (STEPS * batch, 3, size, size), dtype=np.uint8)
    split = Split(images=images, labels=np.arange(STEPS * batch, dtype=np.int64) % 10)
    network = Network(made.fill(made.parse("DARTS_V2")))
    augment = Augment(crop=4, flip=True)
    ours = fit(network, split, recipe=recipe, mean=(0.5,) * 3, std=(0.2,) * 3, augment=augment)
    own = plain.Network(channels, layers=cells).train()
    optimizer = torch.optim.SGD(own.parameters(), lr=0.025, momentum=0.9, weight_decay=3e-4)
    x, y = timing.pair(batch, size)

    def reference() -> None:
        for _ in range(STEPS):
            plain.step(own, x, y, optimizer, 5.0)

    found = timing.alternated({"reference": reference, "ours": partial(next, ours)}, rounds)
    each = {name: [seconds / STEPS for seconds in times] for name, times in found.items()}
    what = f"training step of DARTS_V2; C={channels}, {cells} cells, batch {batch}"
    yield timing.line(what, each["reference"], each["ours"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = {"rounds": 5, "batch": 16, "channels": 36, "cells": 20, "size": 32, "threads": 0}
    for name, default in given.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = vars(parser.parse_args())
    if threads := options.pop("threads"):
        torch.set_num_threads(threads)
    timing.show(lines(**options))


if __name__ == "__main__":
    main()
