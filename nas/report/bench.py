"""write(): strategies on a table as a table and a plot: best found so far against evaluations."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from nas.report.fronts import fronts
from nas.report.look import look
from nas.report.markdown import table_of
from nas.report.scene import rendered
from nas.run import replace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nas.bench import Bench, Measured


HEADS: Mapping[str, tuple[str, Callable[[float], str]]] = {  # of searches with a supernet, means over seeds
    "kendall": ("Kendall's tau", "{:.3f}".format),
    "spearman": ("Spearman's rho", "{:.3f}".format),
    "search_seconds": ("seconds a search", "{:.0f}".format),
    "step_seconds": ("ms a step", lambda seconds: f"{1000 * seconds:.1f}"),
    "peak_memory": ("peak MiB", lambda count: f"{count / 2**20:.0f}"),
}


def write(folder: Path, on: Bench, found: Sequence[Measured]) -> str:
    """table.md, curves.png, bench.json, and with several goals fronts.png; the table as text."""
    folder.mkdir(parents=True, exist_ok=True)
    text = rows(on, found)
    replace(folder / "table.md", text + "\n")
    replace(folder / "bench.json", json.dumps([each.to_dict() for each in found], indent=1) + "\n")
    if len(on.goals) > 1:
        replace(folder / "fronts.png", rendered(fronts(on, found), kind="png", dpi=130))
    replace(folder / "curves.png", rendered(picture(on, found), kind="png", dpi=130))
    return text


def rows(on: Bench, found: Sequence[Measured]) -> str:
    """A line a strategy: mean, deviation, standard error, quartiles."""
    listed = []
    shown = {name: head for name, head in HEADS.items() if any(name in each.facts for each in found)}
    for each in found:
        values = sorted(each.values)
        n = len(values)
        error = each.std / math.sqrt(n)
        quartiles = [f"{values[n * part // 4]:.2f}" for part in (1, 2, 3)]
        figures = [f"{number:.3f}" for number in (each.mean, each.std, error)]
        volumes = [_with_error(each.hypervolumes)] if each.hypervolumes else []
        facts = [tell(each.facts[name]) if name in each.facts else "" for name, (_, tell) in shown.items()]
        listed.append([each.name, *figures, *quartiles, *volumes, *facts, f"{each.seconds:.1f}"])
    heads = ["strategy", f"mean {on.report.metric}", "std", "std error", "25 %", "median", "75 %", "seconds"]
    if len(on.goals) > 1:
        heads.insert(-1, "hypervolume (std error)")
    heads[-1:-1] = [head for head, _ in shown.values()]
    return table_of(heads, listed)


def _with_error(values: Sequence[float]) -> str:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{fmean(values):.4f} ({error:.4f})"


def picture(on: Bench, found: Sequence[Measured]) -> Figure:
    """The mean of the best so far, with bands of its standard error (dark) and of the deviation (light)."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8.0, 4.6), layout="constrained", facecolor="white")
    axes = drawn.add_subplot()
    for number, each in enumerate(found):
        colour, style = look(number)
        places, columns = _columns(on, each)
        means = [fmean(column) for column in columns]
        spread = [_deviation(column) for column in columns]
        axes.plot(places, means, style, color=colour, linewidth=1.5, label=each.name)
        for width, alpha in ((1.0, 0.08), (1 / math.sqrt(len(each.curves)), 0.25)):
            low = [mean - width * part for mean, part in zip(means, spread, strict=True)]
            high = [mean + width * part for mean, part in zip(means, spread, strict=True)]
            axes.fill_between(places, low, high, color=colour, alpha=alpha, linewidth=0)
    best = found[0].best_possible
    axes.axhline(best, color="#4d4d4d", linewidth=0.8, linestyle=(0, (1, 3)))
    axes.annotate(
        f"best of the table, {best:g}", (0.01, best), xycoords=("axes fraction", "data"), va="bottom"
    )
    curves = [[fmean(column) for column in _columns(on, each)[1]] for each in found]
    ends = [means[-1] for means in curves]
    starts = [mean for means in curves for mean in means[4:5] if not math.isnan(mean)]
    worst, top = (max, min) if on.report.smallest else (min, max)
    if starts and worst(starts) != best:  # the first evaluations are far off
        axes.set_ylim(*sorted((worst([*starts, *ends]), top([*ends, best]) + 0.08 * (best - worst(starts)))))
    steps = "evaluations" if on.searches is None else "evaluations, or epochs of a supernet"
    axes.set_xlabel(steps if on.cost is None else f"seconds on the simulated clock ({on.cost})")
    by = f" by {on.goals[0].metric}" if on.goals else ""
    axes.set_ylabel(f"{on.report.metric} of the best{by}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return drawn


def _deviation(values: Sequence[float]) -> float:
    """NaN where some searches have no result yet."""
    if any(map(math.isnan, values)):
        return math.nan
    return stdev(values) if len(values) > 1 else 0.0


def _columns(on: Bench, each: Measured) -> tuple[list[float], list[list[float]]]:
    """Places on the axis, and the scores of all searches at each."""
    if on.cost is None:
        length = max(len(curve.values) for curve in each.curves)  # one that ended early keeps what it found
        return [float(n + 1) for n in range(length)], [
            [c.values[min(n, len(c.values) - 1)] for c in each.curves] for n in range(length)
        ]
    end = max(time for curve in each.curves for time in curve.clock)
    first = max(curve.clock[0] for curve in each.curves)
    steps = [first + (end - first) * part / 200 for part in range(201)]
    places = [[bisect_right(curve.clock, step) - 1 for step in steps] for curve in each.curves]
    columns = [
        [curve.values[at[n]] for curve, at in zip(each.curves, places, strict=True)]
        for n in range(len(steps))
    ]
    return steps, columns
