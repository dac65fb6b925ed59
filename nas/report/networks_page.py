"""networks_page(): the page about a comparison of networks under one recipe and one budget."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from nas.report.comparison import percent
from nas.report.ledger import Record
from nas.report.markdown import duration, environment, onwards, picture, table_of
from nas.report.networks import COSTS, HEADINGS, LEGEND, Compared, cells_of, lead, networks, ranked
from nas.report.scatter import scatters


def networks_page(run: Record) -> list[str]:
    """The blocks of the page; some may be empty."""
    rows = networks(run)
    results = [_head(run), _state(run, rows), _table(rows), _plots(run, rows)]
    details = [_how(run), _what(run), _each(rows), environment(run)]
    return [*results, *details, onwards(_commands(run, rows))]


def _head(run: Record) -> str:
    listed, seeds = run.config.get("networks", []), run.config.get("seeds", "?")
    data = run.section("data").get("name", "?")
    times = "once" if seeds == 1 else f"{seeds} times"
    return (
        f"# Comparison of {len(listed)} networks on `{data}`\n\n"
        f"Each was trained {times} under the recipe `{run.config.get('recipe', '?')}`, with a budget of "
        f"{run.config.get('budget', '?')} for each training, seed {run.config.get('seed', '?')}."
    )


def _state(run: Record, rows: Sequence[Compared]) -> str:
    done = sum(len(row.trainings) for row in rows)
    total = len(run.config.get("networks", [])) * int(run.config.get("seeds", 1))
    if run.finished:
        return f"{lead(rows)}\n\nFinished: {done} trainings, after {duration(run.seconds)}."
    return (
        f"**Not finished**: {done} of {total} trainings, after {duration(run.seconds)}. What follows is the "
        f"state so far.\n\n{lead(rows)}"
    )


def _table(rows: Sequence[Compared]) -> str:
    if not rows:
        return ""
    failed = [f"`{t.name}-{t.seed}`: {t.error}" for row in rows for t in row.trainings if t.error]
    parts = ["## Networks", table_of(HEADINGS, [cells_of(row) for row in ranked(rows)]), LEGEND]
    return "\n\n".join([*parts, *([f"Failed: {'; '.join(failed)}."] if failed else [])])


def _plots(run: Record, rows: Sequence[Compared]) -> str:
    links = [
        f"![test accuracy against {COSTS[key]}]({picture(run, f'accuracy-{key}', drawn)})"
        for key, drawn in scatters(rows).items()
    ]
    note = (
        "The fronts are those of the means: where two networks are nearer to each other than their trainings "
        "are, more seeds may turn them round."
    )
    return "\n\n".join(["## Accuracy against cost", *links, note]) if links else ""


def _how(run: Record) -> str:
    device, threads = run.config.get("device", "?"), run.config.get("threads", "?")
    lines = [
        f"All trainings ran one after the other on one device ({device}, {threads} threads), so their "
        "seconds can be compared as far as nothing else ran there.",
        "Parameters are the trainable ones; multiply-adds those of convolutions and linear layers for one "
        "image.",
        "Latency is of a forward pass of one image in evaluation mode: the least of three medians of 20, "
        "taken before the first training where the trainings ran. It holds for that machine.",
        "The seed with a number is the same for all networks; it decides initial weights and batches.",
    ]
    if run.section("train").get("seconds"):
        lines.append(
            "The budget is time: each training took so many seconds of steps, and its schedule was stretched "
            "over them. Such trainings are not repeated to the bit."
        )
    taken = [entry for entry in run.config.get("networks", []) if entry.get("run")]
    if taken:
        named = ", ".join(f"`{entry['name']}` (from `{entry['run']}`)" for entry in taken)
        lines.append(f"Networks of runs were trained again from scratch, at the scale of their run: {named}.")
    return "## How it was measured\n\n" + "\n".join(f"- {line}" for line in lines)


def _what(run: Record) -> str:
    lines = [
        (entry["name"], _named(entry["what"]), _scale(entry)) for entry in run.config.get("networks", [])
    ]
    return f"## What was compared\n\n{table_of(('name', 'network', 'built with'), lines)}" if lines else ""


def _named(what: dict[str, Any]) -> str:
    return f"`{what['space']}:{what['literal']}`" if "space" in what else f"`{what['name']}`"


def _scale(entry: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in entry.get("network", {}).items())


def _each(rows: Sequence[Compared]) -> str:
    lines = [
        (
            f"{t.name}-{t.seed}",
            "failed" if t.accuracy is None else percent(t.accuracy),
            "" if t.loss is None else f"{t.loss:.4f}",
            str(t.epochs or ""),
            "" if t.seconds is None else f"{t.seconds:.1f}",
        )
        for row in rows
        for t in row.trainings
    ]
    headings = ("training", "test accuracy, %", "test loss", "epochs", "seconds")
    return f"## Each training\n\n{table_of(headings, lines)}" if lines else ""


def _commands(run: Record, rows: Sequence[Compared]) -> list[str]:
    where = shlex.quote(str(run.folder))
    trained = [t for row in ranked(rows) for t in row.trainings if t.accuracy is not None]
    commands = [] if run.finished else [f"nas resume {where}"]
    if trained:
        one = shlex.quote(str(run.folder / "networks" / f"{trained[0].name}-{trained[0].seed}"))
        commands += [f"nas evaluate {one}", f"nas export {one}"]
    return [*commands, f"tensorboard --logdir {where}"]
