"""What the pages about runs have in common: tables, pictures beside the page, times in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nas.report.checklist import words
from nas.report.ledger import Record
from nas.report.scene import rendered

if TYPE_CHECKING:
    from typing import Any

    from matplotlib.figure import Figure

PICTURES = "report"


def table_of(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; what stands in a cell is taken as it is, but for bars."""
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def picture(run: Record, name: str, drawn: Figure) -> str:
    """Write a picture into the run's folder and return its path as the page links it."""
    folder = run.folder / PICTURES
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.svg").write_bytes(rendered(drawn, kind="svg"))
    return f"{PICTURES}/{name}.svg"


def environment(run: Record) -> str:
    """The section about versions, hardware and data."""
    lines = [(key, f"`{value}`") for key, value in _leaves(run.environment)]
    return f"## Environment\n\n{table_of(('', ''), lines)}" if lines else ""


def onwards(commands: Sequence[str]) -> str:
    """The section that says which commands come next."""
    return "## How to go on\n\n```\n" + "\n".join(commands) + "\n```"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _leaves(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as dotted keys and texts."""
    found: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", words(value)))
    return found
