"""nas compare"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nas.cli import options as o
from nas.cli.errors import at_work, say


def command(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="networks: run folder | architecture.yaml | SPACE:LITERAL | SPACE:KNOWN | baseline",
            metavar="WHAT...",
        ),
    ] = None,
    data: o.DataName = None,
    recipe: o.RecipeName = None,
    budget: Annotated[
        str | None, typer.Option(help="of each training: 20epochs, 60s, 5min (default: the recipe's epochs)")
    ] = None,
    best: Annotated[
        int | None, typer.Option(min=2, help="of each run of a search, so many of its best networks")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="trainings of each network (default 3)")] = None,
    executor: o.ExecutorName = None,
    workers: o.Workers = None,
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
    from nas.entries import best_of, resolve_comparison

    flags = {"recipe": recipe, "budget": budget, "seeds": seeds, "seed": seed, "device": device}
    where = o.executor(executor, workers)
    layers = o.layers(config, set_, data=data, data_dir=data_dir, executor=where, **flags)
    named = [item for each in what or () for item in (best_of(each, best) if best else [each])]
    resolved = resolve_comparison(layers, named)
    from nas.compare import begin_comparison
    from nas.run import new_folder
    from nas.train import available
    from nas.training import load_data

    resolved["device"] = available(resolved["device"])
    examples = load_data(resolved, download=download)
    with begin_comparison(resolved, run or new_folder("compare"), data=examples) as opened:
        finish(opened, examples, quiet=quiet, as_json=json)


def finish(run: Any, examples: Any, *, quiet: bool, as_json: bool) -> None:
    """Train what is not trained yet, showing it; then the result."""
    from nas.cli.progress import ShowNetworks
    from nas.compare import proceed_comparison
    from nas.report.ledger import record
    from nas.report.networks import LEGEND, fronts, lead, networks, ranked, table
    from nas.run import RunFailed

    at_work(run.folder)
    config = run.config
    with ShowNetworks(quiet=quiet) as show:
        show.console.print(
            f"comparing {len(config['networks'])} networks on {config['data']['name']}, recipe "
            f"{config['recipe']}, budget {config['budget']} a training, {config['seeds']} of each network, "
            f"seed {config['seed']}, {config['device']} with {config['threads']} threads\n"
            f"run folder: {run.folder}\n"
        )
        for entry in config["networks"]:
            if "run" in entry:
                show.console.print(f"note: {entry['name']} of {entry['run']} is trained again from scratch\n")
        result = proceed_comparison(run, data=examples, watcher=show)
        rows = networks(record(run.folder))
        show.console.print()
        if not show.console.is_terminal:
            show.console.width = 110  # a file has room for long names
        show.console.print(table(rows))
        show.console.print(f"{LEGEND}\n{lead(rows)}")
    if not quiet:
        say(f"next: nas report {run.folder} | tensorboard --logdir {run.folder}")
    best = ranked(rows)[0]
    if best.mean is None:
        line = "no training succeeded"
    else:
        named = {"params": "parameters", "macs": "multiply-adds", "latency_ms": "latency"}
        listed = "; ".join(f"{named[key]}: {', '.join(names)}" for key, names in fronts(rows).items())
        line = f"{best.name} {100 * best.mean:.2f} %; Pareto fronts by {listed}"
    o.answer(result, line, as_json=as_json)
    if best.mean is None:
        raise RunFailed(f"no training succeeded: {best.trainings[0].error}")
