"""SharedWeights: a supernet, how its weights are trained, and how a network in it is checked.

What differentiable strategies, which mix all options, and sampled ones, which run single paths, have in
common.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from nas.data.batches import Batches
from nas.group import Group
from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.seeding import derive
from nas.strategies.strategy import OneShot, Task
from nas.supernet import Supernet
from nas.supernet.norms import Policy, normalising
from nas.train import accuracy

Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Tensors = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]
CHECKED = 256  # images at a time
TINY = 1e-12  # the least sum by which weights are divided: that of a row that was given up is 0


class Mixing(NamedTuple):
    """Tables by decision (rows, options); which options are run at all (None: every one)."""

    tables: Tensors
    active: Tensors | None = None


def scopes(decision: Decision, table: Tensor) -> Tensor:
    """A table (rows, options) as (choices, options): where one of several rows is kept, it is one choice."""
    return table.reshape(1, -1) if decision.keep == 1 else table


def told(gates: Tensors) -> Tensors:
    """Where gates are open, on the CPU: read from the device once, not once a decision."""
    flat = torch.cat([gate.flatten() for gate in gates.values()]).cpu() > 0
    parts = torch.split(flat, [gate.numel() for gate in gates.values()])
    return {name: part.view(gates[name].shape) for name, part in zip(gates, parts, strict=True)}


def cosine(share: float, first: float, last: float) -> float:
    """Half a cosine from `first` to `last`, at a share 0..1 of the way (Loshchilov & Hutter 2017)."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


@dataclass(eq=False)
class SharedWeights(OneShot):
    """A strategy whose networks share the weights of a supernet.

    Args:
        epochs: of search, if the budget does not say.
        batch: images a step, of each half.
        lr, lr_min, momentum, weight_decay, clip: of the weights: SGD, cosine, largest norm of the gradient.
        batch_norms: where several processes train together, each on its part of a batch: whether batch norms
            are ``synchronised``, and see the whole batch, or ``local``, and see the part.
        norm: what batch norms normalise by when the supernet is evaluated (`nas.supernet.norms`).
        recalibrated: batches of training images, for ``norm=recalibrated``.
        precision: of training steps: ``bfloat16`` runs the supernet under autocast. Weights and statistics of
            norms stay float32, and networks are evaluated in it. On CPUs no compiled kernel is used then.
    """

    epochs: Count = 50
    batch: Count = 64
    lr: Positive = 0.025
    lr_min: Rate = 0.001
    momentum: Share = 0.9
    weight_decay: Rate = 3e-4
    clip: Rate = 5.0
    batch_norms: Literal["synchronised", "local"] = "synchronised"
    norm: Policy = "tracked"
    recalibrated: Count = 10
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        super().__init__()

    def forget(self) -> None:
        self.supernet.forget()

    # --- training -------------------------------------------------------------------------------------------

    def prepare(self, task: Task) -> None:
        """Take the data up; a subclass builds its supernet, too."""
        self.task, self.device = task, torch.device(task.device)
        self.group = task.group or Group()
        self.train_batches, self.valid_batches = self._batches("train"), self._batches("valid")

    def take(self, supernet: Supernet) -> None:
        """Train this supernet from here on, with a new optimizer."""
        self.supernet = supernet.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weights = dict(self.supernet.named_parameters())
        self.weight_optimizer = torch.optim.SGD(
            self.weights.values(),
            self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            fused=True,
        )

    def _batches(self, name: str) -> Batches:
        """The ``train`` or the ``valid`` half, augmented and shuffled."""
        examples = self.task.examples
        assert examples is not None
        part = getattr(examples, name)
        batch = min(self.batch, len(part))
        if batch % self.group.size:
            raise ValueError(
                f"batches of {batch} images cannot be shared among {self.group.size} workers: set "
                f"strategy.batch to a multiple, or --workers to a divisor"
            )
        return Batches(
            part,
            mean=examples.mean,
            std=examples.std,
            augment=examples.augment,
            batch=batch,
            device=self.device,
            seed=derive(self.task.seed, name),
            shuffle=True,
            drop_last=True,
        )

    def valid_forever(self, number: int) -> Iterator[Batch]:
        """Batches of the ``valid`` half in epoch `number`, as many as are asked for."""
        for part in itertools.count():
            yield from self.valid_batches.epoch(number * 1000 + part, self.group.share)

    def run_epoch(
        self, number: int, rate: float, step: Callable[[int, Batch], tuple[Tensor, Tensor, int]]
    ) -> dict[str, float]:
        """Training loss and accuracy of an epoch at a learning rate of the weights.

        `step(place, batch)` trains on a batch and gives the mean losses of the networks that it ran, summed,
        their right answers, and their number. Raises FloatingPointError if the loss is no number.
        """
        self.supernet.train()
        self.rate = rate
        for group in self.weight_optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        steps, seen = len(self.train_batches), 0
        for place, batch in enumerate(self.train_batches.epoch(number, self.group.share)):
            with self.together():
                loss, hits, networks = step(place, batch)
            self.group.agree(self.agreed(), "alphas")
            total += loss * len(batch[1])
            right += hits
            seen += len(batch[1]) * networks
            if self.task.tick:
                self.task.tick(place + 1, steps)
        if self.group.size > 1:
            self._join()
            total, right, seen = self.group.total(total), self.group.total(right), seen * self.group.size
        found = total.item() / seen
        if not math.isfinite(found):
            raise FloatingPointError(
                f"the training loss is {found} in epoch {number + 1} (learning rate {rate:.4g}): it is no "
                "number any more; lower the rates of the strategy, strategy.lr first"
            )
        return {"train_loss": found, "train_accuracy": right.item() / seen, "lr": rate}

    def together(self) -> AbstractContextManager[None]:
        """Within it batch norms see what the whole group sees, if they are to."""
        return self.group.together() if self.batch_norms == "synchronised" else nullcontext()

    def rounding(self) -> torch.autocast:
        """Within it a loss is computed in the precision of training."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def agreed(self) -> list[Tensor]:
        """What must be the same in all processes after each step, beside the weights."""
        return []

    def _join(self) -> None:
        """Local statistics become one; the weights must be."""
        if self.batch_norms == "local":
            self.group.average([b for b in self.supernet.buffers() if b.is_floating_point()])
        self.group.agree(list(self.weights.values()), "weights")

    def descend(self) -> None:
        """A step of the weights along their gradients. What has none keeps its bits."""
        trained = [weight for weight in self.weights.values() if weight.grad is not None]
        gradients = [weight.grad for weight in trained if weight.grad is not None]
        self.group.average(gradients)
        for weight in trained:  # a fused step wants a momentum of all or of none
            if self.momentum and not self.weight_optimizer.state[weight]:
                self.weight_optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        if self.clip and gradients:
            norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients]))
            # The optimizer divides by it, as for gradients of a scaled loss: one pass less over them.
            self.weight_optimizer.grad_scale = (norm / self.clip).clamp(min=1.0).float()  # type: ignore[attr-defined]
        self.weight_optimizer.step()

    # --- checking -------------------------------------------------------------------------------------------

    def checked(self, chosen: Mixing | Architecture, norm: Policy | None = None) -> dict[str, float]:
        """Loss and accuracy on the validation part; by the policy `norm`, if another than the search's."""
        examples = self.task.examples
        assert examples is not None
        given = (chosen,) if isinstance(chosen, Architecture) else chosen

        def forward(x: Tensor) -> Tensor:
            found: Tensor = self.supernet(x, *given)
            return found

        images = itertools.islice((x for x, _ in self.train_batches.epoch(0)), self.recalibrated)
        with torch.no_grad(), normalising(self.supernet, norm or self.norm, forward=forward, images=images):
            found = accuracy(
                self.supernet, examples.valid, mean=examples.mean, std=examples.std, device=self.device,
                batch=CHECKED - (len(examples.valid) % CHECKED == 1),  # one image has no statistics
                forward=forward, group=self.group,
            )  # fmt: skip
        self.forget()  # the same options may be trained next; not all workers had a batch to look at
        return found

    def path(self, architecture: Architecture) -> Mixing | Architecture:
        """What runs one architecture in the supernet."""
        if self.supernet.partial == 1:
            return architecture
        hard = {
            d.name: torch.tensor(d.mask(architecture.choices[d.name]), device=self.device)
            for d in self.task.space.decisions
        }
        return Mixing(hard, {name: table > 0 for name, table in hard.items()})

    def score(self, architecture: Architecture) -> float:
        return self.checked(self.path(architecture))["accuracy"]

    def inherited(self, architecture: Architecture) -> tuple[SearchSpace, Tensors]:
        return self.supernet.space, self.supernet.state_of(architecture)

    # --- state ----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.supernet.load_state_dict(state["supernet"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        for group in self.weight_optimizer.param_groups:  # of a run of an earlier version, too
            group.update(fused=True, foreach=None)
