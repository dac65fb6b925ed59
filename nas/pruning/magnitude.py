"""Magnitude pruning (Han, Pool, Tran, Dally, NeurIPS 2015): the smallest weights become zero, and stay so.

AlexNet: 61 M weights to 6.7 M without a loss of accuracy (table 1). Here one threshold holds for all layers;
biases and norms stay. Tensors keep their shapes: a file that is packed becomes smaller, a dense kernel no
faster.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nas.counting import Cost
from nas.graph import Shape
from nas.pruning.pruning import PRUNINGS

LAYERS = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)


class Mask(nn.Module):
    """A weight times 0 or 1."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Tensor) -> Tensor:
        kept: Tensor = self.kept  # type: ignore[assignment]
        return weight * kept


def weighted(network: nn.Module) -> dict[str, Any]:
    """The layers whose weights are pruned, by name; a layer that stands in several places once."""
    return {name: module for name, module in network.named_modules() if isinstance(module, LAYERS)}


class Magnitude:
    """The smallest weights of the whole network (Han et al. 2015); shapes stay"""

    def cut(self, network: nn.Module, *, before: float, after: float, example: Tensor) -> None:
        layers = weighted(network)
        if not layers:
            raise ValueError("this network has no convolution and no linear layer: no weights to prune")
        sizes = torch.cat([layer.weight.detach().abs().flatten() for layer in layers.values()])
        count = round(after * len(sizes))
        kept = torch.ones_like(sizes, dtype=torch.bool)
        kept[sizes.argsort(stable=True)[:count]] = False
        start = 0
        for layer in layers.values():
            weight: Tensor = layer.weight
            mask = kept[start : start + weight.numel()].view(weight.shape).to(weight.dtype)
            start += weight.numel()
            parametrize.register_parametrization(layer, "weight", Mask(mask))

    def release(self, network: nn.Module) -> None:
        for layer in weighted(network).values():
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)

    def size(self, network: nn.Module, input: Shape) -> Cost:
        """Parameters that are not zero, and the multiply-adds that they need: those of a sparse kernel."""
        layers = weighted(network)
        left = {name: int(layer.weight.count_nonzero()) for name, layer in layers.items()}
        own = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
        others = sum(p.numel() for p in network.parameters() if id(p) not in own)
        biases = sum(layer.bias.numel() for layer in layers.values() if layer.bias is not None)
        shadow = copy.deepcopy(network).to("meta").eval()
        macs = 0

        def add(name: str) -> Any:
            def hook(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                nonlocal macs
                turned = isinstance(layer, nn.ConvTranspose2d)
                places = (
                    inputs[0].numel() // layer.weight.shape[0]
                    if turned
                    else output.numel() // len(layer.weight)
                )
                macs += left[name] * places

            return hook

        for name, layer in weighted(shadow).items():
            layer.register_forward_hook(add(name))
        with torch.no_grad():
            shadow(torch.empty(1, *input, device="meta"))
        return Cost(sum(left.values()) + biases + others, macs)


PRUNINGS.register("magnitude")(Magnitude())
