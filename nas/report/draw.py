"""figure(), save(): a network and its cells in one picture. Matplotlib is used without pyplot."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import TYPE_CHECKING

from nas.registry import unknown
from nas.report.column import column
from nas.report.items import Outline
from nas.report.kinds import KINDS, look
from nas.report.panel import panel
from nas.report.scene import GREY, Box, Label, Point, Scene, measured, painted, rendered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png")
ASPECT = 1.5  # width to height, about which the cells are arranged
MARGIN = 0.15
SPACE = 0.4  # inches between the network and its cells
BELOW = 0.22  # between cells
SWATCH = 0.13
LEGEND = 7.5  # points


def scene(outline: Outline) -> Scene:
    """The network on the left, its cells beside it, a legend below."""
    whole = Scene()
    whole.place(column(outline), at=(MARGIN, MARGIN))
    cells = [panel(cell) for cell in outline.cells]
    left = whole.width + SPACE
    arranged = [_arranged(cells, whole.height * times) for times in (0.7, 1.0, 1.3, 1.7, 2.2, 3.0)]

    def shape(places: list[Point]) -> float:
        right = max(left + x + cell.width for (x, _), cell in zip(places, cells, strict=True))
        below = max(whole.height, *(y + cell.height for (_, y), cell in zip(places, cells, strict=True)))
        return abs(log(right / below / ASPECT))

    best = sorted(arranged, key=shape)[0] if cells else []
    for (x, y), cell in zip(best, cells, strict=True):
        whole.place(cell, at=(left + x, MARGIN + y))
    whole.width += MARGIN
    _legend(whole)
    whole.height += MARGIN
    return whole


def _arranged(cells: Sequence[Scene], height: float) -> list[Point]:
    """Places for the cells in columns of at most that height."""
    places: list[Point] = []
    x = y = wide = 0.0
    for cell in cells:
        if y > 0 and y + cell.height > height:
            x, y, wide = x + wide + SPACE, 0.0, 0.0
        places.append((x, y))
        y, wide = y + cell.height + BELOW, max(wide, cell.width)
    return places


def _legend(whole: Scene) -> None:
    """A swatch and a word for each kind that is shown, in as many lines as the width needs."""
    kinds = [look(key) for key in [*KINDS, *sorted(whole.kinds - set(KINDS))] if key in whole.kinds]
    x, y = MARGIN, whole.height + 0.22
    for kind in kinds:
        wide = SWATCH + 0.06 + measured(kind.name, LEGEND)[0]
        if x > MARGIN and x + wide > whole.width - MARGIN:
            x, y = MARGIN, y + 0.2
        whole.boxes.append(Box(x + SWATCH / 2, y, SWATCH, SWATCH, kind.fill, kind.line, 0.03))
        whole.labels.append(Label(kind.name, x + SWATCH + 0.06, y, LEGEND, "left", colour=GREY))
        x += wide + 0.22
    whole.height = y + 0.08 if kinds else whole.height


def figure(outline: Outline) -> Figure:
    """The picture of a network: stages and cells on the left, each different cell beside it."""
    return painted(scene(outline))


def save(outline: Outline, path: Path) -> Path:
    """Write the picture as SVG or PNG, by the suffix of `path`. Equal outlines give equal SVG files.

    Raises ValueError for another suffix.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(
            f"a picture's file ends in .svg or .png, not {path.name!r}: " + unknown("format", kind, FORMATS)
        )
    drawn = rendered(figure(outline), kind=kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drawn)
    return path
