"""nas lint"""

from __future__ import annotations

import json as encoder
from typing import Annotated

import typer

from nas.cli import options as o

MARKS = {"fact": " ", "warning": "!", "error": "x"}


def command(
    space: Annotated[
        str, typer.Argument(help="search space: name | file.py:name | file.yaml", metavar="SPACE")
    ],
    samples: Annotated[int, typer.Option(min=2, help="architectures to look at")] = 50,
    seed: o.Seed = None,
    config: o.Config = None,
    set_: o.Set = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.cli.sample import spaces
    from nas.lint import Linter

    searched, sized = spaces(space, config, set_)
    found = list(Linter(searched, sized, samples, seed or 0).findings())
    if json:
        print(encoder.dumps([finding.to_dict() for finding in found]))
    else:
        width = max(len(finding.topic) for finding in found)
        for finding in found:
            print(f"{MARKS[finding.kind]} {finding.topic:<{width}}  {finding.text}")
    errors = sum(finding.kind == "error" for finding in found)
    if errors:
        raise typer.Exit(1)
