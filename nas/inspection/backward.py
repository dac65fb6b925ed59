"""signal(): what comes back to the image from one output or one unit, under three rules for ReLU.

`plain` is the gradient (Simonyan, Vedaldi, Zisserman 2014). `deconvnet` applies ReLU to the signal on its way
back in place of the derivative (Zeiler & Fergus 2014); `guided` does both (Springenberg, Dosovitskiy, Brox,
Riedmiller 2015). Nothing else differs: the gradient of a convolution is the transposed convolution, that of
max pooling puts each value where the maximum was, which is unpooling with switches, and that of a batch norm
in evaluation is its scale. Where windows overlap, what goes to one switch is added up.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from nas.inspection.probe import Seen, look

Rule = Literal["plain", "guided", "deconvnet"]
RELU = (functional.relu, torch.relu, Tensor.relu)
IN_PLACE = (functional.relu_, torch.relu_, Tensor.relu_)
CLIPPED = (functional.relu6, functional.hardtanh)  # ReLU6 is a ReLU with an upper end


class _Rectifier(torch.autograd.Function):
    """min(max(x, 0), most), with another rule for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, most: float, guided: bool) -> Tensor:
        ctx.guided = guided
        ctx.save_for_backward((x > 0) & (x < most))
        return x.clamp(0, most)

    @staticmethod
    def backward(ctx: Any, *signals: Tensor) -> tuple[Tensor, None, None]:
        (passed,) = ctx.saved_tensors
        forward = signals[0].clamp(min=0)
        return (forward * passed if ctx.guided else forward), None, None


class _Rectified(TorchFunctionMode):
    """Every ReLU, as a module or as a function, follows the rule. Other activations keep their derivative."""

    def __init__(self, *, guided: bool) -> None:
        super().__init__()
        self.guided = guided

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func not in (*RELU, *IN_PLACE, *CLIPPED):
            return func(*args, **given)
        least, most = 0.0, math.inf
        if func is functional.relu6:
            most = 6.0
        elif func is functional.hardtanh:
            least = given.get("min_val", args[1] if len(args) > 1 else -1.0)
            most = given.get("max_val", args[2] if len(args) > 2 else 1.0)
        if least != 0:
            return func(*args, **given)
        x = args[0] if args else given["input"]
        y = _Rectifier.apply(x, most, self.guided)  # type: ignore[no-untyped-call]
        if func in IN_PLACE or given.get("inplace"):
            return x.copy_(y)
        return y


def rule_of(rule: Rule) -> AbstractContextManager[Any]:
    """The context in which a forward pass prepares that rule."""
    return nullcontext() if rule == "plain" else _Rectified(guided=rule == "guided")


def targets(logits: Tensor, target: int | None) -> Tensor:
    """The class to explain for each image: the predicted one, or `target` for all. Raises ValueError."""
    if target is None:
        return logits.argmax(1)
    if not 0 <= target < logits.shape[1]:
        raise ValueError(f"target must be a class in 0..{logits.shape[1] - 1}, not {target}")
    return torch.full((len(logits),), target, device=logits.device)


def score(seen: Seen, layer: str | None, target: int | None) -> tuple[Tensor, Tensor]:
    """What is explained, a number an image, and which: the class, or the place of the layer's largest value.

    Raises ValueError if both a layer and a class are asked for.
    """
    if layer is None:
        chosen = targets(seen.logits, target)
        return seen.logits.gather(1, chosen[:, None])[:, 0], chosen
    if target is not None:
        raise ValueError("target names a class and --layer a unit within: give one of them")
    best, chosen = seen.value(layer).flatten(1).max(1)
    return best, chosen


def signal(
    network: nn.Module,
    images: Tensor,
    *,
    rule: Rule = "plain",
    layer: str | None = None,
    target: int | None = None,
) -> tuple[Tensor, Seen]:
    """What comes back to the images, (batch, channels, height, width), and the forward pass.

    From the logit of the predicted class, or of `target`; with `layer`, from its largest value in each image.
    """
    with torch.enable_grad():
        x = images.detach().clone().requires_grad_()
        with rule_of(rule):
            seen = look(network, x)
        found, _ = score(seen, layer, target)
        if not found.requires_grad:
            return torch.zeros_like(images), seen
        (back,) = torch.autograd.grad(found.sum(), x, allow_unused=True)
    return torch.zeros_like(images) if back is None else back, seen
