"""Class activation maps (Zhou, Khosla, Lapedriza, Oliva, Torralba, CVPR 2016).

For a network that ends in global average pooling and one linear layer: M_c(x, y) = sum_k w_k^c f_k(x, y), eq.
2. The mean of M_c over the places, plus the bias, is the logit of class c.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nas.inspection.backward import targets
from nas.inspection.heatmaps import overlaid
from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.probe import Seen, look

WAY_OUT = "ask for --kind gradcam, which works on any network"


class Ending(NamedTuple):
    """The maps behind which only a mean and a linear layer follow, and that layer's numbers.

    maps: (batch, channels, height, width); weight: (classes, channels); bias: (classes,).
    """

    layer: str
    maps: Tensor
    weight: Tensor
    bias: Tensor


def ending(network: nn.Module, seen: Seen) -> Ending:
    """The network's ending, found by what it computes. Raises ValueError if it ends otherwise.

    A network whose last maps are those of the classes (Lin et al. 2014) has the identity as its linear layer.
    """
    logits = seen.logits
    if seen.last is None:
        raise ValueError(f"this network has no maps before its output: {WAY_OUT}")
    layer, maps = seen.last
    mean = maps.mean((2, 3))
    if _same(mean, logits):
        classes = logits.shape[1]
        return Ending(layer, maps, torch.eye(classes).to(maps), torch.zeros(classes).to(maps))
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and module.in_features == maps.shape[1] and name in seen.values:
            bias = torch.zeros_like(module.weight[:, 0]) if module.bias is None else module.bias
            if len(bias) == logits.shape[1] and _same(mean @ module.weight.T, logits - bias):
                return Ending(layer, maps, module.weight, bias)
    raise ValueError(
        f"class activation maps need a network that ends in global average pooling and one linear layer; "
        f"behind {layer!r} this one computes something else: {WAY_OUT}"
    )


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether they are equal to rounding, measured by their own size: logits may be small."""
    if one.shape != other.shape:
        return False
    size = torch.maximum(one.abs().amax(), other.abs().amax())
    return bool((one - other).abs().amax() <= 1e-4 * size)


@torch.no_grad()
def class_activation(network: nn.Module, images: Tensor, *, target: int | None = None) -> tuple[Tensor, Seen]:
    """M_c (batch, height, width) of the predicted class, or of `target`, and the forward pass."""
    seen = look(network, images)
    end = ending(network, seen)
    chosen = targets(seen.logits, target)
    return torch.einsum("bk,bkhw->bhw", end.weight[chosen], end.maps), seen


@INSPECTIONS.register("cam", layer=False, images=True)
def cam(case: Case, *, target: int | None = None) -> Finding:
    """Where the evidence for a class lies (Zhou et al. 2016); needs global average pooling and a linear layer

    `target`: the class; by default each image's predicted one.
    """
    maps, seen = class_activation(case.network, case.images, target=target)
    assert seen.last is not None
    note = "Red: most evidence for the class in the line above; blue: none, or evidence against it."
    return overlaid(case, "class activation", seen, maps, layer=seen.last[0], target=target, note=note)
