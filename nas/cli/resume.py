"""nas resume"""

from __future__ import annotations

from nas.cli import options as o
from nas.cli.errors import at_work


def command(
    run: o.RunFolder,
    data_dir: o.DataDir = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.run import Run, check_run, of_one
    from nas.train import available
    from nas.training import load_data

    check_run(run)
    at_work(run)
    with Run.open(run) as opened:
        config = opened.config
        one = of_one(config)
        available(one["device"])
        examples = load_data(one, root=data_dir)
        if config["command"] == "seeds":
            from nas.cli.seeds import finish
        elif config["command"] == "search":
            from nas.cli.search import finish
        elif config["command"] == "compare":
            from nas.cli.compare import finish
        else:
            from nas.cli.train import finish
        finish(opened, examples, quiet=quiet, as_json=json)
