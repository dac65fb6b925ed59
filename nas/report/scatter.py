"""scatter(): test accuracy against a cost, a point a network, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nas.report.networks import COSTS, Compared, ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Place = tuple[int, int, str, str]
DOT = 6  # half the side of a point, in pixels
FRONT, BEHIND = "#c8552b", "#4c78a8"
PLACES: list[Place] = [  # of a name around its point, in points; earlier ones are preferred
    (7, 4, "left", "bottom"),
    (7, -4, "left", "top"),
    (-7, 4, "right", "bottom"),
    (-7, -4, "right", "top"),
    (0, 9, "center", "bottom"),
    (0, -9, "center", "top"),
    (14, 14, "left", "bottom"),
    (14, -14, "left", "top"),
    (-14, 14, "right", "bottom"),
    (-14, -14, "right", "top"),
    (0, 24, "center", "bottom"),
    (0, -24, "center", "top"),
    (14, 28, "left", "bottom"),
    (14, -28, "left", "top"),
    (-14, 28, "right", "bottom"),
    (-14, -28, "right", "top"),
]


def scatters(rows: Sequence[Compared]) -> dict[str, Figure]:
    """A figure a cost, by its key; empty while no network has an accuracy."""
    shown = [row for row in rows if row.mean is not None]
    return {key: scatter(shown, key) for key in COSTS} if shown else {}


def scatter(rows: Sequence[Compared], key: str) -> Figure:
    """Test accuracy in percent against the cost `key`, which has a logarithmic axis.

    Mean and standard deviation of each network, and its single trainings as small dots.
    """
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(7.0, 4.2), layout="constrained", facecolor="white")
    axes = drawn.add_subplot()
    on = sorted((row for row in rows if key in row.fronts), key=lambda row: getattr(row, key))
    if len(on) > 1:
        axes.step(
            [getattr(row, key) for row in on],
            [100 * (row.mean or 0.0) for row in on],
            where="post",
            color=FRONT,
            linewidth=1.0,
            alpha=0.6,
        )
    for chosen, colour, label in ((False, BEHIND, "behind it"), (True, FRONT, "Pareto front")):
        _points(axes, [row for row in rows if (row in on) == chosen], key, colour=colour, label=label)
    _finish(axes, key, rows)
    _label(drawn, axes, ranked(rows), key)  # of neighbours, the upper one gets the upper place
    return drawn


def _points(axes: Axes, rows: Sequence[Compared], key: str, *, colour: str, label: str) -> None:
    if not rows:
        return
    costs = [float(getattr(row, key)) for row in rows]
    single = [(cost, 100 * score) for row, cost in zip(rows, costs, strict=True) for score in row.scores]
    if len(single) > len(rows):
        axes.plot(*zip(*single, strict=True), ".", color=colour, markersize=4, alpha=0.5)
    axes.errorbar(
        costs,
        [100 * (row.mean or 0.0) for row in rows],
        yerr=[100 * (row.std or 0.0) for row in rows],
        fmt="o",
        color=colour,
        markersize=6,
        capsize=3,
        elinewidth=1.0,
        label=label,
    )


def _finish(axes: Axes, key: str, rows: Sequence[Compared]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    costs = [float(getattr(row, key)) for row in rows]
    least, most = min(costs), max(costs)
    room = max(1.25, (most / least) ** 0.12)  # for labels, and so that a single point has an axis
    axes.set_xlim(least / room, most * room)
    few = most / least * room**2 < 30
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if few else (1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.15)
    axes.set_xlabel(COSTS[key], fontsize=9)
    axes.set_ylabel("test accuracy, %", fontsize=9)
    counts = {len(row.scores) for row in rows}
    if max(counts) > 1:
        told = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
        axes.set_title(f"mean and standard deviation of {told} trainings", fontsize=9, color="#555555")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="best")


def _short(value: float) -> str:
    """``75k``, ``1.5M``, ``0.3``: at most three digits."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _label(drawn: Figure, axes: Axes, rows: Sequence[Compared], key: str) -> None:
    """The names, each at the place around its point where it covers the least of points, names and legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas: Any = FigureCanvasAgg(drawn)
    canvas.draw()  # from here on the layout stays as it is
    drawn.set_layout_engine("none")
    renderer = canvas.get_renderer()
    points = [(float(getattr(row, key)), 100 * (row.mean or 0.0)) for row in rows]
    taken = []
    for (cost, mean), row in zip(points, rows, strict=True):
        half = 100 * (row.std or 0.0)
        (x, y), (_, low), (_, high) = axes.transData.transform(
            [(cost, mean), (cost, mean - half), (cost, mean + half)]
        )
        taken += [
            Bbox.from_extents(x - DOT, y - DOT, x + DOT, y + DOT),
            Bbox.from_extents(x - 1, low, x + 1, high),
        ]
    taken += [legend.get_window_extent(renderer) for legend in [axes.get_legend()] if legend]
    for row, point in zip(rows, points, strict=True):
        line = {"arrowstyle": "-", "linewidth": 0.6, "color": "#888888", "shrinkA": 0, "shrinkB": 0}
        note = axes.annotate(
            row.name, point, xytext=(0, 0), textcoords="offset points", fontsize=8, arrowprops=line
        )
        boxes = [_box(note, place, renderer) for place in PLACES]
        covered = [_covered(box, taken, frame=axes.get_window_extent()) for box in boxes]
        best = covered.index(min(covered))
        taken.append(_box(note, PLACES[best], renderer))


def _box(note: Any, place: Place, renderer: Any) -> Bbox:
    """Put the name there; what it then covers, in pixels."""
    from matplotlib.text import Text

    across, up, side, edge = place
    note.set(position=(across, up), ha=side, va=edge)
    note.update_positions(renderer)
    box: Bbox = Text.get_window_extent(note, renderer)  # without the line to the point
    return box


def _covered(box: Bbox, taken: Sequence[Bbox], *, frame: Bbox) -> float:
    """Square pixels of what else is there; those outside the frame count ten times."""
    return sum(_shared(box, other) for other in taken) + 10 * (_shared(box, box) - _shared(box, frame))


def _shared(a: Bbox, b: Bbox) -> float:
    wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(wide * high) if wide > 0 and high > 0 else 0.0
