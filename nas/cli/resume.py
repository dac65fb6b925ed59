"""nas resume"""

from __future__ import annotations

from nas.cli import options as o
from nas.cli.errors import at_work


def command(run: o.RunFolder, quiet: o.Quiet = False, json: o.Json = False, debug: o.Debug = False) -> None:
    from nas.run import Run, check_run
    from nas.training import load_data

    check_run(run)
    at_work(run)
    with Run.open(run) as opened:
        config = opened.config
        if config["data"]["name"] == "arrays":
            raise ValueError(
                f"{run} searched on arrays given in Python: go on with nas.search(..., run={str(run)!r})"
            )
        examples = load_data(config)
        if config["command"] == "search":
            from nas.cli.search import finish
        else:
            from nas.cli.train import finish
        finish(opened, examples, quiet=quiet, as_json=json)
