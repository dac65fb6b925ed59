"""SPOS (Guo, Zhang, Mu, Heng, Liu, Wei, Sun, ECCV 2020): single path one-shot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nas.strategies.sampled import Sampled
from nas.strategies.shared_weights import Count, Epochs
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("spos", budget="70epochs")
@dataclass(eq=False)
class SPOS(Sampled):
    """SPOS: uniform paths are trained, then evolution searches with the weights they inherit

    Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV 2020, equations
    5 and 6. Evolution is their algorithm 1 with their numbers: 20 generations (`rounds`) of 50, half of them
    crossed and half mutated from the best 10, each gene with a chance of 0.1. Every candidate obeys the
    space's limits and has its batch norms recalibrated. Here a step is one of `space.cross` or
    `space.mutate`, and the weights are trained by a schedule for CIFAR-10, not for ImageNet.
    """

    epochs: Count = 70
    rounds: Epochs = 20
    search: Literal["random", "evolution"] = "evolution"
