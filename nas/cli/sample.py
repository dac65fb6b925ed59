"""nas sample"""

from __future__ import annotations

import json as encoder
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options as o

if TYPE_CHECKING:
    from nas.search_space import SearchSpace


def command(
    space: Annotated[
        str, typer.Argument(help="search space: name | file.py:name | file.yaml", metavar="SPACE")
    ],
    n: Annotated[int, typer.Option("-n", min=1, help="how many")] = 1,
    seed: o.Seed = None,
    config: o.Config = None,
    set_: o.Set = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.counting import cost
    from nas.seeding import generator

    made = spaces(space, config, set_)[1]
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


def spaces(
    address: str, config: list[Path] | None, sets: list[str] | None
) -> tuple[SearchSpace, SearchSpace]:
    """A space at the scale of the search (section ``space``) and at the networks' (section ``network``)."""
    from nas.constraints import constrained, parted
    from nas.registry import absolute
    from nas.search_space import SPACES
    from nas.search_space import space as build

    given = o.sections(config, sets, "space", "network")
    own, bounds = parted(given["space"])
    searched = build(absolute(address), **own)
    scale = {**SPACES.facts(address).get("network", {}), **given["network"]}
    sized = build(searched.name, **scale)
    limited = [constrained(made, bounds, scale=sized.scale) for made in (searched, sized)]
    return limited[0], limited[1]
