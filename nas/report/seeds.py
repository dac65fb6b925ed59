"""Searches with several seeds: a table for the terminal, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.report.ledger import Record
from nas.report.markdown import environment, table_of

if TYPE_CHECKING:
    from rich.table import Table

Result = Mapping[str, Any]
HEADINGS = ("seed", "found", "parameters", "validation", "test, trained anew")


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A line a search, as texts."""
    return [
        (
            str(result["seed"]),
            str(result["best"]),
            f"{result['params']:,}",
            _share(result["metrics"].get("valid_accuracy")),
            _share(result["controls"].get("found", {}).get("mean")),
        )
        for result in results
    ]


def table(document: Result) -> Table:
    """The searches, a line each."""
    from rich.table import Table

    made = Table(*HEADINGS)
    for row in rows(document["searches"]):
        made.add_row(*row)
    return made


def line(document: Result) -> str:
    """Mean and deviation of what was measured, and of each group of controls."""
    told = [
        f"{name} {100 * each['mean']:.2f} ± {100 * each['std']:.2f} %"
        for name, each in {**_accuracies(document["metrics"]), **document["controls"]}.items()
    ]
    what = f"{document['strategy']} on {document['space']}"
    return f"{what}, {len(document['searches'])} seeds: {', '.join(told)}"


def seeds_page(run: Record) -> list[str]:
    """The blocks of a page about the searches that are done."""
    search = run.config["search"]
    done = sorted(run.of("search"), key=lambda event: event["seed"])
    left = int(run.config["seeds"]) - len(done)
    state = f"{left} of {run.config['seeds']} searches are left: `nas resume {run.folder}`" if left else ""
    listed = [
        (*row[:1], f"[{row[1]}](seed-{event['seed']}/)", *row[2:])
        for event in done
        for row in rows([{"seed": event["seed"], **event["result"]}])
    ]
    return [
        f"# {run.config['seeds']} searches of `{search['space']['name']}` on `{search['data']['name']}`",
        f"Strategy `{search['strategy']['name']}`, budget {search['budget']}, seeds from {search['seed']}.",
        state,
        table_of(HEADINGS, listed) if done else "",
        environment(run),
    ]


def _accuracies(metrics: Result) -> dict[str, Any]:
    return {name.replace("_", " "): each for name, each in metrics.items() if name.endswith("valid_accuracy")}


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f} %"
