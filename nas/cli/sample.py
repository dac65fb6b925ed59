"""nas sample"""

from __future__ import annotations

import json as encoder
from typing import Annotated

import typer

from nas.cli import options as o
from nas.cli.cost import network_scale


def command(
    space: Annotated[str, typer.Argument(help="search space: name | file.py:name", metavar="SPACE")],
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 1,
    seed: o.Seed = None,
    config: o.Config = None,
    set_: o.Set = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.counting import cost
    from nas.search_space import SPACES
    from nas.search_space import space as build
    from nas.seeding import generator

    scale = {**SPACES.facts(space).get("network", {}), **network_scale(config, set_, None, None)}
    made = build(space, **scale)
    found = [made.sample(generator(seed or 0, "sample", number)) for number in range(n)]
    if not json:
        for architecture in found:
            print(architecture.literal)
        return
    rows = []
    for architecture in found:
        figures = cost(made.fill(architecture))
        identity = {"literal": architecture.literal, "digest": architecture.digest}
        rows.append({**identity, "params": figures.params, "macs": figures.macs})
    print(encoder.dumps(rows))
