"""tree(), text(): an outline for the terminal: stages > cells and layers > what is in them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nas.report.comparison import quantity
from nas.report.items import Figures, Item, Outline, Shape, total

if TYPE_CHECKING:
    from rich.table import Table

LEAST = 24  # columns for names, in the narrowest terminal
GAP = 2  # columns between columns
Entry = tuple[str, str, Shape, Figures, str]  # guide, text, shape, cost, style


def tree(outline: Outline, *, width: int) -> Table:
    """The outline as a table of `width` columns, for a rich console."""
    from rich.table import Table
    from rich.text import Text

    entries = list(_entries(outline))
    headings = ["output", "params", "mult-adds", *(["attention"] if outline.cost.attention else [])]
    rows = [numbers(shape, cost)[: len(headings)] for _, _, shape, cost, _ in entries]
    taken = sum(max(map(len, column)) + GAP for column in zip(headings, *rows, strict=True))
    made = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, width=width)
    folded = any(item.count > 1 for item in outline.items)
    note = "xN: figures of all N together" if folded else ""
    made.add_column(Text(note, style="dim"), no_wrap=True, ratio=1)
    for heading in headings:
        made.add_column(heading, justify="right", no_wrap=True)
    for (guide, words, _, _, style), row in zip(entries, rows, strict=True):
        lines = _wrapped(guide, words, max(LEAST, width - taken))
        name = Text("\n").join(Text.assemble((lead, "dim"), (line, style)) for lead, line in lines)
        made.add_row(name, *(Text(number, style=style) for number in row))
    return made


def text(outline: Outline, *, width: int = 100) -> str:
    """The same as plain text."""
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(tree(outline, width=width))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def size(shape: Shape) -> str:
    """``64x8x8``; ``192x197`` for so many tokens; ``10`` for what has neither height nor width."""
    ones = len(shape) - len([side for side in shape[1:] if side != 1]) - 1 if shape else 0
    return "x".join(map(str, shape[: len(shape) - ones] if shape[-1:] == (1,) else shape))


def stage_name(shape: Shape) -> str:
    """What the outputs of a stage have in common: ``32x32``, ``197 tokens``, ``head``."""
    sides = [side for side in shape[1:] if side != 1]
    return "head" if not sides else size(tuple(shape[1:])) if len(sides) > 1 else f"{sides[0]} tokens"


def _wrapped(guide: str, words: str, width: int) -> list[tuple[str, str]]:
    """The lines of an entry, each with the guide before it."""
    lines = textwrap.wrap(words, max(8, width - len(guide)), subsequent_indent="  ") or [""]
    hanging = guide.replace("├─", "│ ").replace("└─", "  ")
    return [(hanging if place else guide, line) for place, line in enumerate(lines)]


def _entries(outline: Outline) -> Iterator[Entry]:
    for first, stop in outline.stages():
        items = outline.items[first:stop]
        shown = [place for place in range(first, stop) if outline.items[place].kind != "join"]
        if len(shown) > 1:
            yield "", stage_name(items[0].shape), (), total(items), "bold"
        for place in shown:
            single, last = len(shown) == 1, place == shown[-1]
            guide, behind = ("", "") if single else ("└─ ", "   ") if last else ("├─ ", "│  ")
            yield from _item(outline, place, guide, behind)
    yield "", "total", (), outline.cost, "bold"


def _item(outline: Outline, place: int, guide: str, behind: str) -> Iterator[Entry]:
    item = outline.items[place]
    yield guide, _words(item) + _origin(outline, place), item.shape, item.cost, ""
    for i, line in enumerate(item.lines):
        open_ = any(later.depth <= line.depth for later in item.lines[i + 1 :])
        corner = "├─ " if open_ else "└─ "
        yield behind + "   " * line.depth + corner, line.label, line.shape, line.cost, "dim"


def _words(item: Item) -> str:
    """What an item is, how often, and what is done to its size."""
    named = item.label if item.kind == "cell" or item.name == item.label else f"{item.name}  {item.label}"
    marks = [
        item.detail,
        f"stride {item.stride}" if item.stride > 1 else "",
        "+ its input" if item.residual else "",
    ]
    told = ", ".join(mark for mark in marks if mark)
    return named + (f" x{item.count}" if item.count > 1 else "") + (f" ({told})" if told else "")


def _origin(outline: Outline, place: int) -> str:
    """What an item reads, where that is not the item before it alone."""
    item = outline.items[place]
    before = [i for i in range(place) if outline.items[i].kind != "join"][-1:]
    if (item.kind == "cell" and not item.chained) or _sources(outline, place) == before:
        return ""
    return " <- " + ", ".join(_term(outline, source) for source in item.reads)


def _sources(outline: Outline, place: int) -> list[int]:
    """The items that an item reads through nothing but joins."""
    found: list[int] = []
    for source in outline.items[place].reads:
        found += _sources(outline, source) if outline.items[source].kind == "join" else [source]
    return found


def _term(outline: Outline, place: int) -> str:
    item = outline.items[place]
    if item.kind != "join":
        return item.name
    terms = [_term(outline, source) for source in item.reads]
    return " + ".join(terms) if item.label == "sum" else f"{item.label}({', '.join(terms)})"


def numbers(shape: Shape, cost: Figures) -> Sequence[str]:
    """Shape, parameters, multiply-adds and those of attention as they are printed; "" for none."""
    counts = (cost.params, cost.macs, cost.attention)
    return [size(shape), *(quantity(float(count)) if count else "" for count in counts)]
