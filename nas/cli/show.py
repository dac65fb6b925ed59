"""nas show"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as o
from nas.cli.errors import say


def command(
    what: o.What,
    svg: Annotated[Path | None, typer.Option(help="write the drawing to this file (.svg or .png)")] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.subject import identify

    subject = identify(what)
    if subject.architecture is None:
        raise ValueError(
            f"{what} is a hand-designed network, not a point of a space: read its file in baselines/"
        )
    from nas.report import save, text

    space = subject.space({})
    if svg is not None:
        save(space, subject.architecture, svg)
        if not quiet:
            say(f"wrote {svg}")
    figures, shape, classes = subject.cost()
    document = {
        **subject.architecture.to_dict(),
        **figures.to_dict(),
        "input": list(shape),
        "classes": classes,
    }
    lines = f"{subject.architecture}\n{text(space, subject.architecture)}"
    o.answer(document, lines, as_json=json)
