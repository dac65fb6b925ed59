"""SynFlow: H. Tanaka, D. Kunin, D. Yamins, S. Ganguli, Pruning neural networks without any data by
iteratively conserving synaptic flow (NeurIPS 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.evaluators.proxies.functions import ACTIVATIONS, NORMALISATIONS
from nas.evaluators.proxies.proxy import operand, parameters, proxy, weights

SMALL = 2.0**-450  # a factor on the input, and on the output, with which nothing overflows on the way


@proxy("synflow")
def synflow(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Log of the synaptic flow: how much goes through the absolute weights (Tanaka et al. 2020)

    R is the sum of the outputs for an image of ones, all parameters absolute, norms left out and activations
    linear, as they are for what is positive; the score is the logarithm of the sum of |w dR/dw| over weights.
    It looks at the images' shape alone.
    """
    network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    ones = torch.ones_like(images[:1], dtype=torch.float64)
    flow = _flow(network, ones)
    if not math.isfinite(flow):
        flow = _flow(network, ones, SMALL)
        return math.log(flow) - 2 * math.log(SMALL) if 0 < flow < math.inf else -math.inf
    return math.log(flow) if flow > 0 else -math.inf


def _flow(network: nn.Module, ones: Tensor, scale: float = 1.0) -> float:
    """The sum of |w dR/dw|. Input and biases are taken `scale` times, and so is R."""
    if scale != 1:
        with torch.no_grad():
            for _, name, parameter in parameters(network):
                if name.endswith("bias"):
                    parameter.mul_(scale)
    own = weights(network)
    with Linear():
        total = network(ones * scale).sum() * scale
    found = torch.autograd.grad(total, own, materialize_grads=True)
    return sum((weight * each).abs().sum().item() for weight, each in zip(own, found, strict=True))


class Linear(TorchFunctionMode):
    """Within it activations and norms give back what they are given."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in ACTIVATIONS | NORMALISATIONS:
            return operand(args, kwargs)
        return func(*args, **(kwargs or {}))
