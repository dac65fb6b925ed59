"""Sampled: the loop that single-path weight sharing shares.

Each step trains one path of the supernet, or the sum of a few; nothing that the paths do not use is touched.
In its last epochs, the rounds, nothing is trained: candidates are scored with the weights that they inherit.
What a method changes is which paths train, by which loss, and what happens after an epoch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from nas.data.batches import Batches
from nas.run import RunFailed
from nas.search_space import Architecture
from nas.seeding import derive, generator, randomness
from nas.strategies.differentiable import Batch, Count, Epochs, Positive, Rate, Share, cosine
from nas.strategies.evolution import Chance, brood
from nas.strategies.strategy import OneShot, Task
from nas.supernet import Supernet
from nas.supernet.norms import Policy, normalising
from nas.train import accuracy

DRAWS = 20  # for a candidate that was not scored before


class Scored(NamedTuple):
    """An architecture and what it reaches on the validation part with the weights of the supernet."""

    architecture: Architecture
    accuracy: float
    loss: float


@dataclass(eq=False)
class Sampled(OneShot):
    """Paths trained one at a time. The defaults are those of NAS-Bench-201 (Dong & Yang, ICLR 2020).

    Args:
        epochs: of search with the rounds, if the budget does not say.
        rounds: last epochs, in which candidates are scored; at most half of all.
        candidates: architectures scored in a round.
        search: where they come from: ``random``, or ``evolution`` of the best (`parents`, `mutation`).
        parents: the best so far, from which children come.
        mutation: the chance of each kept row to change in a mutant; one changes at least.
        batch: images a step.
        lr, lr_min, momentum, weight_decay, clip: SGD, cosine, largest norm of a step's gradient. What has no
            gradient keeps its bits: neither momentum nor weight decay moves it.
        norm: what batch norms normalise by when a path is scored (`nas.supernet.norms`).
        recalibrated: batches of training images, for ``norm=recalibrated``.
    """

    epochs: Count = 50
    rounds: Epochs = 10
    candidates: Count = 50
    search: Literal["random", "evolution"] = "random"
    parents: Count = 10
    mutation: Chance = 0.1
    batch: Count = 64
    lr: Positive = 0.025
    lr_min: Rate = 0.001
    momentum: Share = 0.9
    weight_decay: Rate = 5e-4
    clip: Rate = 5.0
    norm: Policy = "recalibrated"
    recalibrated: Count = 10

    def __post_init__(self) -> None:
        super().__init__()

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
        self.task, self.device = task, torch.device(task.device)
        self.trained = self.horizon - min(self.rounds, self.horizon // 2)  # epochs that train
        with randomness(task.seed, "supernet"):
            supernet = Supernet(task.space)
        self.supernet = supernet.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weights = list(self.supernet.parameters())
        self.optimizer = torch.optim.SGD(
            self.weights, self.lr, momentum=self.momentum, weight_decay=self.weight_decay, foreach=True
        )
        self.train_batches, self.valid_batches = self._batches("train"), self._batches("valid")
        self.scored: dict[str, Scored] = {}  # with the present weights, by digest
        self._images: list[Tensor] | None = None

    def _batches(self, name: str) -> Batches:
        examples = self.task.examples
        assert examples is not None
        return Batches(
            getattr(examples, name),
            mean=examples.mean,
            std=examples.std,
            augment=examples.augment,
            batch=min(self.batch, len(examples.train), len(examples.valid)),
            device=self.device,
            seed=derive(self.task.seed, name),
            shuffle=True,
            drop_last=True,
        )

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
        self.supernet.train()
        self.rate = cosine(number / self.trained, self.lr, self.lr_min)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        steps, seen = len(self.train_batches), 0
        for step, batch in enumerate(self.train_batches.epoch(number)):
            paths = self.sample(number, step)
            loss, hits = self.weight_step(batch, paths)
            total += loss * len(batch[1])
            right += hits
            seen += len(batch[1]) * len(paths)
            if self.task.tick:
                self.task.tick(step + 1, steps)
        found = total.item() / seen
        if not math.isfinite(found):
            raise FloatingPointError(
                f"the training loss is {found} in epoch {number + 1} (learning rate {self.rate:.4g}): "
                "it is no number any more; lower strategy.lr"
            )
        return {"train_loss": found, "train_accuracy": right.item() / seen, "lr": self.rate}

    def weight_step(self, batch: Batch, paths: Sequence[Architecture]) -> tuple[Tensor, Tensor]:
        """One step along the sum of the paths' gradients; sums of their losses and of right answers."""
        x, y = batch
        total = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        self.optimizer.zero_grad(set_to_none=True)  # None, not 0: SGD passes over what no path uses
        for place, path in enumerate(paths):
            logits = self.supernet(x, path)
            loss = self.loss(place, logits, y)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            right += (logits.detach().argmax(1) == y).sum()
        if self.clip:
            nn.utils.clip_grad_norm_(self.weights, self.clip, foreach=True)
        self.optimizer.step()
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
            found = self._checked(architecture)
            self.scored[architecture.digest] = Scored(architecture, found["accuracy"], found["loss"])

    def _checked(self, architecture: Architecture) -> dict[str, float]:
        """Loss and accuracy of a path on the validation part."""
        examples = self.task.examples
        assert examples is not None

        def forward(x: Tensor) -> Tensor:
            found: Tensor = self.supernet(x, architecture)
            return found

        if self._images is None and self.norm == "recalibrated":
            batches = itertools.islice(self.train_batches.epoch(0), self.recalibrated)
            self._images = [x for x, _ in batches]
        images = self._images or ()
        with torch.no_grad(), normalising(self.supernet, self.norm, forward=forward, images=images):
            return accuracy(
                self.supernet, examples.valid, mean=examples.mean, std=examples.std, device=self.device,
                forward=forward,
            )  # fmt: skip

    # --- results --------------------------------------------------------------------------------------------

    def score(self, architecture: Architecture) -> float:
        return self._checked(architecture)["accuracy"]

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
        return {
            "epoch": self.epoch,
            "supernet": self.supernet.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scored": [(each.architecture.literal, *each[1:]) for each in self.scored.values()],
        }

    def load(self, state: dict[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        self.optimizer.load_state_dict(state["optimizer"])
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
