"""The batch that proxies look at: real training images, or noise where there are none."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nas.data.batches import Batches, Examples
from nas.graph import Shape
from nas.seeding import derive, randomness


def drawn(
    examples: Examples, *, batch: int, number: int = 0, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Images (batch, C, H, W), normalised and not augmented, and labels, drawn from the training part.

    The same `number` gives the same images, whichever network they are for.
    """
    rng = np.random.default_rng(derive("proxies", "batch", number))
    size = min(batch, len(examples.train))
    split = examples.train.take(rng.choice(len(examples.train), size, replace=False))
    batches = Batches(
        split, mean=examples.mean, std=examples.std, batch=size, device=device, seed=0, shuffle=False
    )
    return next(batches.epoch(0))


def noise(
    shape: Shape, *, classes: int, batch: int, number: int = 0, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Gaussian images of that shape, and labels that go through the classes in turn."""
    with randomness("proxies", "noise", number):
        images = torch.randn(batch, *shape)
    return images.to(device), (torch.arange(batch) % classes).to(device)
