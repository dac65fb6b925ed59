"""What tests of strategies have in common: an executor, and small searches with a supernet."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from conftest import TINY_DARTS

from nas.data import Split
from nas.data.batches import Examples
from nas.execution import Executor, Result, Trial
from nas.search_space import SPACES, space
from nas.strategies import STRATEGIES, OneShot

# Spaces whose options can be mixed: the others' wiring decides widths.
MIXED = [name for name in SPACES if space(name, **SPACES.facts(name)["small"]).finish is None]
ONE_SHOT = [name for name, each in STRATEGIES.items() if isinstance(each, type) and issubclass(each, OneShot)]


class Evaluated(Executor):
    """Evaluates by a function, in the order of submission; an exception of it is a failed trial.

    `evaluated`: the trials so far.
    """

    def __init__(self, evaluate: Callable[[Trial], Result]) -> None:
        self.evaluate = evaluate
        self.queue: list[Trial] = []
        self.evaluated: list[Trial] = []

    def submit(self, trial: Trial) -> None:
        self.queue.append(trial)

    def completed(self) -> Iterator[tuple[Trial, Result | Exception]]:
        while self.queue:
            trial = self.queue.pop(0)
            self.evaluated.append(trial)
            try:
                yield trial, self.evaluate(trial)
            except RuntimeError as error:
                yield trial, error

    def close(self) -> None:
        self.queue.clear()


def tiny_search(name: str) -> list[str]:
    """Settings of a search with a supernet that lasts a second or two."""
    found = [*TINY_DARTS, f"strategy={name}"]
    if name != "ofa":  # it is for elastic spaces
        return found
    return [
        *(each for each in found if not each.startswith(("space", "network"))),
        *("space.name=resnet_elastic", "space.width=0.125", "network.width=0.125"),
    ]


def noise(count: int = 16, *, size: int = 8) -> Examples:
    """Random images of three channels and ten classes, another half for each part."""
    torch.manual_seed(1)
    halves = [
        Split(
            images=torch.randint(256, (count, 3, size, size), dtype=torch.uint8).numpy(),
            labels=torch.randint(10, (count,)).numpy(),
        )
        for _ in range(2)
    ]
    return Examples(*halves, (0.5,) * 3, (0.25,) * 3)
