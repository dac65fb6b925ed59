"""nas search"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli import options as o
from nas.cli.errors import at_work, say


def command(
    space: Annotated[
        str | None, typer.Option(help="search space: name | file.py:name (default darts)")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="strategy: name | file.py:name (default darts)")
    ] = None,
    data: o.DataName = None,
    budget: o.Budget = None,
    objective: o.Objectives = None,
    controls: o.Controls = None,
    executor: o.ExecutorName = None,
    workers: o.Workers = None,
    recipe: o.RecipeName = None,
    config: o.Config = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    seeds: Annotated[
        int,
        typer.Option(min=1, help="searches with seeds side by side; their mean and deviation are told"),
    ] = 1,
    run: o.RunDir = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    layers = o.layers(
        config,
        set_,
        data=data,
        data_dir=data_dir,
        space=space,
        strategy=strategy,
        budget=budget,
        controls=controls,
        executor=o.executor(executor, workers),
        search={"objective": objective} if objective else None,
        recipe=recipe,
        seed=seed,
        device=device,
    )
    start(layers, seeds, run=run, download=download, quiet=quiet, as_json=json)


def start(
    layers: Sequence[Mapping[str, Any]],
    seeds: int,
    *,
    run: Path | None,
    download: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Search, with one seed or several."""
    from nas.cli import seeds as several
    from nas.config import resolve_search
    from nas.evaluators.demand import demand
    from nas.loop import begin
    from nas.registry import label
    from nas.run import new_folder, of_one
    from nas.seeds import begin_seeds, resolve_seeds
    from nas.train import available
    from nas.training import load_data

    resolved = resolve_search(layers) if seeds == 1 else resolve_seeds(layers, seeds)
    one = of_one(resolved)
    demand(one)
    one["device"] = available(one["device"])
    examples = load_data(one, download=download)
    folder = run or new_folder("-".join(label(one[part]["name"]) for part in ("strategy", "space")))
    making, finishing = (begin, finish) if seeds == 1 else (begin_seeds, several.finish)
    with making(resolved, folder, data=examples) as opened:
        finishing(opened, examples, quiet=quiet, as_json=as_json)


def finish(run: Any, examples: Any, *, quiet: bool, as_json: bool) -> None:
    """Search to the end, showing it; then the result."""
    from nas.budget import Budget
    from nas.cli.progress import Show
    from nas.execution import devices
    from nas.front import FRONT
    from nas.goal import goals_of
    from nas.loop import proceed, searched_space
    from nas.report import comparison, record, table, verdict
    from nas.strategies import has_supernet

    at_work(run.folder)
    config = run.config
    budget = Budget.parse(config["budget"])
    in_use = devices(config, has_supernet(config["strategy"]["name"]))

    def account(seconds: float) -> str:
        return budget.told(seconds=seconds, devices=in_use)

    with Show(quiet=quiet, goals=goals_of(config), account=account) as show:
        show.console.print(
            f"{config['strategy']['name']} on {config['space']['name']} with {config['data']['name']}, "
            f"budget {config['budget']}, seed {config['seed']}, "
            f"{config['device']} with {config['threads']} threads\n"
            f"run folder: {run.folder}\n"
        )
        for note in searched_space(config, examples).notes:
            show.console.print(f"note: {note}\n")
        result = proceed(run, data=examples, watcher=show)
        show.console.print()
        rows = comparison(run.events())
        if rows:
            show.console.print(table(rows))
        show.console.print(verdict(rows))
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in record(run.folder).phases().items())
        if result["cost"]["replays"]:
            show.console.print(f"{result['cost']['replays']} proposals were known networks and cost nothing")
        if "front" in result:
            show.console.print(f"{len(result['front'])} networks on the front: {run.folder / FRONT}")
        told = [f"{result['params']:,} parameters, {result['macs']:,} multiply-adds", spent]
        if "step_seconds" in result["cost"]:
            told.append(
                f"{1000 * result['cost']['step_seconds']:.0f} ms a step of the supernet, "
                f"peak memory {result['cost']['peak_memory'] / 2**20:,.0f} MiB"
            )
        show.console.print("; ".join(told))
    if not quiet:
        say(f"next: nas report {run.folder} | nas export {run.folder} | tensorboard --logdir {run.folder}")
    o.answer(result, f"{result['space']}:{result['best']}", as_json=as_json)
