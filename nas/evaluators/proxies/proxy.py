"""Proxy: a number of an untrained network that is meant to order networks as their accuracy does.

M. Abdelfattah, A. Mehrotra, L. Dudziak, N. Lane, Zero-Cost Proxies for Lightweight NAS (ICLR 2021), brought
most of them together; a proxy costs as much as one batch of training or less.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, Protocol

from torch import Tensor, nn

from nas.registry import Registry
from nas.seeding import randomness

Measure = Callable[[nn.Module, Tensor, Tensor], float]
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class Proxy(Protocol):
    """(network, images (N, C, H, W), labels (N,)) -> a score, larger is better.

    The network stays as it was to the bit, and so do PyTorch's generators; randomness is keyed by `seed`.
    Where nothing of the input reaches the output, those that look at activations give -inf (synflow, zen,
    naswot, jacov, epe_nas); sums over gradients and sizes have a number nevertheless.
    """

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0) -> float: ...


PROXIES: Registry[Proxy] = Registry("proxy")


def proxy(name: str) -> Callable[[Measure], Proxy]:
    """Decorator: enter a measure under `name`.

    It is called with a copy of the network that it may spoil, in which batch norms normalise by the batch, as
    an untrained network's have seen no data, and nothing is dropped.
    """

    def enter(measure: Measure) -> Proxy:
        @wraps(measure)
        def scored(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int = 0) -> float:
            with randomness(seed, name):
                return float(measure(fresh(network), images.detach(), labels))

        return PROXIES.register(name)(scored)

    return enter


def fresh(network: nn.Module) -> nn.Module:
    """A copy that nothing else refers to: without gradients, batch norms in training mode, the rest not."""
    duplicate = copy.deepcopy(network).eval()
    for module in duplicate.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    for parameter in duplicate.parameters():
        parameter.grad = None
        parameter.requires_grad_(True)
    return duplicate


def weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of convolutions, linear layers and attention, each once: not of norms, no biases."""
    return [parameter for _, name, parameter in parameters(network) if is_weight(name, parameter)]


def is_weight(name: str, parameter: Tensor) -> bool:
    """Whether a parameter of that name multiplies activations with each other's channels."""
    return name.endswith("weight") and parameter.dim() > 1


def parameters(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Every parameter once, with its module and its name there."""
    met: set[int] = set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in met:
                met.add(id(parameter))
                yield module, name, parameter


def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of the batch."""
    return nn.functional.cross_entropy(network(images).float(), labels)


def operand(args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Tensor:
    """The first argument of a function of `torch`."""
    found: Tensor = args[0] if args else (kwargs or {})["input"]
    return found
