"""How far a supernet's ranking of networks can be trusted: a picture, and a part of a search's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.correlation import GOOD, LEVEL, SHARED, told
from nas.report.comparison import Event
from nas.report.front import figure, worded
from nas.report.ledger import Record
from nas.report.markdown import picture as saved
from nas.report.markdown import table_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOUR = "#4c78a8"
LISTED = 20  # networks in the table


def section(run: Record) -> str:
    """The part of a search's page about its supernet's ranking; empty if none was measured."""
    found = run.of("ranking")
    if not found:
        return ""
    events = [event for event in run.of("ranked") if "error" not in event]
    failed = [f"`{event['literal']}`: {event['error']}" for event in run.of("ranked") if "error" in event]
    blocks = [
        "## Ranking by the supernet",
        told(found[-1]),
        f"Intervals are {100 * LEVEL:.0f} % bootstrap intervals over the networks. The word is by the lower "
        f"end of Kendall's: trust above {GOOD}, doubt above 0, do not trust otherwise.",
    ]
    if found[-1]["word"] is not None:
        blocks.append(f"![accuracy in the supernet and alone]({saved(run, 'ranking', picture(events))})")
    if events:
        metric = alone(events[0])
        lines = [
            (f"`{e['literal']}`", *(figure(e["metrics"][name]) for name in (SHARED, metric))) for e in events
        ]
        blocks.append(table_of(("network", worded(SHARED), f"{worded(metric)} alone"), lines[:LISTED]))
    if len(events) > LISTED:
        blocks.append(f"The first {LISTED} of {len(events)}; `events.jsonl` has all of them.")
    if failed:
        blocks.append(f"Failed: {'; '.join(failed)}.")
    return "\n\n".join(blocks)


def alone(event: Event) -> str:
    """The metric of a network that was evaluated on its own."""
    return str(next(name for name in event["metrics"] if name != SHARED))


def picture(events: Sequence[Event]) -> Figure:
    """A point for each network: accuracy in the supernet, and alone."""
    from matplotlib.figure import Figure

    events = [event for event in events if "error" not in event]
    metric = alone(events[0])
    drawn = Figure(figsize=(4.6, 3.6), layout="constrained", facecolor="white")
    axes = drawn.add_subplot()
    points = [(e["metrics"][SHARED], e["metrics"][metric]) for e in events]
    axes.plot(*zip(*points, strict=True), "o", color=COLOUR, alpha=0.6, markersize=4)
    axes.set_xlabel(worded(SHARED), fontsize=9)
    axes.set_ylabel(f"{worded(metric)} alone", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    return drawn
