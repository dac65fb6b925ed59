"""nas search --seeds"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.cli import options as o
from nas.cli.errors import at_work, say


def start(
    layers: Sequence[Mapping[str, Any]],
    seeds: int,
    *,
    folder: Path | None,
    download: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Search with several seeds."""
    from nas.evaluators.demand import demand
    from nas.registry import label
    from nas.run import new_folder
    from nas.seeds import begin_seeds, resolve_seeds
    from nas.train import available
    from nas.training import load_data

    resolved = resolve_seeds(layers, seeds)
    search = resolved["search"]
    demand(search)
    search["device"] = available(search["device"])
    examples = load_data(search, download=download)
    names = (search["strategy"]["name"], search["space"]["name"])
    with begin_seeds(resolved, folder or new_folder("-".join(map(label, names))), data=examples) as opened:
        finish(opened, examples, quiet=quiet, as_json=as_json)


def finish(run: Any, examples: Any, *, quiet: bool, as_json: bool) -> None:
    """Search with what seeds are left, showing it; then mean and deviation."""
    from nas.cli.progress import ShowSeeds
    from nas.goal import goals_of
    from nas.report.seeds import line, table
    from nas.seeds import proceed_seeds

    at_work(run.folder)
    config, search = run.config, run.config["search"]
    with ShowSeeds(quiet=quiet, goals=goals_of(search)) as show:
        show.console.print(
            f"{search['strategy']['name']} on {search['space']['name']} with {search['data']['name']}, "
            f"budget {search['budget']}, {config['seeds']} seeds from {search['seed']}, "
            f"{search['device']} with {search['threads']} threads each\nrun folder: {run.folder}\n"
        )
        result = proceed_seeds(run, data=examples, watcher=show)
        show.console.print()
        show.console.print(table(result))
    if not quiet:
        say(f"next: nas report {run.folder} | nas export {run.folder}/seed-{search['seed']}")
    o.answer(result, line(result), as_json=as_json)
