"""Saliencies of pruning, summed over a network: how much the loss of one batch depends on each weight.

Of one batch with loss L, weights w, gradient g = dL/dw and Hessian H. The papers prune by the summands; the
sums are those of Abdelfattah et al. (2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from nas.evaluators.proxies.proxy import loss, operand, proxy, weights


@proxy("grad_norm")
def grad_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum over layers of the gradient's Euclidean norm (Abdelfattah et al. 2021)"""
    return math.fsum(gradient.norm().item() for _, gradient in _gradients(network, images, labels))


@proxy("snip")
def snip(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum of |w g|: how the loss changes as connections go (SNIP, Lee, Ajanthan & Torr, ICLR 2019)"""
    return sum((weight * g).abs().sum().item() for weight, g in _gradients(network, images, labels))


@proxy("plain")
def plain(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum of w g, with its sign (as in NAS-Bench-Suite-Zero, Krishnakumar et al., NeurIPS 2022)

    A layer before a batch norm adds nothing, as scaling it changes nothing: what is left is the classifier's.
    """
    return sum((weight * g).sum().item() for weight, g in _gradients(network, images, labels))


@proxy("grasp")
def grasp(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum of -w H g: how weights keep up the gradient flow (GraSP, Wang, Zhang & Grosse, ICLR 2020)"""
    own = weights(network)
    with sdpa_kernel(SDPBackend.MATH), Twice():
        first = torch.autograd.grad(
            loss(network, images, labels), own, create_graph=True, materialize_grads=True
        )
        along = sum((gradient.detach() * gradient).sum() for gradient in first)
        if not (isinstance(along, Tensor) and along.requires_grad):
            return 0.0
        second = torch.autograd.grad(along, own, materialize_grads=True)  # H g
    return -sum((weight * each).sum().item() for weight, each in zip(own, second, strict=True))


@proxy("fisher")
def fisher(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fisher information of the layers' channels (BlockSwap, Turner et al., ICLR 2020)

    Of a channel with activations A and their gradient G: the mean over images of half the square of the sum
    of A G over places. It counts once for each of the channel's weights.
    """
    calls: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        calls.append((module, output))
        return output.clone()  # what follows may work in place

    for module in network.modules():
        if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
            module.register_forward_hook(keep)
    value = loss(network, images, labels)
    found = torch.autograd.grad(value, [output for _, output in calls], materialize_grads=True)
    total = 0.0
    for (module, output), gradient in zip(calls, found, strict=True):
        product = output.detach() * gradient
        if isinstance(module, nn.Linear):  # (N, ..., channels), windows of an image perhaps along the batch
            summed = product.reshape(len(images), -1, product.shape[-1]).sum(1)
        else:
            summed = product.flatten(2).sum(2)
        count = sum(w.numel() for w in module.parameters(recurse=False) if w.dim() > 1) / summed.shape[1]
        total += count * (summed.square().mean(0) / 2).sum().item()
    return total


class Twice(TorchFunctionMode):
    """Within it functions that PyTorch derives but once are written out, as `sdpa_kernel` does attention."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") == "hardsigmoid":
            return (operand(args, kwargs) / 6 + 0.5).clamp(0, 1)
        return func(*args, **(kwargs or {}))


def _gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The weights and dL/dw, zero for those that the loss does not depend on."""
    own = weights(network)
    value = loss(network, images, labels)
    found = torch.autograd.grad(value, own, materialize_grads=True)
    return [(weight.detach(), gradient) for weight, gradient in zip(own, found, strict=True)]
