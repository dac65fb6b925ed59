"""fit() and accuracy(): the one training loop, for searched networks and hand-designed ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from nas.data.batches import Augment, Batches
from nas.data.dataset import Split
from nas.seeding import derive, randomness

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Tick = Callable[[int, int], None]  # batches done in this epoch, batches of an epoch


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Every field is the configuration key ``train.<field>``.

    epochs, batch: passes over the training images; images a step.
    optimizer, lr, weight_decay: of the optimizer; Adam and AdamW have betas (0.9, 0.999).
    momentum, nesterov: of SGD.
    schedule: ``cosine`` to `lr_min`; ``step``: times `gamma` at each of `milestones` (parts of the training);
        ``onecycle`` (Smith & Topin 2018): up to `lr` in the first 30 %, then down to `lr_min`; ``constant``.
    warmup: epochs of linear growth from 0 (Goyal et al. 2017).
    reference_batch: linear scaling of the rate (Goyal et al. 2017): lr * batch * accumulate /
        reference_batch; 0: off.
    label_smoothing: Szegedy et al. 2016. auxiliary: weight of the auxiliary classifiers' losses.
    drop_path: probability at the end, growing linearly from 0 (Zoph et al. 2018).
    clip: largest norm of the gradient; 0: off.
    ema: decay of the moving average of weights that is evaluated; 0: off.
    precision: ``bfloat16`` runs the forward pass under autocast.
    accumulate: steps whose gradients are added up before an update.
    early_stop: epochs without a better validation accuracy after which training stops; 0: off.
    valid: part of the training images that is kept for validation after each epoch; 0: all are trained on.
    cutout: side in pixels of the square blanked in training images (DeVries & Taylor 2017), in place of
        `data.augment.cutout`.
    """

    epochs: Positive = 20
    batch: Positive = 96
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.05
    lr_min: Rate = 0.0
    momentum: Share = 0.9
    nesterov: bool = False
    weight_decay: Rate = 3e-4
    schedule: Literal["cosine", "step", "onecycle", "constant"] = "cosine"
    milestones: tuple[Share, ...] = (0.5, 0.75)
    gamma: Rate = 0.1
    warmup: Rate = 0.0
    reference_batch: Count = 0
    label_smoothing: Share = 0.0
    auxiliary: Rate = 0.4
    drop_path: Share = 0.0
    clip: Rate = 5.0
    ema: Share = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulate: Positive = 1
    early_stop: Count = 0
    valid: Share = 0.0
    cutout: Count = 0

    def __post_init__(self) -> None:
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError("train.nesterov belongs to train.optimizer=sgd: switch one of them")
        if self.early_stop and not self.valid:
            raise ValueError(
                "train.early_stop needs a validation part: set train.valid to a fraction above 0"
            )
        if self.warmup and self.schedule == "onecycle":
            raise ValueError("train.schedule=onecycle warms up by itself: set train.warmup to 0")

    def rate(self, progress: float) -> float:
        """The learning rate when `progress` (0..1) of the training is done."""
        peak = self.lr * (
            self.batch * self.accumulate / self.reference_batch if self.reference_batch else 1.0
        )
        done = progress * self.epochs
        if done < self.warmup:
            return peak * done / self.warmup
        if self.schedule == "cosine":
            start = self.warmup / self.epochs
            along = (progress - start) / max(1e-12, 1 - start)
            return self.lr_min + (peak - self.lr_min) * (1 + math.cos(math.pi * along)) / 2
        if self.schedule == "step":
            return peak * self.gamma ** sum(progress >= milestone for milestone in self.milestones)
        if self.schedule == "onecycle":
            top, low = 0.3, (peak / 25 if progress < 0.3 else self.lr_min)
            along = (1 - progress / top) if progress < top else (progress - top) / (1 - top)
            return low + (peak - low) * (1 + math.cos(math.pi * along)) / 2
        return peak


def available(device: str) -> str:
    """`device` itself, ``auto`` as the best there is.

    Raises ValueError for a device that this machine does not have.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if not there.get(kind) or (index and not (index.isdigit() and int(index) < there[kind])):
        have = ", ".join(name for name, count in there.items() if count)
        raise ValueError(f"device {device!r} is not on this machine, which has: {have}")
    return device


@dataclass(frozen=True)
class Epoch:
    """What `fit` yields after each epoch: how many are done, the metrics, and all that is needed to go on."""

    step: int
    metrics: dict[str, float]
    state: Callable[[], dict[str, Any]]


def fit(
    network: nn.Module,
    train: Split,
    *,
    recipe: Recipe,
    mean: Sequence[float],
    std: Sequence[float],
    valid: Split | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    state: dict[str, Any] | None = None,
    tick: Tick | None = None,
) -> Iterator[Epoch]:
    """Train `network` in place, an epoch each time the iterator is advanced.

    `state` is what an earlier `Epoch.state()` gave: training goes on from there to the same bits.
    Raises ValueError for settings that contradict each other, FloatingPointError if the loss stops being a
    number.
    """
    augment = augment or Augment()
    if recipe.cutout:
        augment = replace(augment, cutout=recipe.cutout)
    training = _Training(network, recipe=recipe, device=torch.device(device), seed=seed)
    norms = {"mean": mean, "std": std, "device": device}
    batches = Batches(
        train,
        batch=recipe.batch,
        seed=derive(seed, "data"),
        augment=augment,
        shuffle=True,
        drop_last=True,
        **norms,  # type: ignore[arg-type]
    )
    if state is not None:
        training.load(state)
    while training.epoch < recipe.epochs and not training.stale:
        with randomness(seed, "epoch", training.epoch):
            metrics = training.run(batches, tick)
        if valid is not None:
            checked = accuracy(training.averaged, valid, mean=mean, std=std, device=device)
            metrics |= {f"valid_{name}": value for name, value in checked.items()}
            training.judge(checked["accuracy"])
        yield Epoch(training.epoch, metrics, training.state)
    if recipe.ema:
        network.load_state_dict(training.averaged.state_dict())


@torch.no_grad()
def accuracy(
    network: nn.Module,
    split: Split,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    batch: int = 256,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, float]:
    """{"accuracy": 0..1, "loss": mean cross-entropy} of `network` in evaluation mode on `split`.

    Raises FloatingPointError if the loss is no number.

    `forward`: how to run it, if not by calling it with the images.
    """
    batches = Batches(split, mean=mean, std=std, batch=batch, device=device, seed=0, shuffle=False)
    before = network.training
    network.eval()
    right = torch.zeros((), device=device, dtype=torch.int64)
    loss = torch.zeros((), device=device, dtype=torch.float64)
    for x, y in batches.epoch(0):
        logits = (forward or network)(x)
        right += (logits.argmax(1) == y).sum()
        loss += nn.functional.cross_entropy(logits.float(), y, reduction="sum")
    network.train(before)
    mean_loss = loss.item() / len(split)
    if not math.isfinite(mean_loss):
        raise FloatingPointError(
            f"the network's loss is {mean_loss}: its training went astray; lower train.lr "
            "(strategy.lr in a search), or clip the gradients"
        )
    return {"accuracy": right.item() / len(split), "loss": mean_loss}


class _Training:
    """The state of one training: network, optimizer, moving average, how far it is."""

    def __init__(self, network: nn.Module, *, recipe: Recipe, device: torch.device, seed: int) -> None:
        self.network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe, self.device = recipe, device
        self.optimizer = _optimizer(self.network, recipe)
        self.ema = _moving_average(self.network, recipe.ema) if recipe.ema else None
        self.epoch = 0
        self.best, self.waited = -1.0, 0

    @property
    def averaged(self) -> nn.Module:
        """The network that is evaluated: the moving average if there is one."""
        averaged: nn.Module = self.network if self.ema is None else self.ema.module
        return averaged

    @property
    def stale(self) -> bool:
        return bool(self.recipe.early_stop) and self.waited >= self.recipe.early_stop

    def judge(self, valid_accuracy: float) -> None:
        """Count the epochs without progress."""
        self.waited = 0 if valid_accuracy > self.best else self.waited + 1
        self.best = max(self.best, valid_accuracy)

    def run(self, batches: Batches, tick: Tick | None) -> dict[str, float]:
        """One epoch. Metrics are read from the device once, at its end."""
        self.network.train()
        if hasattr(self.network, "drop_path"):
            self.network.drop_path = self.recipe.drop_path * self.epoch / self.recipe.epochs
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        seen, steps, rate = 0, len(batches), 0.0
        for step, (x, y) in enumerate(batches.epoch(self.epoch)):
            rate = self.recipe.rate((self.epoch + step / steps) / self.recipe.epochs)
            loss, logits = self._loss(x, y)
            group = min(
                self.recipe.accumulate, steps - step // self.recipe.accumulate * self.recipe.accumulate
            )
            (loss / group).backward()  # type: ignore[no-untyped-call]
            if (step + 1) % self.recipe.accumulate == 0 or step + 1 == steps:
                self._update(rate)
            total += loss.detach() * len(y)
            right += (logits.argmax(1) == y).sum()
            seen += len(y)
            if tick:
                tick(step + 1, steps)
        self.epoch += 1
        mean_loss = total.item() / seen
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"the training loss is {mean_loss} in epoch {self.epoch} (learning rate {rate:.4g}): "
                "it is no number any more; lower train.lr, or set train.clip or train.warmup"
            )
        return {"train_loss": mean_loss, "train_accuracy": right.item() / seen, "lr": rate}

    def _loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            outputs = getattr(self.network, "outputs", lambda x: [self.network(x)])(x)
            losses = [
                nn.functional.cross_entropy(logits, y, label_smoothing=self.recipe.label_smoothing)
                for logits in outputs
            ]
        total = losses[0]
        for auxiliary in losses[1:]:
            total = total + self.recipe.auxiliary * auxiliary
        return total, outputs[0].detach()

    def _update(self, rate: float) -> None:
        if self.recipe.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update_parameters(self.network)

    def state(self) -> dict[str, Any]:
        """Tensors and numbers, readable with ``torch.load(weights_only=True)``."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "waited": self.waited,
        }

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.epoch, self.best, self.waited = state["epoch"], state["best"], state["waited"]


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters = [p for p in network.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            foreach=True,
        )
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, foreach=True)


def _moving_average(network: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=False)
