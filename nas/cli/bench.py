"""nas bench"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options as o
from nas.cli.errors import goes_on_with, say

if TYPE_CHECKING:
    from nas.bench import Bench, Measured
    from nas.bench_searches import Searches
    from nas.goal import Goal
    from nas.search_space import SearchSpace

TableFile = Annotated[Path, typer.Option("--table", help="CSV of known results, compressed (.csv.gz) or not")]
Strategies = Annotated[
    list[str],
    typer.Option("--strategy", help="NAME | file.py:name, perhaps ?argument=value&...; repeatable"),
]
Report = Annotated[
    str | None, typer.Option(help="column that scores the best by objective (default: the objective)")
]
Space = Annotated[
    str | None, typer.Option(help="space of the architectures (default: the first that reads them)")
]
Column = Annotated[str, typer.Option(help="column of the literals")]
Join = Annotated[
    list[Path] | None,
    typer.Option("--join", help="CSV of further columns, by one that both have; repeatable"),
]
Trials = Annotated[int | None, typer.Option(min=1, help="evaluations a search (default 100)")]
Key = Annotated[int, typer.Option("--seed", min=0, help="of the first search")]
Seeds = Annotated[int, typer.Option(min=1, help="searches a strategy")]
Fidelities = Annotated[
    list[str] | None,
    typer.Option("--fidelity", help="EPOCHS=COLUMN: the objective after fewer epochs; repeatable"),
]
Cost = Annotated[str | None, typer.Option(help="column of an evaluation's seconds, for a simulated clock")]
Budget = Annotated[str | None, typer.Option(help="time on the simulated clock, as in 12000s or 3h")]
Workers = Annotated[int, typer.Option(min=1, help="simulated workers")]
Jobs = Annotated[int | None, typer.Option(min=1, help="processes here (default: the cores)")]
Out = Annotated[Path | None, typer.Option(help="folder for table and plot (default: a new one)")]


def command(
    table: TableFile,
    strategy: Strategies,
    objective: o.Objectives = None,
    report: Report = None,
    space: Space = None,
    arch_column: Column = "arch",
    join: Join = None,
    trials: Trials = None,
    seeds: Seeds = 20,
    fidelity: Fidelities = None,
    cost_column: Cost = None,
    budget: Budget = None,
    workers: Workers = 1,
    jobs: Jobs = None,
    data: o.DataName = None,
    data_dir: o.DataDir = None,
    device: o.Device = None,
    out: Out = None,
    config: o.Config = None,
    set_: o.Set = None,
    seed: Key = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Each strategy in turn; table and plot if there are several, or runs to keep."""
    from nas.bench import bench
    from nas.described import described
    from nas.run import new_folder
    from nas.settings import cores
    from nas.train import available

    allowed = ("strategy",) if data is None else ("strategy", "space", "data", "ranking")
    given = o.sections(config, set_, *allowed)
    shared = given.pop("strategy")
    folder = out or (new_folder("bench") if data or len(strategy) > 1 else None)
    layers = [*o.layers(None, None, data=data, data_dir=data_dir, device=device), given]
    entries = [_entry(each, shared) for each in strategy]
    _check_use(
        [name for name, _ in entries], data, given, objective=objective, trials=trials, budget=budget,
        fidelity=fidelity, cost_column=cost_column, workers=workers > 1,
    )  # fmt: skip
    read = {"path": str(table), "key": arch_column, "join": list(map(str, join or ()))}
    jobs = jobs or (1 if data and available(device or "auto").startswith("cuda") else min(cores(), seeds))
    threads = max(1, cores() // jobs)
    on = described(
        table, space=space, arch_column=arch_column, join=join or (), objectives=objective or (),
        report=report, trials=trials, fidelities=fidelity or (), cost=cost_column, budget=budget,
        workers=workers, searches=_searches(folder, layers, read, threads) if data else None,
    )  # fmt: skip
    for name, arguments in entries:
        on.arguments(name, arguments)
    found = []
    for text, (name, arguments) in zip(strategy, entries, strict=True):
        measured = bench(on, name, arguments, name=_name(text), seeds=seeds, seed=seed, workers=jobs)
        found.append(measured)
        if not quiet:
            say(_told(measured))
    documents: list[dict[str, Any]] = [measured.to_dict() for measured in found]
    lines = [f"{each.name} {each.mean:.4f} +- {each.std:.4f}" for each in found]
    if folder is not None:
        _write(folder, on, found, quiet=quiet)
    o.answer(documents if len(found) > 1 else documents[0], "\n".join(lines), as_json=json)


def _searches(
    folder: Path | None, layers: list[dict[str, Any]], read: dict[str, Any], threads: int
) -> Callable[[SearchSpace, Goal], Searches]:
    """How strategies with a supernet search, once the space and what is reported are known."""
    assert folder is not None
    goes_on_with(f"the same command, with --out {folder}")
    from nas.bench_searches import Searches

    def made(space: SearchSpace, reported: Goal) -> Searches:
        table = {**read, "columns": [reported.metric]}
        return Searches(folder, layers, space.name, table, str(reported), threads)

    return made


def _check_use(names: Sequence[str], data: str | None, given: Mapping[str, Any], **flags: Any) -> None:
    """Raises ValueError for what none of the strategies has a use for."""
    from nas.strategies import has_supernet

    supernets = [name for name in names if has_supernet(name)]
    if data is not None and not supernets:
        raise ValueError("--data is for strategies with a supernet, and none is named: leave it out")
    unused = [f"--{flag.replace('_', '-')}" for flag, value in flags.items() if value]
    if unused and len(supernets) == len(names):
        raise ValueError(
            f"{' and '.join(unused)}: these strategies train a supernet with data and evaluate nothing in "
            "the table: leave it out; epochs are an argument, as in --strategy 'darts?epochs=20'"
        )
    if supernets and flags["cost_column"]:
        raise ValueError("--cost-column times evaluations, and a supernet has none: bench these alone")
    for section, key in (("space", "name"), ("ranking", "metric")):
        if key in given.get(section, {}):
            raise ValueError(f"{section}.{key} follows from the table and --report: leave it out")


def _write(folder: Path, on: Bench, found: Sequence[Measured], *, quiet: bool) -> None:
    from nas.report.bench import write

    text = write(folder, on, found)
    if not quiet:
        say(f"\n{text}\n{folder}/table.md, {folder}/curves.png, {folder}/bench.json")


def _told(measured: Measured) -> str:
    volume = f", hypervolume {fmean(measured.hypervolumes):.4f}" if measured.hypervolumes else ""
    return f"{measured.name}: {measured.mean:.4g} ± {measured.std:.2g}{volume}, {measured.seconds:.1f} s"


def _name(text: str) -> str:
    """A strategy as it is shown: without the folders of its file."""
    address, question, arguments = text.partition("?")
    return f"{address.rpartition('/')[2]}{question}{arguments}"


def _entry(text: str, shared: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    from nas.registry import absolute
    from nas.search_space.address import split

    if "name" in shared:
        raise ValueError("strategies of a bench are named by --strategy; --set strategy.KEY=VALUE is for all")
    name, own = split(text)
    return absolute(name), {**shared, **own}
