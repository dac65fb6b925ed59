"""What kinds that draw one map an image have in common: the sheet, its captions and its figures."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from nas.inspection.backward import targets
from nas.inspection.canvas import Picture, sheet, unit_range
from nas.inspection.inspection import Case, Finding
from nas.inspection.probe import Seen

ACROSS = 8  # pictures in a row


def in_rows(count: int) -> list[range]:
    """The numbers of pictures, at most `ACROSS` a row."""
    return [range(start, min(start + ACROSS, count)) for start in range(0, count, ACROSS)]


def labelled(case: Case, place: int) -> str:
    """The image's own class."""
    return case.class_name(case.labels[place]) if case.labels else f"image {place}"


def explained(case: Case, seen: Seen, layer: str | None, target: int | None) -> list[str]:
    """What is explained in each image: a class with its probability, or a unit of a layer."""
    if layer is not None:
        value = seen.value(layer)
        places = value.flatten(1).argmax(1).tolist()
        return [f"channel {_channel(value, place)}" for place in places]
    chosen = targets(seen.logits, target).tolist()
    shares = seen.logits.softmax(1)
    return [f"{case.class_name(c)} ({100 * shares[i, c].item():.0f} %)" for i, c in enumerate(chosen)]


def _channel(value: Tensor, place: int) -> int:
    """The channel of a place in a flattened example of `value`."""
    return place // max(1, value[0, 0].numel()) if value.dim() > 1 else place


def facts(case: Case, seen: Seen, what: list[str]) -> list[dict[str, Any]]:
    """For ``--json``: an entry an image."""
    predicted = (
        seen.output.argmax(1).tolist() if isinstance(seen.output, Tensor) and seen.output.dim() == 2 else []
    )
    found = []
    for place, said in enumerate(what):
        entry: dict[str, Any] = {"explained": said}
        if case.labels:
            entry["label"] = case.class_name(case.labels[place])
        if predicted:
            entry["predicted"] = case.class_name(predicted[place])
        found.append(entry)
    return found


def overlaid(
    case: Case, words: str, seen: Seen, maps: Tensor, *, layer: str, target: int | None, note: str
) -> Finding:
    """Images, and below each the same with its map (batch, height, width) over it."""
    pictures, heat = case.pictures(), unit_range(maps.detach().cpu().numpy())
    what = explained(case, seen, None, target)
    rows: list[list[Picture | None]] = []
    for places in in_rows(len(pictures)):
        rows.append([Picture(pictures[i], labelled(case, i)) for i in places])
        rows.append([Picture(pictures[i], f"→ {what[i]}", over=heat[i]) for i in places])
    height, width = heat.shape[1:]
    size = f"the map has {height}x{width} places, each picture its own scale"
    drawn = sheet(rows, title=f"{case.title}: {words} at {layer}", note=f"{note} {size.capitalize()}.")
    return Finding({"": drawn}, {"images": facts(case, seen, what), "size": [height, width]}, layer)
