"""The front of a search as a picture and as a part of its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from nas.front import FRONT, LedgerFront
from nas.report.comparison import quantity
from nas.report.ledger import Record
from nas.report.markdown import picture as saved
from nas.report.markdown import table_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ON, BEHIND = "#c8552b", "#4c78a8"
WIDE = 20.0  # an axis of positive values whose ends are so many times apart is logarithmic


def section(run: Record) -> str:
    """The part of a search's page about its front; empty with one goal, or before the first result."""
    found = LedgerFront(run.goals)
    found.read(run.events)
    if len(found.goals) < 2 or not found.members:
        return ""
    heads = ("network", *(str(goal) for goal in found.goals))
    lines = [(f"`{event['literal']}`", *map(figure, found.values(scores))) for scores, event in found.members]
    reference = ", ".join(f"{name} {figure(value)}" for name, value in found.reference.items())
    return "\n\n".join(
        [
            "## Front",
            f"{len(found.members)} of {len(found.points)} trials are dominated by no other one. Hypervolume "
            f"{found.hypervolume:.4g}, in the product of the goals' units, above the worst of each goal that "
            f"was seen: {reference}. All figures are those of the candidates, at the scale of the search; "
            f"`{FRONT}` has the networks.",
            f"![the front]({saved(run, 'front', picture(found))})",
            table_of(heads, lines),
        ]
    )


def picture(front: LedgerFront) -> Figure:
    """A panel a goal beside the first one: all trials, and the front among them."""
    from matplotlib.figure import Figure

    others = range(1, len(front.goals))
    drawn = Figure(figsize=(max(5.0, 4.2 * len(others)), 3.6), layout="constrained", facecolor="white")
    seen = [front.values(scores) for scores in front.points]
    members = [front.values(scores) for scores, _ in front.members]
    for place in others:
        axes = drawn.add_subplot(1, len(others), place)
        axes.plot(
            [point[place] for point in seen], [point[0] for point in seen],
            "o", color=BEHIND, alpha=0.4, markersize=3, label="trial",
        )  # fmt: skip
        stairs(axes, [(point[place], point[0]) for point in members], front, place)
        scaled(axes, [point[place] for point in seen])
        axes.set_xlabel(worded(front.goals[place].metric), fontsize=9)
        axes.set_ylabel(worded(front.goals[0].metric), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
    return drawn


def stairs(axes: Axes, points: Sequence[tuple[float, float]], front: LedgerFront, place: int) -> None:
    """The front; with two goals, the edge of what it dominates."""
    order = sorted(points)
    if len(front.goals) == 2:
        where: Literal["post", "pre"] = "post" if front.goals[place].smallest else "pre"
        axes.step(*zip(*order, strict=True), where=where, color=ON, linewidth=1.2, alpha=0.7)
    axes.plot(*zip(*order, strict=True), "o", color=ON, markersize=5, label="front")


def scaled(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis for a cost of several orders."""
    if min(values) > 0 and max(values) > WIDE * min(values):
        axes.set_xscale("log")


def worded(metric: str) -> str:
    """A metric's name for an axis."""
    return metric.replace("_", " ")


def figure(value: float) -> str:
    """Three digits with a unit for a large number, four digits for others."""
    return quantity(value) if abs(value) >= 1e4 else f"{value:.4g}"
