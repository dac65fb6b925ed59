"""networks(): the networks of a comparison with their accuracy, cost and Pareto fronts, from its ledger.

A network is on a front if no other is as good in accuracy and in cost, and better in one of the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from nas.report.comparison import Event, Row, difference, percent, quantity
from nas.report.ledger import Record
from nas.report.markdown import table_of
from nas.run import events

if TYPE_CHECKING:
    from rich.table import Table

COSTS = {"params": "parameters", "macs": "multiply-adds", "latency_ms": "latency, ms"}
HEADINGS = ("network", "n", "test, %", "params", "macs", "ms", "epochs", "seconds")
TIMELESS = 6  # columns before those that need the trainings' folders
STAR = "★"
LEGEND = (
    "test: accuracy, mean and standard deviation of n trainings; ms: latency of one image; epochs and "
    "seconds: of a training.\n"
    f"{STAR}: on the Pareto front: no other network is as good in mean accuracy and in this cost, and better "
    "in one of the two."
)


@dataclass(frozen=True)
class Trained:
    """One training of a comparison; `accuracy` (0..1) and `loss` on the test part, None where it failed.

    `seconds`: of training, None if its folder does not tell; `seed`: its number among the network's.
    """

    name: str
    seed: int
    accuracy: float | None
    loss: float | None
    epochs: int
    seconds: float | None
    error: str = ""


@dataclass(frozen=True)
class Compared:
    """A network of a comparison: its cost, its trainings so far, the costs of whose front it is.

    `latency_ms`: of a forward pass of one image, in milliseconds.
    """

    name: str
    params: int
    macs: int
    latency_ms: float
    trainings: tuple[Trained, ...] = ()
    fronts: frozenset[str] = frozenset()

    @property
    def scores(self) -> list[float]:
        """Test accuracies (0..1) of the trainings that succeeded."""
        return [each.accuracy for each in self.trainings if each.accuracy is not None]

    @property
    def mean(self) -> float | None:
        """Of the test accuracies; None without any."""
        return fmean(self.scores) if self.scores else None

    @property
    def std(self) -> float | None:
        """Of the test accuracies; None below two."""
        return stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def epochs(self) -> float | None:
        """Mean number of epochs, the last one perhaps not whole, of the trainings that succeeded."""
        counts = [each.epochs for each in self.trainings if each.accuracy is not None]
        return fmean(counts) if counts else None

    @property
    def seconds(self) -> float | None:
        """Mean seconds of training, of the trainings that succeeded."""
        times = [t.seconds for t in self.trainings if t.accuracy is not None and t.seconds is not None]
        return fmean(times) if times else None


def networks(run: Record) -> list[Compared]:
    """The networks of a comparison, in the order in which they were named."""
    trained = [_trained(run, event) for event in run.of("network")]
    return compared(run.events, trained)


def compared(ledger: Iterable[Event], trained: Sequence[Trained]) -> list[Compared]:
    """The networks whose cost the ledger has, with these trainings."""
    costs = {event["name"]: event for event in ledger if event["kind"] == "start" and "name" in event}
    rows = [
        Compared(
            name,
            event["params"],
            event["macs"],
            event["latency_ms"],
            tuple(each for each in trained if each.name == name),
        )
        for name, event in costs.items()
    ]
    fronts = {key: front(rows, key) for key in COSTS}
    return [replace(row, fronts=frozenset(k for k in COSTS if row.name in fronts[k])) for row in rows]


def of_event(event: Event, *, epochs: int = 0, seconds: float | None = None) -> Trained:
    """The training that a line of the ledger tells of."""
    metrics = event.get("metrics") or {}
    return Trained(
        event["name"],
        event["seed"],
        metrics.get("test_accuracy"),
        metrics.get("test_loss"),
        epochs,
        seconds,
        event.get("error", ""),
    )


def _trained(run: Record, event: Event) -> Trained:
    folder = run.folder / "networks" / f"{event['name']}-{event['seed']}"
    epochs = [each for each in events(folder) if each["kind"] == "epoch"]
    if not epochs:
        return of_event(event)
    last = epochs[-1]  # a training measured by seconds counts its steps alone
    return of_event(
        event,
        epochs=int(last["step"]),
        seconds=float(last.get("metrics", {}).get("seconds", last["seconds"])),
    )


def front(rows: Sequence[Compared], key: str) -> set[str]:
    """Names of the networks on the Pareto front of mean accuracy and the cost `key`."""
    points = [(row.name, float(getattr(row, key)), row.mean) for row in rows if row.mean is not None]

    def beaten(cost: float, mean: float) -> bool:
        return any(c <= cost and m >= mean and (c < cost or m > mean) for _, c, m in points)

    return {name for name, cost, mean in points if not beaten(cost, mean)}


def document(run: Record) -> dict[str, Any]:
    """What `nas compare` prints with ``--json``. Accuracies are in 0..1, None where every training failed."""
    return {
        "run": str(run.folder),
        "networks": [
            {
                "name": row.name,
                "accuracy": {"mean": row.mean, "std": row.std or 0.0, "n": len(row.scores)},
                "params": row.params,
                "macs": row.macs,
                "latency_ms": row.latency_ms,
                "epochs": row.epochs,
                "seconds": row.seconds,
                "pareto": {key: key in row.fronts for key in COSTS},
            }
            for row in networks(run)
        ],
    }


# --- for readers -------------------------------------------------------------------------------------------


def ranked(rows: Sequence[Compared]) -> list[Compared]:
    """The most accurate first; what has no accuracy last."""
    return sorted(rows, key=lambda row: -1.0 if row.mean is None else row.mean, reverse=True)


def cells_of(row: Compared) -> tuple[str, ...]:
    """The texts under `HEADINGS`."""
    shown = {
        "params": quantity(row.params),
        "macs": quantity(row.macs),
        "latency_ms": f"{row.latency_ms:.3g}",
    }
    return (
        row.name,
        str(len(row.scores)),
        "" if row.mean is None else percent(row.mean, std=row.std),
        *(f"{text} {STAR}" if key in row.fronts else text for key, text in shown.items()),
        "" if row.epochs is None else f"{row.epochs:.3g}",
        "" if row.seconds is None else f"{row.seconds:.1f}",
    )


def markdown(rows: Sequence[Compared]) -> str:
    """The comparison without what the trainings' folders tell, as text with bars."""
    return table_of(HEADINGS[:TIMELESS], [cells_of(row)[:TIMELESS] for row in ranked(rows)])


def table(rows: Sequence[Compared]) -> Table:
    """The comparison for a terminal, the most accurate network first."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    drawn = Table(
        Column(HEADINGS[0], overflow="fold"),
        *(Column(name, justify="right", no_wrap=True) for name in HEADINGS[1:]),
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for row in ranked(rows):
        drawn.add_row(*cells_of(row))
    return drawn


def lead(rows: Sequence[Compared]) -> str:
    """By how much the most accurate network leads, and whether the spread of the trainings shows it."""
    first, second, *_ = [*ranked([row for row in rows if row.mean is not None]), None, None]
    if first is None or second is None:
        return "Fewer than two networks have an accuracy: there is nothing to compare (yet)."
    means = (first.mean or 0.0, second.mean or 0.0)
    start = f"{first.name} minus {second.name}: {100 * (means[0] - means[1]):+.2f} points of test accuracy"
    return difference(start, _row(first), _row(second), than=second.name, many="seeds")


def _row(row: Compared) -> Row:
    return Row(row.name, len(row.scores), row.mean or 0.0, row.std, 0.0, 0.0, 0.0)


def fronts(rows: Sequence[Compared]) -> Mapping[str, list[str]]:
    """Cost -> names on its front, the cheapest first."""
    return {
        key: [row.name for row in sorted(rows, key=lambda row: getattr(row, key)) if key in row.fronts]
        for key in COSTS
    }
