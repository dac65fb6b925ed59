"""nas prune"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from nas.cli import options as o
from nas.cli.errors import say

Kind = Annotated[str, typer.Option("--kind", help="structured (whole channels) | magnitude (single weights)")]
Amount = Annotated[float, typer.Option(help="the part that is removed, between 0 and 1")]
Steps = Annotated[int, typer.Option(help="cuts, each of the same part of what is left")]
Epochs = Annotated[int, typer.Option(help="of training after each cut")]


def command(
    run: o.RunFolder,
    kind: Kind = "structured",
    amount: Amount = 0.5,
    steps: Steps = 3,
    epochs: Epochs = 2,
    config: o.Config = None,
    set_: o.Set = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.pruning import Plan, prune
    from nas.subject import trained

    plan = Plan(kind, amount, steps, epochs)
    settings = o.sections(config, set_, "train")["train"]
    source = trained(run)
    if source is None:
        raise ValueError(f"{run} has no trained network: `nas train {run}` trains its best one")
    from nas.cli.progress import Show
    from nas.documents import read_yaml
    from nas.pruning.curve import short
    from nas.run import CONFIG
    from nas.train import available
    from nas.training import load_data

    asked = read_yaml(source / CONFIG)
    where, data = available(device or asked["device"]), load_data(asked, root=data_dir)

    class Rows(Show):
        """Shows each step when it is done."""

        def event(self, event: Mapping[str, Any]) -> None:
            super().event(event)
            if event["kind"] == "step":
                self.console.print(
                    f"step {event['step']}  {100 * event['gone']:.1f} % gone  {short(event['params'])} "
                    f"parameters  {short(event['macs'])} multiply-adds  "
                    f"test {100 * event['test_accuracy']:.2f} %"
                )

    with Rows(quiet=quiet) as show:
        result = prune(run, plan, data=data, settings=settings, device=where, watch=show)
    first, last = result["steps"][0], result["steps"][-1]
    if not quiet:
        say(f"files: {result['folder']}")
    sizes = [f"{first[size]:,} -> {last[size]:,}" for size in ("params", "macs")]
    scores = " -> ".join(f"{100 * row['test_accuracy']:.2f}" for row in (first, last))
    line = f"{sizes[0]} parameters, {sizes[1]} multiply-adds, test accuracy {scores} %"
    o.answer(result, line, as_json=json)
