"""fit() and accuracy(): the one training loop, for searched networks and hand-designed ones."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nas.augment import Augment
from nas.data.batches import Batches
from nas.data.dataset import Split
from nas.data.mixing import Mix, mixes
from nas.group import Group
from nas.recipe import Recipe
from nas.seeding import derive, randomness

COUNTS = ("epoch", "elapsed", "best", "waited", "drops", "stuck")  # the numbers of a training's state
Tick = Callable[[int, int], None]  # batches done in this epoch, batches of an epoch


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
    if valid is None and (recipe.early_stop or recipe.schedule == "plateau"):
        raise ValueError("train.early_stop and train.schedule=plateau need images to validate on: give valid")
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
    while not training.finished:
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
    group: Group | None = None,
) -> dict[str, float]:
    """{"accuracy": 0..1, "loss": mean cross-entropy} of `network` in evaluation mode on `split`.

    `forward`: how to run it, in the mode in which it is; by default it is called with the images. The
    processes of a `group` look at different batches; all learn the result.

    Raises FloatingPointError if the loss is no number.
    """
    batches = Batches(split, mean=mean, std=std, batch=batch, device=device, seed=0, shuffle=False)
    before = network.training
    if forward is None:
        network.eval()
    right = torch.zeros((), device=device, dtype=torch.int64)
    loss = torch.zeros((), device=device, dtype=torch.float64)
    rank, size = (group or Group()).share
    for x, y in itertools.islice(batches.epoch(0), rank, None, size):
        logits = (forward or network)(x)
        right += (logits.argmax(1) == y).sum()
        loss += nn.functional.cross_entropy(logits.float(), y, reduction="sum")
    if forward is None:
        network.train(before)
    if group is not None:
        right, loss = group.total(right), group.total(loss)
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
        self.recipe, self.device, self.seed = recipe, device, seed
        self.optimizer = _optimizer(self.network, recipe)
        self.ema = _moving_average(self.network, recipe.ema) if recipe.ema else None
        self.epoch = 0
        self.elapsed = 0.0  # seconds of training, when the training is measured by them
        self.best, self.waited = -1.0, 0
        self.drops, self.stuck = 0, 0  # of the schedule `plateau`: of the rate, and epochs since progress

    @property
    def averaged(self) -> nn.Module:
        """The network that is evaluated: the moving average if there is one."""
        averaged: nn.Module = self.network if self.ema is None else self.ema.module
        return averaged

    @property
    def finished(self) -> bool:
        stale = bool(self.recipe.early_stop) and self.waited >= self.recipe.early_stop
        return stale or self.progress() >= 1

    def progress(self, part: float = 0.0) -> float:
        """How much of the training is done, 0..1, when `part` of this epoch is."""
        if self.recipe.seconds:
            return min(1.0, self.elapsed / self.recipe.seconds)
        return (self.epoch + part) / self.recipe.epochs

    def judge(self, valid_accuracy: float) -> None:
        """Count the epochs without progress."""
        better = valid_accuracy > self.best
        self.best = max(self.best, valid_accuracy)
        self.waited = 0 if better else self.waited + 1
        self.stuck = 0 if better else self.stuck + 1
        if self.recipe.schedule == "plateau" and self.stuck >= self.recipe.patience:
            self.drops, self.stuck = self.drops + 1, 0

    def run(self, batches: Batches, tick: Tick | None) -> dict[str, float]:
        """One epoch. Metrics are read from the device once, at its end."""
        self.network.train()
        if hasattr(self.network, "drop_path"):
            self.network.drop_path = self.recipe.drop_path * self.progress()
        clock = _Clock(self.device, self.elapsed) if self.recipe.seconds else None
        mixed = self._mixes(batches)
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        right = torch.zeros((), device=self.device, dtype=torch.int64)
        seen, steps, rate = 0, len(batches), 0.0
        for step, (x, y) in enumerate(batches.epoch(self.epoch)):
            rate = self.recipe.rate(self.progress(step / steps), self.drops)
            mix = next(mixed) if mixed else None
            loss, logits = self._loss(x if mix is None else mix(x), y, mix)
            group = min(
                self.recipe.accumulate, steps - step // self.recipe.accumulate * self.recipe.accumulate
            )
            (loss / group).backward()  # type: ignore[no-untyped-call]
            if (step + 1) % self.recipe.accumulate == 0 or step + 1 == steps:
                self._update(rate)
                if clock:
                    self.elapsed = clock.step()
            total += loss.detach() * len(y)
            right += (logits.argmax(1) == (y if mix is None or mix.share >= 0.5 else y.roll(1))).sum()
            seen += len(y)
            if tick:
                tick(step + 1, steps)
            if clock and self.progress() >= 1:
                break
        self.epoch += 1
        mean_loss = total.item() / seen
        if not math.isfinite(mean_loss):
            raise FloatingPointError(
                f"the training loss is {mean_loss} in epoch {self.epoch} (learning rate {rate:.4g}): "
                "it is no number any more; lower train.lr, or set train.clip or train.warmup"
            )
        timed = {"seconds": self.elapsed} if clock else {}
        return {"train_loss": mean_loss, "train_accuracy": right.item() / seen, "lr": rate, **timed}

    def _mixes(self, batches: Batches) -> Iterator[Mix] | None:
        """How the batches of this epoch are mixed, if they are."""
        if not (self.recipe.mixup or self.recipe.cutmix):
            return None
        key = (self.seed, "mix", self.epoch)
        return mixes(mixup=self.recipe.mixup, cutmix=self.recipe.cutmix, size=batches.size, key=key)

    def _loss(self, x: Tensor, y: Tensor, mix: Mix | None) -> tuple[Tensor, Tensor]:
        """The loss, linear in the labels: of mixed images, both labels' by their shares."""

        def entropy(logits: Tensor, labels: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            outputs = getattr(self.network, "outputs", lambda x: [self.network(x)])(x)
            losses = [entropy(logits, y) for logits in outputs]
            if mix is not None:
                other = [entropy(logits, y.roll(1)) for logits in outputs]
                losses = [mix.share * a + (1 - mix.share) * b for a, b in zip(losses, other, strict=True)]
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
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "ema": self.ema.state_dict() if self.ema is not None else None,
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in COUNTS},
        }

    def load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        for name in COUNTS:
            setattr(self, name, state[name])


class _Clock:
    """Seconds of training. A device works behind this process; one step behind at most is let happen, so that
    what is counted is work done, and the device still never waits for the next step.
    """

    def __init__(self, device: torch.device, before: float) -> None:
        self.begun = time.monotonic() - before
        self.device = device
        self.behind: torch.cuda.Event | None = None

    def step(self) -> float:
        """A step was given to the device: the seconds so far."""
        if self.device.type == "cuda":
            if self.behind is not None:
                self.behind.synchronize()
            self.behind = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.behind.record(torch.cuda.current_stream(self.device))
        return time.monotonic() - self.begun


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups = parameter_groups(network, recipe)
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "foreach": True}
    eps = recipe.eps or 1e-8
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.nesterov, **common)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, alpha=recipe.rho, momentum=recipe.momentum, eps=eps, **common)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, eps=eps, **common)


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """What an optimizer trains: parameters with weight decay; apart, those that `recipe.undecayed` names."""
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for kind, parameter in _kinds(network):
        (rest if kind in recipe.undecayed else decayed).append(parameter)
    apart = [{"params": rest, "weight_decay": 0.0}] if rest else []
    return ([{"params": decayed}] if decayed or not rest else []) + apart


def _kinds(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Every trained parameter once, as ``weights`` or as one of the kinds of `recipe.undecayed`."""
    norms = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    convolutions, seen = nn.modules.conv._ConvNd, set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            weight = name.endswith("weight") and parameter.ndim > 1
            if isinstance(module, norms):
                yield "norms", parameter
            elif name.endswith("bias") and parameter.ndim == 1:
                yield "biases", parameter
            elif weight and isinstance(module, convolutions) and 1 < module.groups == module.in_channels:
                yield "depthwise", parameter
            else:
                yield "weights" if weight else "others", parameter


def _moving_average(network: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=False)
