"""sheet(): pictures in rows, with what lies over them. Matplotlib is imported at use, without pyplot."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE = 1.25  # inches of one picture
LEAST = 5.0  # inches: narrower sheets cut their titles
LETTERS = 19  # of a line of 8 points over one picture
HEAT = "inferno"
LAID = "turbo"  # over a picture
SIGNED = "RdBu_r"


class Box(NamedTuple):
    """A rectangle in pixels of the picture: the first row and column, and those behind the last."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left


class Picture(NamedTuple):
    """One picture of a sheet.

    image: (height, width, 1 or 3) in 0..1, or (height, width) for a map drawn by itself. over: a map
    (rows, columns) of 0..1 laid over the image, stretched to its size. signed: a map of -1..1, 0 white.
    """

    image: Any
    caption: str = ""
    over: Any = None
    box: Box | None = None
    signed: bool = False


def sheet(
    rows: Sequence[Sequence[Picture | None]],
    *,
    title: str,
    note: str = "",
    labels: Sequence[str] = (),
    side: float = SIDE,
) -> Figure:
    """Rows of pictures with a title, words at the left of each row, and a note below."""
    from matplotlib.figure import Figure

    count = max(len(row) for row in rows)
    left = 0.95 if any(labels) else 0.15
    width = max(LEAST, left + count * (side + 0.1) + 0.1)
    letters = int(width * 15)
    head, foot = textwrap.wrap(title, letters), textwrap.wrap(note, int(width * 17))
    top, bottom = 0.12 + 0.19 * len(head), 0.1 + 0.15 * len(foot)
    gaps = [_gap(row) for row in rows]
    height = top + bottom + sum(side + gap for gap in gaps)
    drawn = Figure(figsize=(width, height), facecolor="white")
    drawn.text(0.1 / width, 1 - 0.08 / height, "\n".join(head), fontsize=10, va="top", weight="bold")
    drawn.text(0.1 / width, 0.06 / height, "\n".join(foot), fontsize=8, va="bottom", color="#444444")
    y = height - top
    for place, (row, gap) in enumerate(zip(rows, gaps, strict=True)):
        y -= side + gap
        if place < len(labels):
            drawn.text(0.1 / width, (y + side / 2) / height, labels[place], fontsize=8, va="center")
        for column, picture in enumerate(row):
            if picture is not None:
                x = left + column * (side + 0.1)
                axes = drawn.add_axes((x / width, y / height, side / width, side / height))
                paint(axes, picture)
    return drawn


def _gap(row: Sequence[Picture | None]) -> float:
    """Inches above a row: for the most lines of a caption."""
    lines = [_lines(picture.caption) for picture in row if picture]
    return 0.07 + 0.135 * max((len(each) for each in lines), default=0)


def _lines(caption: str) -> list[str]:
    return [line for part in caption.splitlines() for line in textwrap.wrap(part, LETTERS)]


def paint(axes: Axes, picture: Picture) -> None:
    """One picture, without ticks."""
    from matplotlib.patches import Rectangle

    axes.set_axis_off()
    image = picture.image
    height, width = image.shape[:2]
    if picture.signed:
        axes.imshow(image, cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest")
    elif picture.over is not None:  # in light grey, so that only the map has colours
        axes.imshow(0.35 + 0.65 * image.mean(2), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        axes.imshow(
            picture.over, cmap=LAID, vmin=0, vmax=1, alpha=0.55, extent=extent, interpolation="bilinear"
        )
    elif image.ndim == 2:
        axes.imshow(image, cmap=HEAT, vmin=0, vmax=1, interpolation="nearest")
    elif image.shape[2] == 1:
        axes.imshow(image[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(image, interpolation="nearest")
    if picture.box is not None:
        top, left, _, _ = picture.box
        rows, columns = picture.box.sides
        corner = (left - 0.5, top - 0.5)
        axes.add_patch(Rectangle(corner, columns, rows, fill=False, edgecolor="#ff2d55", linewidth=1.5))
    axes.set_title("\n".join(_lines(picture.caption)), fontsize=8, pad=2)


def unit_range(maps: Any) -> Any:
    """Each of (n, height, width) divided by its largest value; negative ones become 0."""
    import numpy as np

    clipped = np.maximum(maps, 0)
    return clipped / np.maximum(clipped.max(axis=(1, 2), keepdims=True), 1e-12)


def signed_range(values: Any) -> Any:
    """Each of (n, ...) divided by its largest absolute value: -1..1."""
    import numpy as np

    most = np.abs(values).max(axis=tuple(range(1, values.ndim)), keepdims=True)
    return values / np.maximum(most, 1e-12)
