"""Zen-Score: M. Lin, P. Wang, Z. Sun et al., Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition
(ICCV 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.evaluators.proxies.proxy import NORMS, is_weight, operand, parameters, proxy

PERTURBATION = 0.01  # alpha of the paper


@proxy("zen")
def zen(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Log of how much the features change with noise, batch norms undone (Lin et al. 2021, algorithm 1)

    Weights and images are Gaussian noise: of the images given only the shape matters. The features are those
    before the global pooling. Connections that skip layers stay, which the paper takes away.
    """
    _gaussian(network)
    x, noise = torch.randn(2, *images.shape, device=images.device)
    with torch.no_grad():
        features, variances = _features(network, x)
        moved, _ = _features(network, x + PERTURBATION * noise)
    change = (features - moved).double().abs().flatten(1).sum(1).mean().item()
    if not change > 0:
        return -math.inf
    return math.log(change) + sum(math.log(variance) / 2 for variance in variances if variance > 0)


def _gaussian(network: nn.Module) -> None:
    """Weights N(0, 1), norms at 1 and biases at 0."""
    with torch.no_grad():
        for module, name, parameter in parameters(network):
            if is_weight(name, parameter):
                parameter.normal_()
            elif name.endswith("bias"):
                parameter.zero_()
            elif name == "weight" and isinstance(module, NORMS):
                parameter.fill_(1.0)


def _features(network: nn.Module, images: Tensor) -> tuple[Tensor, list[float]]:
    """The features before the global pooling, and the variance that each batch norm divides by."""
    with Watch() as watch:
        logits = network(images)
    return (logits if watch.features is None else watch.features), watch.variances


class Watch(TorchFunctionMode):
    """Keeps the last value with more than one place, and the mean variance of what enters batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.features: Tensor | None = None
        self.variances: list[float] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") == "batch_norm":
            entering = operand(args, kwargs)
            others = [axis for axis in range(entering.dim()) if axis != 1]
            self.variances.append(entering.var(others, correction=0).mean().item())
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and sum(size > 1 for size in found.shape[1:]) > 1:
            self.features = found
        return found
