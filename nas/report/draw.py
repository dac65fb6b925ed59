"""figure(), save(): an architecture's cells as a picture. Matplotlib is imported at use, without pyplot."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.registry import unknown
from nas.report.cell import Cell, cells, text
from nas.report.layout import Edge, Layout, Point, Size, layout
from nas.search_space.architecture import Architecture
from nas.search_space.space import SearchSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Cell", "cells", "figure", "save", "text"]

FORMATS = ("svg", "png")
ROLES = {"input": "#d6e8d5", "join": "#d5e3f0", "op": "#eeeeee", "output": "#f3e3c3"}
PALETTE = (
    "#4c78a8", "#c8552b", "#3f8f4f", "#8c6d31", "#8856a7",
    "#d6336c", "#16808c", "#6b6b6b", "#a05195", "#2f4b7c",
)  # fmt: skip
FONT = 9.0  # points
LETTER = 0.079  # inches: the width of a letter at that size
LINE = 0.2  # inches: the height of a line
MARGIN = 0.12
TITLE = 0.34
LONG = 14  # a cell with more layers than this is drawn downwards
WIDE = 13.0  # inches: cells stand side by side up to this width


def figure(space: SearchSpace, architecture: Architecture) -> Figure:
    """All cells of `architecture` in one picture; data flow to the right, in a long chain downwards."""
    from matplotlib.figure import Figure

    panels = [_Panel(cell) for cell in cells(space, architecture)]
    colours = _colours(space)
    beside = sum(panel.width for panel in panels) <= WIDE
    width = sum(p.width for p in panels) if beside else max(p.width for p in panels)
    height = max(p.height for p in panels) if beside else sum(p.height for p in panels)
    drawn = Figure(figsize=(width, height), facecolor="white")
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    x = y = 0.0
    for panel in panels:
        panel.paint(axes, at=(x, y), colours=colours)
        x, y = (x + panel.width, 0.0) if beside else (0.0, y + panel.height)
    return drawn


def save(space: SearchSpace, architecture: Architecture, path: Path) -> Path:
    """Write the picture as SVG or PNG, by the suffix of `path`. Equal architectures give equal SVG files.

    Raises ValueError for another suffix.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(
            f"a picture's file ends in .svg or .png, not {path.name!r}: " + unknown("format", kind, FORMATS)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rendered(figure(space, architecture), kind=kind))
    return path


def rendered(picture: Figure, *, kind: str, dpi: int = 144) -> bytes:
    """The bytes of a figure; equal for equal figures: no date, element ids by content."""
    import matplotlib

    stream = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "nas"}):
        picture.savefig(stream, format=kind, dpi=dpi, metadata=metadata)
    return stream.getvalue()


class _Panel:
    """One cell with its layout. `width` and `height` in inches, margins and title included."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        graph = cell.graph
        self.texts = {edge: str(graph.edges[edge]["label"]) for edge in graph.edges(keys=True)}
        boxes = {
            name: _box(str(fields["label"]), str(fields["detail"])) for name, fields in graph.nodes(data=True)
        }
        labels = {edge: _box(label, "", pad=0.1) for edge, label in self.texts.items() if label}
        placed = layout(graph, boxes=boxes, labels=labels)
        self.down = len({along for along, _ in placed.states.values()}) > LONG
        if self.down:
            turned = {name: (b, a) for name, (a, b) in boxes.items()}
            placed = layout(graph, boxes=turned, labels={edge: (b, a) for edge, (a, b) in labels.items()})
        self.boxes: Mapping[str, Size] = boxes
        self.label_boxes: Mapping[Edge, Size] = labels
        self.placed: Layout = placed
        along, across = placed.size
        self.title = f"{cell.name}  ×{cell.count}" if cell.count > 1 else cell.name
        self.width = max(across if self.down else along, len(self.title) * LETTER * 1.15) + 2 * MARGIN
        self.height = (along if self.down else across) + 2 * MARGIN + TITLE

    def paint(self, axes: Axes, *, at: Point, colours: Mapping[str, str]) -> None:
        """Draw the cell with its upper left corner at `at`."""
        self.at = at
        axes.text(
            at[0] + MARGIN, at[1] + MARGIN + TITLE / 2, self.title, fontsize=11, weight="bold", va="center"
        )
        graph = self.cell.graph
        for edge, points in self.placed.routes.items():
            self._arrow(axes, points, colours.get(graph.edges[edge]["op"], "#9a9a9a"))
        for edge, point in self.placed.labels.items():
            x, y = self._xy(point)
            colour = colours.get(graph.edges[edge]["op"], "#555555")
            _rounded(axes, (x, y), self.label_boxes[edge], fill="white", line=colour, width=0.8)
            axes.text(x, y, self.texts[edge], color=colour, fontsize=FONT, ha="center", va="center_baseline")
        for name, fields in graph.nodes(data=True):
            x, y = self._xy(self.placed.states[name])
            chosen = colours.get(fields["op"], "#777777") if fields["role"] in ("op", "output") else "#777777"
            _rounded(axes, (x, y), self.boxes[name], fill=ROLES[fields["role"]], line=chosen, width=1.0)
            shift = LINE * 0.42 if fields["detail"] else 0.0
            label = re.sub(r"^c\[(.*)\]$", r"$c_{\1}$", str(fields["label"]))
            axes.text(x, y - shift, label, fontsize=FONT + 0.5, ha="center", va="center")
            axes.text(
                x, y + shift, fields["detail"], fontsize=FONT - 2.5, color="#555555", ha="center", va="center"
            )

    def _xy(self, point: Point) -> Point:
        along, across = point
        x, y = (across, along) if self.down else (along, across)
        return self.at[0] + MARGIN + x, self.at[1] + MARGIN + TITLE + y

    def _arrow(self, axes: Axes, points: Sequence[Point], colour: str) -> None:
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path as Curve

        corners, codes = [self._xy(points[0])], [Curve.MOVETO]
        for place, (a, b) in enumerate(itertools.pairwise(points)):
            if place % 2:  # through a layer: straight
                corners.append(self._xy(b))
                codes.append(Curve.LINETO)
                continue
            half = (a[0] + b[0]) / 2
            corners += [self._xy((half, a[1])), self._xy((half, b[1])), self._xy(b)]
            codes += [Curve.CURVE4] * 3
        axes.add_patch(
            FancyArrowPatch(
                path=Curve(corners, codes),
                arrowstyle="-|>,head_length=3.5,head_width=1.8",
                linewidth=1.1,
                color=colour,
                fill=True,
                mutation_scale=1,
                capstyle="butt",
            )
        )


def _box(label: str, detail: str, *, pad: float = 0.18) -> Size:
    width = max(len(label) * LETTER, len(detail) * LETTER * 0.75) + pad
    return max(width, 0.3), LINE * (1.9 if detail else 1.0) + (0.1 if pad > 0.1 else 0.02)


def _rounded(axes: Axes, centre: Point, size: Size, *, fill: str, line: str, width: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (centre[0] - size[0] / 2, centre[1] - size[1] / 2)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            *size,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor=fill,
            edgecolor=line,
            linewidth=width,
            zorder=3,
        )
    )


def _colours(space: SearchSpace) -> dict[str, str]:
    """A colour for each operation that can be chosen, the same in every picture of the space."""
    options = (option for decision in space.decisions for option in decision.options)
    named = dict.fromkeys(option for option in options if isinstance(option, str) and option != "none")
    return {option: PALETTE[i % len(PALETTE)] for i, option in enumerate(named)}
