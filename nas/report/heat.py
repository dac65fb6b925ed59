"""Heat: a table of probabilities as a small image, cheap enough for every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 60  # rows that get a label of their own
DPI = 80


class Heat:
    """A heat-map whose frame is drawn once; each new table only paints the cells.

    The scale is fixed from 0 to 1, with a square root so that small differences show: images of different
    epochs can be compared.
    """

    def __init__(self, title: str, *, rows: Sequence[str], columns: Sequence[str]) -> None:
        from matplotlib.colors import PowerNorm
        from matplotlib.figure import Figure

        left, below = 0.3 + 0.075 * max(map(len, rows)), 0.3 + 0.055 * max(map(len, columns))
        wide, high = 0.42 * len(columns), 0.2 * min(len(rows), LIMIT)
        width, height = left + wide + 0.9, below + high + 0.4
        drawn = Figure(figsize=(width, height), facecolor="white")
        axes = drawn.add_axes((left / width, below / height, wide / width, high / height))
        self._colours = axes.imshow(
            [[0.0] * len(columns) for _ in rows],
            aspect="auto",
            cmap="viridis",
            norm=PowerNorm(0.5, vmin=0.0, vmax=1.0),
        )
        step = -(-len(rows) // LIMIT)
        axes.set_yticks(range(0, len(rows), step), rows[::step], fontsize=7)
        axes.set_xticks(
            range(len(columns)), columns, fontsize=7, rotation=40, ha="right", rotation_mode="anchor"
        )
        beside = drawn.add_axes(((left + wide + 0.15) / width, below / height, 0.12 / width, high / height))
        drawn.colorbar(self._colours, cax=beside, ticks=[0, 0.1, 0.25, 0.5, 1]).ax.tick_params(labelsize=7)
        drawn.text(left / width, 1 - 0.12 / height, title, fontsize=9, va="top")
        self._frame = pixels(drawn, dpi=DPI)
        box = axes.get_window_extent()
        top = self._frame.shape[0] - box.y1  # pixels count downwards
        self._rows = _span(top, box.height, len(rows))
        self._columns = _span(box.x0, box.width, len(columns))

    def image(self, table: Sequence[Sequence[float]]) -> Any:
        """The table as an array of height x width x 3 bytes."""
        import numpy as np

        (top, row_of), (left, column_of) = self._rows, self._columns
        painted = self._colours.to_rgba(np.asarray(table, dtype=float), bytes=True)[:, :, :3]
        image = self._frame.copy()
        image[top : top + len(row_of), left : left + len(column_of)] = painted[row_of][:, column_of]
        return image


def _span(start: float, length: float, count: int) -> tuple[int, Any]:
    """The first pixel inside a frame, and for each pixel from there which of `count` cells it shows."""
    import numpy as np

    first, last = round(start) + 1, round(start + length) - 1
    places = (np.arange(first, last) + 0.5 - start) / length * count
    return first, np.clip(places.astype(int), 0, count - 1)


def pixels(picture: Figure, *, dpi: int) -> Any:
    """A figure as an array of height x width x 3 bytes."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(picture)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
