"""fronts(): the fronts that strategies found on a table, and the table's own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from nas.report.front import scaled, worded
from nas.report.look import look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nas.bench import Bench, Measured

Points = Sequence[tuple[float, ...]]
STEPS = 200  # places on an axis


def fronts(on: Bench, found: Sequence[Measured]) -> Figure:
    """A panel a goal beside the first one: what half of a strategy's searches reach of the first goal, at
    each value of the other one or a better one; all points of their fronts; the best of the table.
    """
    from matplotlib.figure import Figure

    whole = on.best_front()
    others = range(1, len(on.goals))
    drawn = Figure(figsize=(max(6.5, 5.2 * len(others)), 4.2), layout="constrained", facecolor="white")
    for place in others:
        axes = drawn.add_subplot(1, len(others), place)
        smallest = on.goals[place].smallest
        steps = _steps([point[place] for each in found for curve in each.curves for point in curve.front])
        for number, each in enumerate(found):
            colour, style = look(number)
            lines = [
                reached(curve.front, steps, place, smallest=smallest, best_smallest=on.goals[0].smallest)
                for curve in each.curves
            ]
            middle = [_median(column) for column in zip(*lines, strict=True)]
            axes.plot(steps, middle, style, color=colour, linewidth=1.5, label=f"{each.name}, median")
            points = [point for curve in each.curves for point in curve.front]
            across, up = [point[place] for point in points], [point[0] for point in points]
            axes.plot(across, up, ".", color=colour, alpha=0.25, markersize=3)
        best = reached(whole, steps, place, smallest=smallest, best_smallest=on.goals[0].smallest)
        axes.plot(steps, best, color="black", linewidth=0.9, linestyle=(0, (3, 2)), label="best of the table")
        scaled(axes, steps)
        _spread(axes, [point[0] for point in whole], smallest=on.goals[0].smallest)
        axes.set_xlabel(worded(on.goals[place].metric))
        axes.set_ylabel(worded(on.goals[0].metric))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return drawn


def _spread(axes: Axes, best: Sequence[float], *, smallest: bool) -> None:
    """Leave out what is far below most of the table's best, as networks at chance level are."""
    order = sorted(best, reverse=smallest)
    top, low = order[-1], order[len(order) // 4]
    room = 0.1 * abs(top - low)
    worst = low - (top - low) if low != top else order[0]
    if room and (worst > order[0] if not smallest else worst < order[0]):
        ends = (worst, top + room if not smallest else top - room)
        axes.set_ylim(*sorted(ends))
        axes.set_title("worse networks are left out", fontsize=8, color="#555555")


def reached(
    front: Points, steps: Sequence[float], place: int, *, smallest: bool, best_smallest: bool
) -> list[float]:
    """The best of the first goal among the points that are at each step or better in goal `place`.

    NaN where no point is that good.
    """
    sign = 1 if smallest else -1
    order = sorted(front, key=lambda point: sign * point[place])
    keys = [sign * point[place] for point in order]
    best: list[float] = []
    for point in order:
        choose = min if best_smallest else max
        best.append(choose(best[-1], point[0]) if best else point[0])
    return [best[n - 1] if (n := bisect_right(keys, sign * step)) else float("nan") for step in steps]


def _median(values: Sequence[float]) -> float:
    """NaN unless at least half of the searches are there."""
    there = [value for value in values if value == value]
    return median(there) if 2 * len(there) >= len(values) else float("nan")


def _steps(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [low + (high - low) * n / (STEPS - 1) for n in range(STEPS)]
