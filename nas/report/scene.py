"""Scene: boxes, labels and edges at places in inches, before anything is painted. Matplotlib at use.

Every picture is first a scene, so that a law can check it: boxes keep apart, text stays inside its box, no
edge runs through a box that it does not join.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
Extent = tuple[float, float, float, float]  # left, top, right, bottom; y grows downwards
FONT = "DejaVu Sans"  # comes with matplotlib: the same widths everywhere
INK = "#1f1f1f"
GREY = "#5a5a5a"
DARK = "#3a3a3a"  # small text on a fill


@dataclass(frozen=True)
class Box:
    """A rounded rectangle around (x, y). `ground`: a background, on which other things stand."""

    x: float
    y: float
    width: float
    height: float
    fill: str = "#ffffff"
    line: str = "#4d4d4d"
    round: float = 0.06
    thick: float = 0.9
    ground: bool = False

    @property
    def extent(self) -> Extent:
        """Its sides."""
        return (
            self.x - self.width / 2,
            self.y - self.height / 2,
            self.x + self.width / 2,
            self.y + self.height / 2,
        )


@dataclass(frozen=True)
class Label:
    """One line of text whose anchor is (x, y): its middle height, and its left, centre or right."""

    text: str
    x: float
    y: float
    size: float = 9.0  # points
    align: Literal["left", "center", "right"] = "center"
    bold: bool = False
    colour: str = INK

    @property
    def extent(self) -> Extent:
        """The sides of what is written."""
        width, height = measured(self.text, self.size, bold=self.bold)
        left = self.x - {"left": 0.0, "center": width / 2, "right": width}[self.align]
        return left, self.y - height / 2, left + width, self.y + height / 2


@dataclass(frozen=True)
class Edge:
    """A path from box to box: a start, then straight pieces (a point) and curves (three points, cubic)."""

    start: Point
    pieces: tuple[tuple[Point, ...], ...]
    ends: tuple[Box, ...] = ()
    colour: str = GREY
    thick: float = 1.0
    arrow: bool = True

    def points(self, steps: int = 24) -> list[Point]:
        """Places along the path, close to each other."""
        found = [self.start]
        for piece in self.pieces:
            a, c, d, b = (found[-1], found[-1], *piece * 2) if len(piece) == 1 else (found[-1], *piece)
            for i in range(1, steps + 1):
                t = i / steps
                u = 1 - t
                weights = (u**3, 3 * u * u * t, 3 * u * t * t, t**3)
                found.append(_blend(weights, (a, c, d, b)))
        return found


def _blend(weights: Sequence[float], points: Sequence[Point]) -> Point:
    return (
        sum(w * p[0] for w, p in zip(weights, points, strict=True)),
        sum(w * p[1] for w, p in zip(weights, points, strict=True)),
    )


@dataclass
class Scene:
    """A picture. `kinds`: the keys of `nas.report.kinds.KINDS` that it shows, for a legend."""

    width: float = 0.0
    height: float = 0.0
    boxes: list[Box] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)

    def place(self, other: Scene, *, at: Point) -> None:
        """Put another scene's things here, its upper left corner at `at`."""
        dx, dy = at
        moved = {id(box): replace(box, x=box.x + dx, y=box.y + dy) for box in other.boxes}
        self.boxes += moved.values()
        self.labels += [replace(label, x=label.x + dx, y=label.y + dy) for label in other.labels]
        for edge in other.edges:
            pieces = tuple(tuple((x + dx, y + dy) for x, y in piece) for piece in edge.pieces)
            start = (edge.start[0] + dx, edge.start[1] + dy)
            self.edges.append(
                replace(edge, start=start, pieces=pieces, ends=tuple(moved[id(box)] for box in edge.ends))
            )
        self.kinds |= other.kinds
        self.width = max(self.width, dx + other.width)
        self.height = max(self.height, dy + other.height)


@lru_cache(maxsize=4096)
def measured(text: str, size: float, *, bold: bool = False) -> tuple[float, float]:
    """Width and height in inches of one line of text; between dollars is mathematics."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    properties = FontProperties(family=FONT, size=size, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, properties, ismath="$" in text)
    return width / 72, 1.15 * size / 72


def shortened(text: str, size: float, *, width: float, bold: bool = False) -> str:
    """The text, or as much of it as fits into `width` inches, with an ellipsis."""
    if measured(text, size, bold=bold)[0] <= width:
        return text
    end = len(text)
    while end and measured(text[:end] + "…", size, bold=bold)[0] > width:
        end -= 1
    return text[:end].rstrip(" ,") + "…"


# --- painting ----------------------------------------------------------------------------------------------


def painted(scene: Scene) -> Figure:
    """The scene as a figure, one inch an inch."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(scene.width, scene.height), facecolor="white")
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))
    _boxes(axes, [box for box in scene.boxes if box.ground])
    for edge in scene.edges:
        _edge(axes, edge)
    _boxes(axes, [box for box in scene.boxes if not box.ground])
    for label in scene.labels:
        axes.text(
            label.x,
            label.y,
            label.text,
            fontsize=label.size,
            family=FONT,
            color=label.colour,
            weight="bold" if label.bold else "normal",
            ha=label.align,
            va="center_baseline",
            zorder=4,
        )
    return drawn


def _boxes(axes: Axes, boxes: Iterable[Box]) -> None:
    from matplotlib.patches import FancyBboxPatch

    for box in boxes:
        left, top, _, _ = box.extent
        axes.add_patch(
            FancyBboxPatch(
                (left, top),
                box.width,
                box.height,
                boxstyle=f"round,pad=0,rounding_size={min(box.round, box.width / 2, box.height / 2)}",
                facecolor=box.fill,
                edgecolor=box.line,
                linewidth=0.0 if box.ground else box.thick,
                zorder=1 if box.ground else 3,
            )
        )


def _edge(axes: Axes, edge: Edge) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    corners, codes = [edge.start], [Curve.MOVETO]
    for piece in edge.pieces:
        corners += piece
        codes += [Curve.LINETO] if len(piece) == 1 else [Curve.CURVE4] * 3
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(corners, codes),
            arrowstyle="-|>,head_length=3.6,head_width=1.8" if edge.arrow else "-",
            linewidth=edge.thick,
            color=edge.colour,
            fill=edge.arrow,
            mutation_scale=1,
            capstyle="butt",
            joinstyle="round",
            zorder=2,
        )
    )


def rendered(picture: Figure, *, kind: str, dpi: int = 160) -> bytes:
    """The bytes of a figure; equal for equal figures: no date, element ids by content."""
    import matplotlib

    stream = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "nas"}):
        picture.savefig(stream, format=kind, dpi=dpi, metadata=metadata)
    return stream.getvalue()
