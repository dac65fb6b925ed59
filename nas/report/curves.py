"""curves(): how a run went, as pictures: accuracy, loss and entropy by epoch, trials and the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nas.report.comparison import Event
from nas.report.ledger import Record, best_so_far

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = ("accuracy", "loss", "entropy")
COLOURS = {"train": "#4c78a8", "valid": "#c8552b"}


def curves(run: Record) -> dict[str, Figure]:
    """A figure by name (``epochs``, ``trials``) for what the run has; empty if it has nothing to plot yet."""
    found = {}
    series = _series(run.epochs)
    if any(series.values()):
        found["epochs"] = _epochs({panel: lines for panel, lines in series.items() if lines})
    seen = best_so_far(run.trials, run.goals[0])
    if seen.curve:
        found["trials"] = _trials(seen.curve, seen.goal.metric)
    return found


def _series(epochs: Sequence[Event]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Panel -> metric -> its finite values by epoch."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {panel: {} for panel in PANELS}
    for event in epochs:
        for name, value in (event.get("metrics") or {}).items():
            panel = next((panel for panel in PANELS if panel in name), None)
            if panel and isinstance(value, int | float) and math.isfinite(value):
                panels[panel].setdefault(name, []).append((int(event["step"]), float(value)))
    return panels


def _epochs(series: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> Figure:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4.0 * len(series), 2.8), layout="constrained")
    for place, (panel, lines) in enumerate(series.items(), start=1):
        axes = drawn.add_subplot(1, len(series), place)
        for name, points in lines.items():
            colour = COLOURS.get(name.partition("_")[0])
            marker = "o" if len(points) < 3 else None
            axes.plot(*zip(*points, strict=True), label=name, color=colour, marker=marker, linewidth=1.5)
        _finish(axes, title=panel, x="epoch")
    return drawn


def _trials(points: Sequence[tuple[int, float, float]], name: str) -> Figure:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.5, 2.8), layout="constrained")
    axes = drawn.add_subplot()
    numbers, values, best = zip(*points, strict=True)
    axes.plot(numbers, values, "o", color=COLOURS["train"], alpha=0.5, markersize=3, label="trial")
    axes.step(numbers, best, where="post", color=COLOURS["valid"], label="best so far")
    _finish(axes, title=name.replace("_", " "), x="trial")
    return drawn


def _finish(axes: Axes, *, title: str, x: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False)
