"""Sampled: the loop that single-path weight sharing shares.

Each step trains one path of the supernet, or the sum of a few; nothing that the paths do not use is touched.
In its last epochs, the rounds, nothing is trained: candidates are scored with the weights that they inherit.
What a method changes is which paths train, by which loss, and what happens after an epoch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nas.run import RunFailed
from nas.search_space import Architecture
from nas.seeding import generator, randomness
from nas.strategies.evolution import Chance, brood
from nas.strategies.shared_weights import Batch, Count, Epochs, Rate, SharedWeights, cosine
from nas.strategies.strategy import Task
from nas.supernet import Supernet
from nas.supernet.norms import Policy

DRAWS = 20  # for a candidate that was not scored before


class Scored(NamedTuple):
    """An architecture and what it reaches on the validation part with the weights of the supernet."""

    architecture: Architecture
    accuracy: float
    loss: float


@dataclass(eq=False)
class Sampled(SharedWeights):
    """Paths trained one at a time. The defaults are those of NAS-Bench-201 (Dong & Yang, ICLR 2020).

    Args:
        rounds: last epochs, of all, in which candidates are scored; at most half.
        candidates: architectures scored in a round.
        search: where they come from: ``random``, or ``evolution`` of the best (`parents`, `mutation`).
        parents: the best so far, from which children come.
        mutation: the chance of each kept row to change in a mutant; one changes at least.
    """

    rounds: Epochs = 10
    candidates: Count = 50
    search: Literal["random", "evolution"] = "random"
    parents: Count = 10
    mutation: Chance = 0.1
    weight_decay: Rate = 5e-4
    norm: Policy = "recalibrated"

    # --- what a method changes ------------------------------------------------------------------------------

    def sample(self, epoch: int, step: int) -> Sequence[Architecture]:
        """The paths whose gradients are summed in this step; the same whenever it is asked."""
        return [self.proposal(generator(self.task.seed, "path", epoch, step))]

    def loss(self, place: int, logits: Tensor, y: Tensor) -> Tensor:
        """What the `place`-th path of a step descends."""
        return nn.functional.cross_entropy(logits, y)

    def proposal(self, rng: Random) -> Architecture:
        """A candidate that depends on no other's score."""
        return self.task.space.sample(rng)

    def after_epoch(self, number: int) -> dict[str, float]:
        """When the weights were trained in epoch `number`, from 0; further metrics."""
        return {}

    # --- one search -----------------------------------------------------------------------------------------

    def prepare(self, task: Task) -> None:
        """Build supernet, optimizer and batches."""
        super().prepare(task)
        self.trained = self.horizon - min(self.rounds, self.horizon // 2)  # epochs that train
        with randomness(task.seed, "supernet"):
            supernet = Supernet(task.space)
        self.take(supernet)
        self.scored: dict[str, Scored] = {}  # with the present weights, by digest

    def train_epoch(self, number: int) -> dict[str, float]:
        with randomness(self.task.seed, "epoch", number):
            if number >= self.trained:
                metrics = self._round(number - self.trained)
            else:
                metrics = {**self._train(number), **self.after_epoch(number)}
                self._watch(number)
        best = self._best()
        return {**metrics, "valid_loss": best.loss, "valid_accuracy": best.accuracy}

    def _train(self, number: int) -> dict[str, float]:
        def step(place: int, batch: Batch) -> tuple[Tensor, Tensor, int]:
            paths = self.sample(number, place)
            return (*self.weight_step(batch, paths), len(paths))

        return self.run_epoch(number, cosine(number / self.trained, self.lr, self.lr_min), step)

    def weight_step(self, batch: Batch, paths: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """One step along the sum of the paths' gradients; sums of their losses and of right answers."""
        x, y = batch
        total = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        self.weight_optimizer.zero_grad(set_to_none=True)  # None, not 0: SGD passes over what no path uses
        for place, path in enumerate(paths):
            with self.rounding():
                logits = self.supernet(x, path)
                loss = self.loss(place, logits, y)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            right += (logits.detach().argmax(1) == y).sum()
        self.descend()
        return total, right

    # --- candidates -----------------------------------------------------------------------------------------

    def _watch(self, number: int) -> None:
        """While weights are trained: the best path so far, measured again, against one challenger."""
        best = [self.best()] if self.scored else []
        self.scored = {}
        for each in (*best, self.proposal(generator(self.task.seed, "challenger", number))):
            self._take(each)

    def _round(self, number: int) -> dict[str, float]:
        """Score the candidates of round `number`, from 0."""
        rng = generator(self.task.seed, "round", number)
        if self.search == "evolution" and number:
            children = brood(self.task.space, self.leaders(), rng, known=self.scored, mutation=self.mutation)
        else:
            children = self._strangers(rng)
        for done, each in enumerate(itertools.islice(children, self.candidates), start=1):
            self._take(each)
            if self.task.tick:
                self.task.tick(done, self.candidates)
        return {"scored": float(len(self.scored))}

    def _strangers(self, rng: Random) -> Iterator[Architecture]:
        """Proposals that were not scored; it ends where none is found any more."""
        while True:
            draws = (self.proposal(rng) for _ in range(DRAWS))
            found = next((each for each in draws if each.digest not in self.scored), None)
            if found is None:
                return
            yield found

    def _take(self, architecture: Architecture) -> None:
        if architecture.digest not in self.scored:
            found = self.checked(architecture)
            self.scored[architecture.digest] = Scored(architecture, found["accuracy"], found["loss"])

    # --- results --------------------------------------------------------------------------------------------

    def leaders(self) -> list[Architecture]:
        """The best of those that were scored with the present weights, at most `parents`, best first."""
        order = sorted(self.scored.values(), key=_standing, reverse=True)  # of equals the earliest first
        return [each.architecture for each in order[: self.parents]]

    def _best(self) -> Scored:
        if not self.scored:
            raise RunFailed("no path has been scored: the search ended before its first epoch")
        return max(self.scored.values(), key=_standing)

    def best(self) -> Architecture:
        """The path with the best accuracy on the validation part."""
        return self._best().architecture

    def tables(self) -> dict[str, list[list[float]]]:
        """How often the leaders have each option."""
        return frequencies(self.task, self.leaders())

    def state(self) -> dict[str, Any]:
        scored = [(each.architecture.literal, *each[1:]) for each in self.scored.values()]
        return super().state() | {"scored": scored}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        past = [Scored(self.task.space.parse(text), *checked) for text, *checked in state["scored"]]
        self.scored = {each.architecture.digest: each for each in past}


def _standing(scored: Scored) -> tuple[float, float]:
    """By accuracy; of equals the one with the lower loss stands higher."""
    return scored.accuracy, -scored.loss


def frequencies(task: Task, architectures: Sequence[Architecture]) -> dict[str, list[list[float]]]:
    """How often each option is among these, by decision: (rows, options)."""
    found = {}
    for d in task.space.decisions:
        masks = [d.mask(each.choices[d.name]) for each in architectures]
        found[d.name] = torch.tensor(masks, dtype=torch.float64).mean(0).tolist()
    return found
