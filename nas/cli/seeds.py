"""nas search --seeds: the part of the command that several seeds have of their own"""

from __future__ import annotations

from typing import Any

from nas.cli import options as o
from nas.cli.errors import at_work, say


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
