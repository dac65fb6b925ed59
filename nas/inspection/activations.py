"""The images that activate a unit most, and the patch that the unit sees (Zeiler & Fergus 2014, figure 2;
Girshick, Donahue, Darrell, Malik 2014, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nas.data.dataset import Split
from nas.inspection.canvas import Picture, sheet
from nas.inspection.geometry import Field, fields
from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.probe import look


class Peaks(NamedTuple):
    """The largest values of each channel over images: (images, channels), and their places (row, column).

    Of a layer without rows and columns the places are 0.
    """

    values: Tensor
    rows: Tensor
    columns: Tensor


@torch.no_grad()
def peaks(case: Case, part: Split, layer: str | None) -> tuple[Peaks, str]:
    """The peaks of a layer on a part of the data, and the layer's name (by default the last map)."""
    found: list[Peaks] = []
    name = ""
    for x, _ in case.batches(part).epoch(0):
        seen = look(case.network, x)
        name, value = seen.map(None) if layer is None else (layer, seen.value(layer))
        maps = value if value.dim() == 4 else value.flatten(1)[:, :, None, None]
        best, place = maps.flatten(2).max(2)
        found.append(Peaks(best.cpu(), (place // maps.shape[3]).cpu(), (place % maps.shape[3]).cpu()))
    return Peaks(*(torch.cat(each) for each in zip(*found, strict=True))), name


def strongest(values: Tensor, units: int) -> list[int]:
    """The `units` channels whose peak stands out most: the largest value over the mean one, in deviations."""
    spread = values.std(0, correction=0).clamp(min=1e-12)
    prominence = (values.amax(0) - values.mean(0)) / spread
    prominence[values.amax(0) <= 0] = -1.0  # units that no image activates
    return prominence.topk(min(units, values.shape[1])).indices.tolist()


@INSPECTIONS.register("activations", layer=True, images=True)
def activations(case: Case, *, units: int = 8, scan: int = 2000) -> Finding:
    """The images, and the patch in each, that activate a unit most (Zeiler & Fergus 2014)

    `units`: how many channels are shown, those whose peak stands out most. `scan`: the test images that are
    looked through, in their order. As many images are shown of each unit as were asked for.
    """
    assert case.data is not None
    part = case.data.test.take(np.arange(min(scan, len(case.data.test))))
    found, layer = peaks(case, part, case.layer)
    field = fields(case.network, tuple(case.images.shape[1:])).get(layer)  # type: ignore[arg-type]
    images, chosen = min(len(case.images), len(part)), strongest(found.values, units)
    listed, rows, names = {}, [], []
    for unit in chosen:
        order = found.values[:, unit].topk(images).indices
        listed[str(unit)] = {"images": order.tolist(), "values": found.values[order, unit].tolist()}
        places = [(int(found.rows[i, unit]), int(found.columns[i, unit])) for i in order]
        whole, patches = _pictures(case, part, order, places, field)
        rows += [whole, patches] if patches else [whole]
        names += [f"channel {unit}", "its patch"] if patches else [f"channel {unit}"]
    sight = field.words if field else "not known in closed form"
    note = (
        f"Of {len(part):,} test images those with the largest values, falling from left to right. What a "
        f"unit sees: {sight}; the red box is that part of the image, where it is not all of it."
    )
    drawn = sheet(rows, title=f"{case.title}: what activates {layer}", note=note, labels=names, side=1.0)
    return Finding({"": drawn}, {"units": listed, "scanned": len(part)}, layer)


def _pictures(
    case: Case, part: Split, order: Tensor, places: Sequence[tuple[int, int]], field: Field | None
) -> tuple[list[Picture | None], list[Picture | None]]:
    """The images with boxes, and the patches in the boxes; no boxes and no patches where all is seen."""
    size = part.images.shape[2:]
    images = case.pictures(_normalised(case, part, order))
    boxes = [field.box(*place, size=size, whole=True) if field else None for place in places]
    labels = [case.class_name(int(part.labels[index])) for index in order]
    if all(box is None or box.sides == size for box in boxes):
        return [Picture(image, label) for image, label in zip(images, labels, strict=True)], []
    whole: list[Picture | None] = []
    patches: list[Picture | None] = []
    for image, label, box in zip(images, labels, boxes, strict=True):
        assert box is not None
        whole.append(Picture(image, label, box=box))
        patches.append(Picture(image[box.top : box.bottom, box.left : box.right]))
    return whole, patches


def _normalised(case: Case, part: Split, order: Tensor) -> Tensor:
    x, _ = next(case.batches(part.take(order.numpy()), batch=len(order)).epoch(0))
    return x
