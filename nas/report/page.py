"""page(): one page to read about a run, finished or not: ``report.md`` in its folder, pictures beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.report import front, ranking
from nas.report.checklist import checklist, own_settings
from nas.report.comparison import HEADINGS, Row, cells_of, comparison, percent, quantity, verdict
from nas.report.curves import curves
from nas.report.draw import figure
from nas.report.ledger import Record, record
from nas.report.markdown import duration, environment, onwards, picture, table_of
from nas.report.networks_page import networks_page
from nas.report.outline import outline
from nas.report.seeds import seeds_page
from nas.report.tree import text
from nas.search_space.joint import told as settings
from nas.search_space.space import space


def page(run: Path) -> Path:
    """Write ``report.md`` into the run's folder and return its path. Raises ValueError if no run is there."""
    run = Path(run)
    read = record(run)
    if read.config.get("command") == "seeds":
        blocks = seeds_page(read)
    elif read.compared:
        blocks = networks_page(read)
    else:
        rows = comparison(read.events)
        write = _search if read.searched else _training
        blocks = [*write(read, rows), environment(read), onwards(_commands(read))]
    path = run / "report.md"
    path.write_text("\n\n".join(block for block in blocks if block) + "\n", encoding="utf-8")
    return path


def _search(run: Record, rows: Sequence[Row]) -> list[str]:
    return [
        f"# Search of `{_name(run, 'space')}` on `{_name(run, 'data')}`",
        _what(run),
        _result(run, rows),
        _state(run),
        _collapse(run),
        _compared(run, rows),
        front.section(run),
        ranking.section(run),
        _cost(run),
        _network(run),
        _curves(run),
        _checked(run, rows),
    ]


def _training(run: Record, rows: Sequence[Row]) -> list[str]:
    del rows  # a training has no controls
    what = run.section("what")
    title = str(what.get("name") or run.folder.name)
    named = f"`{what['space']}:{what['literal']}`" if "literal" in what else f"`{title}`"
    told = f"Trained: {named} on `{_name(run, 'data')}`, seed {run.config.get('seed', '?')}."
    return [
        f"# Training of `{title}`",
        told,
        _trained(run),
        _state(run),
        _cost(run),
        _network(run),
        _curves(run),
    ]


def _trained(run: Record) -> str:
    """What the training gave: on the test part at the end, or in the last epoch so far."""
    done = run.of("done")
    if done:
        result = done[-1].get("result", {})
        where = f" on the {result['split']} part ({result['examples']:,} images)" if "split" in result else ""
        return f"Result{where}: {_metrics(done[-1].get('metrics', {}))}{_size(result)}."
    return (
        f"Last epoch: {_metrics(run.epochs[-1].get('metrics', {}))}."
        if run.epochs
        else "No epoch is done yet."
    )


# --- the first lines ---------------------------------------------------------------------------------------


def _what(run: Record) -> str:
    address = _name(run, "space")
    budget = run.config.get("budget", "?")
    return (
        f"Searched: the space `{address}`{_encodings(run)}, by the strategy `{_name(run, 'strategy')}`, "
        f"on `{_name(run, 'data')}`, budget {_listed(budget)}, seed {run.config.get('seed', '?')}."
    )


def _name(run: Record, section: str) -> str:
    return str(run.section(section).get("name", "?"))


def _encodings(run: Record) -> str:
    given = dict(run.section("space"))
    try:
        size = space(str(given.pop("name", "")), **given).size
    except ValueError:
        return ""
    digits = len(str(size))
    return f" ({size:,} encodings)" if digits <= 9 else f" (about 10^{digits - 1} encodings)"


def _result(run: Record, rows: Sequence[Row]) -> str:
    if not run.best.get("literal"):
        return "Result: none yet."
    found = next((row for row in rows if row.group == "found"), None)
    own = f", with {settings(run.best['recipe'])}" if run.best.get("recipe") else ""
    told = f"Result: `{run.best['literal']}`{own}{_size(run.best)}."
    if found:
        times = f", n = {found.n}" if found.n > 1 else ""
        told += f" Trained from scratch: **{percent(found.mean, std=found.std)} %** test accuracy{times}."
    elif run.best.get("metrics"):
        shared = any("tables" in event for event in run.epochs)
        note = " (with the shared weights of the search, not trained on its own)" if shared else ""
        told += f" Measured in the search{note}: {_metrics(run.best['metrics'])}."
    return f"{told} {verdict(rows)}"


def _size(best: Mapping[str, Any]) -> str:
    counts = [
        f"{quantity(float(best[key]))} {name}" for key, name in SIZES.items() if best.get(key) is not None
    ]
    return f" ({', '.join(counts)})" if counts else ""


SIZES = {"params": "parameters", "macs": "multiply-adds"}


def _state(run: Record) -> str:
    if run.finished:
        reason = run.of("done")[-1].get("reason")
        return f"Finished{f': {reason}' if reason else ''}, after {duration(run.seconds)}."
    steps = f"{len(run.trials)} trials" if run.trials else f"{len(run.epochs)} epochs"
    return f"**Not finished**: {steps}, after {duration(run.seconds)}. What follows is the state so far."


def _collapse(run: Record) -> str:
    """What the guard of a weight-sharing search found, if it found something."""
    collapsed = [event for event in run.epochs if event.get("metrics", {}).get("collapsed")]
    if not collapsed:
        return ""
    metrics = collapsed[0]["metrics"]
    what = (
        f"{100 * metrics['skip_share']:.0f} % of the choices were skip connections, and "
        f"{metrics['weighted_operations']:.0f} operations with weights reached the output"
    )
    if "healthy_epoch" in metrics:
        then = f"There it was stopped; the result is that of epoch {metrics['healthy_epoch']:.0f}."
    else:
        then = "Do not trust the result without a comparison; `strategy.guard=stop` ends a search there."
    return f"**The search collapsed** in epoch {collapsed[0]['step']}: {what}. {then}"


# --- sections ----------------------------------------------------------------------------------------------


def _compared(run: Record, rows: Sequence[Row]) -> str:
    if not rows:
        return f"## Comparison\n\n{verdict(rows)} `nas search --controls N` trains them."
    each = [
        (e["name"], e["group"], percent(e["metrics"]["test_accuracy"]), *(_count(e.get(k)) for k in SIZES))
        for e in run.of("control")
        if "test_accuracy" in e.get("metrics", {})
    ]
    failed = [f"`{e.get('name', '?')}`: {e['error']}" for e in run.of("control") if "error" in e]
    return "\n\n".join(
        [
            "## Comparison",
            f"All networks were trained after the search, under one recipe{_own(run)}. Without the controls, "
            "the result could not be told from luck.",
            table_of(HEADINGS, [cells_of(row) for row in rows]),
            verdict(rows),
            "Each network:",
            table_of(("network", "group", "test accuracy, %", "params", "macs"), each),
            *([f"Failed: {'; '.join(failed)}."] if failed else []),
        ]
    )


def _own(run: Record) -> str:
    """What the recipes of the controls differ in, if they do."""
    own = own_settings(run)
    return f", but for {own}: hand-designed networks have the run's, others chose their own" if own else ""


def _cost(run: Record) -> str:
    phases = run.phases()
    lines = [(name, f"{seconds:.1f}", duration(seconds)) for name, seconds in phases.items()]
    if len(lines) > 1:
        lines.append(("all", f"{run.seconds:.1f}", duration(run.seconds)))
    trials = run.trials
    failed = sum("error" in event for event in trials)
    replayed = sum(bool(event.get("replayed")) for event in trials)
    told = (
        f"\n\n{len(trials)} trials, {failed} failed, {replayed} replayed from known results."
        if trials
        else ""
    )
    if "step_seconds" in run.usage:
        told += (
            f"\n\nA step of the supernet took {1000 * run.usage['step_seconds']:.1f} ms "
            f"(mean of {run.usage['steps']:,}); peak memory {run.usage['peak_memory'] / 2**20:,.0f} MiB."
        )
    return f"## Cost\n\n{table_of(('phase', 'seconds', 'time'), lines)}{told}"


def _network(run: Record) -> str:
    made = run.architecture()
    if made is None:
        return ""
    told = outline(*made)
    where = picture(run, "network", figure(told))
    return f"## The network\n\n![the best network and its cells]({where})\n\n```\n{text(told)}\n```"


def _curves(run: Record) -> str:
    names = {"epochs": "by epoch", "trials": "by trial"}
    links = [f"![{names[name]}]({picture(run, name, drawn)})" for name, drawn in curves(run).items()]
    return "\n\n".join(["## Curves", *links]) if links else ""


def _checked(run: Record, rows: Sequence[Row]) -> str:
    parts: dict[str, list[tuple[str, ...]]] = {}
    for item in checklist(run, rows=rows):
        parts.setdefault(item.part, []).append((item.question, item.answer, item.fact))
    tables = [f"### {part}\n\n{table_of(('', 'answer', 'fact'), lines)}" for part, lines in parts.items()]
    source = (
        "After Lindauer & Hutter, Best Practices for Scientific Research on Neural Architecture Search, JMLR "
        '21(243), 2020. Answered from this run alone: "no" means that this run does not show it.'
    )
    return "\n\n".join(["## Best-practice checklist", source, *tables])


def _commands(run: Record) -> list[str]:
    where = shlex.quote(str(run.folder))
    commands = [f"nas export {where}", f"nas evaluate {where}"]
    if not run.finished:
        commands.insert(0, f"nas resume {where}")
    return commands


# --- words -------------------------------------------------------------------------------------------------


def _metrics(metrics: Mapping[str, Any]) -> str:
    """The metrics in words, accuracies first, of which the one of the validation part leads."""
    first = ("valid_accuracy", "accuracy", "test_accuracy")
    names = sorted(
        (n for n, v in metrics.items() if isinstance(v, int | float)),
        key=lambda name: first.index(name) if name in first else len(first),
    )
    return ", ".join(_metric(name, metrics[name]) for name in names if name not in SIZES)


def _metric(name: str, value: float) -> str:
    shown = f"{percent(value)} %" if "accuracy" in name else f"{value:.4g}"
    return f"{name.replace('_', ' ')} {shown}"


def _count(value: Any) -> str:
    return quantity(float(value)) if value is not None else ""


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
