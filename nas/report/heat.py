"""Heat: a table of probabilities as a small image, cheap enough for every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIMIT = 60  # rows that get a label of their own


class Heat:
    """One figure, drawn once and recoloured for each new table.

    The scale is fixed from 0 to 1, with a square root so that small differences show: images of different
    epochs can be compared.
    """

    def __init__(self, title: str, *, rows: Sequence[str], columns: Sequence[str]) -> None:
        from matplotlib.colors import PowerNorm
        from matplotlib.figure import Figure

        left, below = 0.3 + 0.075 * max(map(len, rows)), 0.3 + 0.055 * max(map(len, columns))
        wide, high = 0.42 * len(columns), 0.2 * min(len(rows), LIMIT)
        width, height = left + wide + 0.9, below + high + 0.4
        self.title = title
        self.figure = Figure(figsize=(width, height), dpi=80, facecolor="white")
        axes = self.figure.add_axes((left / width, below / height, wide / width, high / height))
        empty = [[0.0] * len(columns) for _ in rows]
        norm = PowerNorm(0.5, vmin=0.0, vmax=1.0)
        self._cells = axes.imshow(empty, aspect="auto", cmap="viridis", norm=norm, interpolation="nearest")
        step = -(-len(rows) // LIMIT)
        axes.set_yticks(range(0, len(rows), step), rows[::step], fontsize=7)
        axes.set_xticks(
            range(len(columns)), columns, fontsize=7, rotation=40, ha="right", rotation_mode="anchor"
        )
        beside = self.figure.add_axes(
            ((left + wide + 0.15) / width, below / height, 0.12 / width, high / height)
        )
        self.figure.colorbar(self._cells, cax=beside, ticks=[0, 0.1, 0.25, 0.5, 1]).ax.tick_params(
            labelsize=7
        )
        self._title = self.figure.text(left / width, 1 - 0.12 / height, title, fontsize=9, va="top")

    def image(self, table: Sequence[Sequence[float]], *, note: str = "") -> Any:
        """The table as an array of height x width x 3 bytes."""
        self._cells.set_data(table)
        self._title.set_text(f"{self.title}, {note}" if note else self.title)
        return pixels(self.figure)


def pixels(picture: Figure, *, dpi: int | None = None) -> Any:
    """A figure as an array of height x width x 3 bytes."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if dpi is not None:
        picture.set_dpi(dpi)
    canvas: Any = FigureCanvasAgg(picture)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
