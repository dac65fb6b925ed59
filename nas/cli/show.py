"""nas show"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import options as o
from nas.cli.errors import say

if TYPE_CHECKING:
    from nas.graph import Shape
    from nas.report import Outline
    from nas.subject import Subject

WIDEST = 110  # columns: on a wider terminal the figures would stand far from their names


def command(
    what: o.What,
    svg: Annotated[Path | None, typer.Option(help="write the picture to this file (.svg or .png)")] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.report import save
    from nas.search_space.joint import told
    from nas.subject import identify

    subject = identify(what)
    figures, shape, classes = subject.cost()
    seen = _outline(subject, shape)
    if svg is not None:
        save(seen, svg)
        if not quiet:
            say(f"wrote {svg}")
    named = subject.architecture.to_dict() if subject.architecture else {"name": subject.name}
    if json:
        document = {**named, **figures.to_dict(), "input": list(shape), "classes": classes}
        o.answer(document, "", as_json=True)
        return
    print(subject.architecture or subject.name, flush=True)
    if subject.architecture and subject.architecture.recipe:
        print(f"trained with {told(subject.architecture.recipe)}", flush=True)
    _print(seen)


def _outline(subject: Subject, shape: Shape) -> Outline:
    from nas.report import module_outline, outline

    if subject.architecture is not None:
        return outline(subject.space({}), subject.architecture)
    import torch

    with torch.device("meta"):
        network = subject.build()
    return module_outline(network, input=shape, title=subject.name)


def _print(seen: Outline) -> None:
    """The tree: in colour in a terminal, and as wide as it allows; plain elsewhere."""
    from nas.report import text, tree

    width = min(WIDEST, shutil.get_terminal_size((WIDEST - 10, 24)).columns)
    if not sys.stdout.isatty():
        print(text(seen, width=width), flush=True)
        return
    from rich.console import Console

    Console(width=width).print(tree(seen, width=width))
