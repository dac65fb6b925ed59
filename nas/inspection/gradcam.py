"""Grad-CAM (Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra, ICCV 2017).

alpha_k = mean over the places of d y_c / d A_k (eq. 1); the map is ReLU(sum_k alpha_k A_k) (eq. 2), with y_c
the logit. On a network that ends in global average pooling and a linear layer it is the ReLU of the class
activation map divided by the number of places.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.inspection.backward import targets
from nas.inspection.heatmaps import overlaid
from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.probe import Seen, look


def grad_cam(
    network: nn.Module, images: Tensor, *, layer: str | None = None, target: int | None = None
) -> tuple[Tensor, str, Seen]:
    """The map (batch, height, width), the layer that it is of, and the forward pass.

    `layer`: by default the last one with rows and columns. Raises ValueError for a layer without them.
    """
    with torch.enable_grad():
        seen = look(network, images.detach().clone().requires_grad_())
        name, maps = seen.map(layer)
        score = seen.logits.gather(1, targets(seen.logits, target)[:, None]).sum()
        (slope,) = torch.autograd.grad(score, maps, allow_unused=True)
    if slope is None:
        raise ValueError(f"no class depends on layer {name!r}: name one on the way to the output")
    weights = slope.mean((2, 3))
    return torch.einsum("bk,bkhw->bhw", weights, maps.detach()).clamp(min=0), name, seen


@INSPECTIONS.register("gradcam", layer=True, images=True)
def gradcam(case: Case, *, target: int | None = None) -> Finding:
    """Where a layer's evidence for a class lies (Selvaraju et al. 2017); any network

    `target`: the class; by default each image's predicted one. The layer is the last map, if none is asked
    for.
    """
    maps, layer, seen = grad_cam(case.network, case.images, layer=case.layer, target=target)
    note = "Red: the places that raise the logit of the class in the line above; blue: those that do not."
    return overlaid(case, "Grad-CAM", seen, maps, layer=layer, target=target, note=note)
