"""Recipe: how a network is trained, as numbers; and the named recipes: YAML files of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from nas.documents import read_yaml
from nas.registry import unknown

RECIPES = Path(__file__).parent / "recipes"
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Above = Annotated[float, Field(gt=0)]
Undecayed = Literal["norms", "biases", "depthwise", "others"]

# Fields that mean something under some optimizers or schedules only.
BELONGS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd", "rmsprop")),
    "nesterov": ("optimizer", ("sgd",)),
    "rho": ("optimizer", ("rmsprop",)),
    "eps": ("optimizer", ("rmsprop", "adam", "adamw")),
    "lr_min": ("schedule", ("cosine", "onecycle")),
    "milestones": ("schedule", ("step",)),
    "gamma": ("schedule", ("step", "exponential", "plateau")),
    "period": ("schedule", ("exponential",)),
    "patience": ("schedule", ("plateau",)),
}


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Every field is the configuration key ``train.<field>``.

    epochs, batch: passes over the training images; images a step.
    seconds: if above 0, the training lasts this long in place of `epochs`: its steps, not the validation
        after an epoch; time before an interruption counts. The schedule is stretched over it: `warmup`,
        `period` and `milestones` are the same parts of the training as they are of `epochs`. The last epoch
        may be cut short, and there is at least one step. Such a training cannot be repeated to the bit.
    optimizer, lr, weight_decay: of the optimizer; Adam and AdamW have betas (0.9, 0.999).
    momentum: of SGD and RMSprop. nesterov: of SGD.
    rho: decay of RMSprop's average of squares. eps: beside the root in RMSprop and Adam; 0: 1e-8.
    undecayed: parameters without weight decay: of ``norms``; ``biases``; weights of ``depthwise``
        convolutions; ``others``, which are no layer's weight or bias (class tokens, tables of positions,
        scales).
    schedule: ``cosine`` to `lr_min`; ``step``: times `gamma` at each of `milestones` (parts of the training);
        ``exponential``: times `gamma` after every `period` epochs; ``plateau``: times `gamma` when the
        validation accuracy has not grown for `patience` epochs; ``onecycle`` (Smith & Topin 2018): up to `lr`
        in the first 30 %, then down to `lr_min`; ``constant``.
    warmup: epochs of linear growth from 0 (Goyal et al. 2017).
    reference_batch: linear scaling of the rate (Goyal et al. 2017): lr * batch * accumulate /
        reference_batch; 0: off.
    label_smoothing: Szegedy et al. 2016. auxiliary: weight of the auxiliary classifiers' losses.
    mixup: parameter of the Beta distribution of the shares (Zhang et al. 2018); cutmix: the same for pasted
        boxes (Yun et al. 2019); 0: off. With both, each step draws one of them.
    drop_path: probability at the end, growing linearly from 0 (Zoph et al. 2018), in networks of a space.
    clip: largest norm of the gradient; 0: off.
    ema: decay of the moving average of weights that is evaluated; 0: off.
    precision: ``bfloat16`` runs the forward pass under autocast.
    accumulate: steps whose gradients are added up before an update.
    early_stop: epochs without a better validation accuracy after which training stops; 0: off.
    valid: part of the training images that is kept for validation after each epoch; 0: all are trained on.
    cutout: side in pixels of the square blanked in training images (DeVries & Taylor 2017), in place of
        `data.augment.cutout`.

    Raises ValueError for fields that contradict each other, or that the optimizer or schedule has no use for.
    """

    epochs: Positive = 20
    batch: Positive = 96
    seconds: Rate = 0.0
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "sgd"
    lr: Above = 0.05
    lr_min: Rate = 0.0
    momentum: Share = 0.9
    nesterov: bool = False
    rho: Share = 0.9
    eps: Rate = 0.0
    weight_decay: Rate = 3e-4
    undecayed: tuple[Undecayed, ...] = ()
    schedule: Literal["cosine", "step", "exponential", "plateau", "onecycle", "constant"] = "cosine"
    milestones: tuple[Share, ...] = (0.5, 0.75)
    gamma: Rate = 0.1
    period: Above = 1.0
    patience: Positive = 5
    warmup: Rate = 0.0
    reference_batch: Count = 0
    label_smoothing: Share = 0.0
    auxiliary: Rate = 0.4
    mixup: Rate = 0.0
    cutmix: Rate = 0.0
    drop_path: Share = 0.0
    clip: Rate = 5.0
    ema: Share = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    accumulate: Positive = 1
    early_stop: Count = 0
    valid: Share = 0.0
    cutout: Count = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            choice, values = BELONGS.get(field.name, ("optimizer", (self.optimizer,)))
            given = getattr(self, field.name)
            if getattr(self, choice) not in values and _differs(given, field.default):
                raise ValueError(
                    f"train.{field.name} belongs to train.{choice}={' or '.join(values)}: leave it out, or "
                    f"change train.{choice}, which is {getattr(self, choice)}"
                )
        for name, on in (("early_stop", self.early_stop), ("schedule=plateau", self.schedule == "plateau")):
            if on and not self.valid:
                raise ValueError(
                    f"train.{name} needs a validation part: set train.valid to a fraction above 0"
                )
        if self.warmup and self.schedule == "onecycle":
            raise ValueError("train.schedule=onecycle warms up by itself: set train.warmup to 0")

    @property
    def peak(self) -> float:
        """The highest rate: `lr`, scaled to the batch if there is a `reference_batch`."""
        return self.lr * (
            self.batch * self.accumulate / self.reference_batch if self.reference_batch else 1.0
        )

    def rate(self, progress: float, drops: int = 0) -> float:
        """The learning rate when `progress` (0..1) of the training is done, after `drops` of ``plateau``."""
        peak, done = self.peak, progress * self.epochs
        if done < self.warmup:
            return peak * done / self.warmup
        if self.schedule == "cosine":
            start = self.warmup / self.epochs
            along = (progress - start) / max(1e-12, 1 - start)
            return self.lr_min + (peak - self.lr_min) * (1 + math.cos(math.pi * along)) / 2
        if self.schedule == "onecycle":
            top, low = 0.3, (peak / 25 if progress < 0.3 else self.lr_min)
            along = (1 - progress / top) if progress < top else (progress - top) / (1 - top)
            return low + (peak - low) * (1 + math.cos(math.pi * along)) / 2
        if self.schedule == "step":
            drops = sum(progress >= milestone for milestone in self.milestones)
        elif self.schedule == "exponential":
            drops = math.floor(done / self.period + 1e-9)
        return peak * self.gamma**drops if self.schedule != "constant" else peak


def _differs(given: Any, default: Any) -> bool:
    """Whether a field was given another value than its default; a list read from a file is a tuple."""
    return bool((tuple(given) if isinstance(given, list) else given) != default)


def pruned(train: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's section ``train`` without what belongs to an optimizer or schedule that `chosen` changes."""

    def stays(key: str) -> bool:
        choice, values = BELONGS.get(key, ("", ()))
        before = train.get(choice, getattr(Recipe, choice, None))
        return chosen.get(choice, before) in (before, *values)

    return {key: value for key, value in train.items() if stays(key)}


def recipes() -> dict[str, str]:
    """Name -> summary of the recipes that come with the package."""
    return {path.stem: read_yaml(path).get("summary", "") for path in sorted(RECIPES.glob("*.yaml"))}


def recipe(name: str) -> dict[str, Any]:
    """A recipe by name or by path. Raises ValueError with the nearest match."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.exists():
        raise ValueError(unknown("recipe", name, [path.stem for path in RECIPES.glob("*.yaml")]))
    return read_yaml(path)


def recipe_for(name: str, family: str) -> str | None:
    """The recipe of a hand-designed network's paper, if there is one.

    Its key ``for`` has the name, perhaps as a pattern (``deit_*``), or else the family.
    """
    lists = {path.stem: read_yaml(path).get("for", ()) for path in sorted(RECIPES.glob("*.yaml"))}
    named = (key for key, listed in lists.items() if any(fnmatchcase(name, pattern) for pattern in listed))
    return next(named, next((key for key, listed in lists.items() if family in listed), None))
