"""Sizes as proxies: what a network costs, and how large its weights are. They look at no image."""

from __future__ import annotations

import math

from torch import Tensor, nn

from nas.counting import cost
from nas.evaluators.proxies.proxy import proxy, weights


@proxy("params")
def params(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Trainable parameters"""
    return cost(network, input=_shape(images)).params


@proxy("macs")
def macs(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Multiply-adds of one image"""
    return cost(network, input=_shape(images)).macs


@proxy("l2_norm")
def l2_norm(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Sum over layers of the weights' Euclidean norm (Abdelfattah et al. 2021, a control)"""
    return math.fsum(weight.norm().item() for weight in weights(network))


def _shape(images: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = images.shape
    return channels, height, width
