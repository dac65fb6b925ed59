"""Saliency (Simonyan, Vedaldi, Zisserman, ICLR workshop 2014).

|d S_c / d pixel|, the largest over the colours (section 3.1), with S_c the logit: which pixels need to be
changed the least to change the class score the most.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.inspection.backward import signal
from nas.inspection.canvas import Picture, sheet, unit_range
from nas.inspection.heatmaps import explained, facts, in_rows, labelled
from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.probe import Seen


def saliency_maps(
    network: nn.Module, images: Tensor, *, layer: str | None = None, target: int | None = None
) -> tuple[Tensor, Seen]:
    """The map (batch, height, width), not negative, and the forward pass."""
    back, seen = signal(network, images, layer=layer, target=target)
    return back.abs().amax(1), seen


@INSPECTIONS.register("saliency", layer=True, images=True)
def saliency(case: Case, *, target: int | None = None) -> Finding:
    """Which pixels the class score hangs on: its gradient (Simonyan et al. 2014)

    `target`: the class; by default each image's predicted one. With a layer: of its strongest unit.
    """
    maps, seen = saliency_maps(case.network, case.images, layer=case.layer, target=target)
    # A few pixels are far above all others: a square root keeps the rest visible.
    pictures, heat = case.pictures(), unit_range(torch.sqrt(maps).cpu().numpy())
    what = explained(case, seen, case.layer, target)
    rows: list[list[Picture | None]] = []
    for places in in_rows(len(pictures)):
        rows.append([Picture(pictures[i], labelled(case, i)) for i in places])
        rows.append([Picture(heat[i], f"→ {what[i]}") for i in places])
    of = f"of the strongest unit of {case.layer}" if case.layer else "of the class score"
    note = f"The size of the gradient {of}, largest over the colours; brightness grows with its square root."
    drawn = sheet(rows, title=f"{case.title}: saliency", note=note)
    return Finding({"": drawn}, {"images": facts(case, seen, what)}, case.layer)
