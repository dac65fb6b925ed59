"""nas search"""

from __future__ import annotations

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
    executor: Annotated[str | None, typer.Option(help="where trials run: local, ray")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="trials at a time")] = None,
    recipe: o.RecipeName = None,
    config: o.Config = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    run: o.RunDir = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.config import resolve_search

    layers = o.layers(
        config,
        set_,
        data=data,
        data_dir=data_dir,
        space=space,
        strategy=strategy,
        budget=budget,
        controls=controls,
        executor=_executor(executor, workers),
        search={"objective": objective} if objective else None,
        recipe=recipe,
        seed=seed,
        device=device,
    )
    resolved = resolve_search(layers)
    from nas.evaluators.demand import demand
    from nas.loop import begin
    from nas.registry import label
    from nas.run import new_folder
    from nas.train import available
    from nas.training import load_data

    demand(resolved)
    resolved["device"] = available(resolved["device"])
    examples = load_data(resolved, download=download)
    names = (resolved["strategy"]["name"], resolved["space"]["name"])
    folder = run or new_folder("-".join(map(label, names)))
    with begin(resolved, folder, data=examples) as opened:
        finish(opened, examples, quiet=quiet, as_json=json)


def _executor(name: str | None, workers: int | None) -> dict[str, Any] | None:
    given = {"name": name, "workers": workers}
    return {key: value for key, value in given.items() if value is not None} or None


def finish(run: Any, examples: Any, *, quiet: bool, as_json: bool) -> None:
    """Search to the end, showing it; then the result."""
    from nas.cli.progress import Show
    from nas.front import FRONT
    from nas.goal import goals_of
    from nas.loop import proceed, searched_space
    from nas.report import comparison, record, table, verdict

    at_work(run.folder)
    config = run.config
    with Show(quiet=quiet, goals=goals_of(config)) as show:
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
