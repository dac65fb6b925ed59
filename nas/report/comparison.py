"""comparison(), verdict(): the found network against random and hand-designed ones, with their spread."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Event = Mapping[str, Any]

NO_CONTROLS = (
    "No controls were trained: without random and hand-designed networks under the same recipe, this result "
    "cannot be told from luck."
)


@dataclass(frozen=True)
class Row:
    """Networks of one group, trained after the search under one recipe.

    `mean` and `std` are of the test accuracy (0..1), `std` None for a single network; `params`, `macs` and
    `seconds` are means, `seconds` the time of a network on the run's clock.
    """

    group: str
    n: int
    mean: float
    std: float | None
    params: float
    macs: float
    seconds: float


def comparison(events: Iterable[Event]) -> list[Row]:
    """A row for each group of controls: found first, random second. Empty for a run without controls.

    The seconds of a network are those since the event before it: right where controls are trained one by one.
    """
    groups: dict[str, list[tuple[Event, float]]] = {}
    before = 0.0
    for event in events:
        now = float(event.get("seconds", before))
        if event["kind"] == "control" and "test_accuracy" in event.get("metrics", {}):
            groups.setdefault(event["group"], []).append((event, max(0.0, now - before)))
        before = now
    order = sorted(groups, key=lambda group: {"found": 0, "random": 1}.get(group, 2))
    return [_row(group, groups[group]) for group in order]


def _row(group: str, members: Sequence[tuple[Event, float]]) -> Row:
    accuracies = [float(event["metrics"]["test_accuracy"]) for event, _ in members]
    return Row(
        group=group,
        n=len(members),
        mean=fmean(accuracies),
        std=stdev(accuracies) if len(accuracies) > 1 else None,
        params=fmean(float(event.get("params") or 0) for event, _ in members),
        macs=fmean(float(event.get("macs") or 0) for event, _ in members),
        seconds=fmean(seconds for _, seconds in members),
    )


def verdict(rows: Sequence[Row]) -> str:
    """What the comparison of found with random networks shows, and no more than it shows."""
    named = {row.group: row for row in rows}
    if "found" not in named or "random" not in named:
        return NO_CONTROLS if not named else _lacks(named)
    found, random = named["found"], named["random"]
    start = f"Found minus random: {100 * (found.mean - random.mean):+.2f} points of test accuracy"
    return difference(start, found, random, than="random sampling", many="controls")


def difference(start: str, first: Row, second: Row, *, than: str, many: str) -> str:
    """`start`, which tells the difference of two means, and what their spreads allow to say of it.

    than: what `second` is called; many: what to train more of.
    """
    freedom = first.n + second.n - 2
    if freedom == 0:
        return f"{start}, one network each: no spread is known, so this cannot be told from luck."
    points = first.mean - second.mean
    squares = sum((row.n - 1) * (row.std or 0.0) ** 2 for row in (first, second))
    pooled = math.sqrt(squares / freedom)
    error = pooled * math.sqrt(1 / first.n + 1 / second.n)
    spread = (
        f"pooled standard deviation {100 * pooled:.2f}, standard error of the difference {100 * error:.2f}"
    )
    if abs(points) < 2 * error or points == 0:
        return f"{start} ({spread}): not distinguishable from {than} (less than 2 standard errors)."
    better = "better" if points > 0 else "worse"
    caution = (
        f" With {first.n + second.n} networks in all this is weak evidence: train more {many}."
        if freedom < 8
        else ""
    )
    return f"{start} ({spread}): {better} than {than} by more than 2 standard errors.{caution}"


def _lacks(named: Mapping[str, Row]) -> str:
    missing = " and ".join(group for group in ("found", "random") if group not in named)
    return f"No {missing} network has been trained (yet): this result cannot be told from luck."


def table(rows: Sequence[Row]) -> Table:
    """The comparison for a terminal."""
    from rich.table import Table

    drawn = Table("networks", *(_right(name) for name in HEADINGS[1:]))
    for row in rows:
        drawn.add_row(*cells_of(row))
    return drawn


HEADINGS = ("networks", "n", "test accuracy, %", "params", "macs", "seconds each")


def cells_of(row: Row) -> tuple[str, ...]:
    """The texts under `HEADINGS`."""
    counts = (quantity(row.params) if row.params else "", quantity(row.macs) if row.macs else "")
    return (row.group, str(row.n), percent(row.mean, std=row.std), *counts, f"{row.seconds:.1f}")


def _right(name: str) -> Any:
    from rich.table import Column

    return Column(name, justify="right")


def percent(value: float, *, std: float | None = None) -> str:
    """``93.12 ± 0.40`` of fractions; without a deviation, the value alone."""
    return f"{100 * value:.2f}" + (f" ± {100 * std:.2f}" if std is not None else "")


def quantity(value: float) -> str:
    """``1.93 M``, ``12.3 k``, ``640``: three digits."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        scaled = value / size
        if scaled >= 0.9995:
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{value:.0f}"
