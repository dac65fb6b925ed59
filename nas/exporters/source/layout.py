"""Lines that fit: statements folded inside parentheses, docstrings cut at the end of a clause."""

from __future__ import annotations

import ast
import json
import re
import textwrap

COLUMNS = 110
HEADER = re.compile(
    r"^(?P<pad> *)(?P<start>def \w+)\(\n(?P<given>(?: +[^\n#]+,\n)+) *\)(?P<end>[^\n]*:)$", re.MULTILINE
)


def wrapped(line: str, *, indent: int) -> list[str]:
    """A statement, indented; one that is too long is folded inside parentheses."""
    pad = " " * indent
    if indent + len(line) <= COLUMNS:
        return [pad + line]
    head, mark, expression = line.partition("return " if line.startswith("return ") else " = ")
    if len(head) + indent + 4 > COLUMNS and mark == " = ":  # many targets
        targets = textwrap.wrap(head, COLUMNS - indent - 5, break_long_words=False, break_on_hyphens=False)
        last = wrapped(f"_ = {expression}", indent=indent)
        last[0] = f"{pad})" + last[0].removeprefix(f"{pad}_")
        return [f"{pad}(", *(f"{pad}    {row}" for row in targets[:-1]), f"{pad}    {targets[-1]},", *last]
    opening = f"{pad}{head}{mark}("
    inner = textwrap.wrap(expression, COLUMNS - indent - 4, break_long_words=False, break_on_hyphens=False)
    return [opening, *(f"{pad}    {part}" for part in inner), f"{pad})"]


def literal(value: object) -> str:
    """A value of numbers, texts, lists, tuples and dictionaries as it is written, in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(literal(item) for item in value)}]"
    if isinstance(value, tuple):
        return f"({', '.join(literal(item) for item in value)}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(key)}: {literal(item)}" for key, item in value.items()) + "}"
    return repr(value)


def clause(text: str, width: int) -> str:
    """As much of a line as fits, up to the end of a clause if it can be."""
    if len(text) <= width:
        return text
    end = max(text.rfind(mark, 0, width) for mark in (". ", ": ", "; ", ", "))
    return text[: end if end > 0 else text.rfind(" ", 0, width)]


def folded(text: str) -> str:
    """A definition in which headers fill their lines, and long assignments and returns are folded."""
    lines: list[str] = []
    for line in HEADER.sub(_filled, text).split("\n"):
        lines.extend([line] if len(line) <= COLUMNS else _shorter(line))
    return "\n".join(lines)


def _filled(header: re.Match[str]) -> str:
    """A header with one parameter a line, with as many a line as fit."""
    pad = header["pad"]
    given = " ".join(header["given"].split())
    inner = textwrap.wrap(given, COLUMNS - len(pad) - 4, break_long_words=False, break_on_hyphens=False)
    rows = "".join(f"\n{pad}    {row}" for row in inner)
    return f"{pad}{header['start']}({rows}\n{pad}){header['end']}"


def _shorter(line: str) -> list[str]:
    """The line in several; as it is where that is not sure to be the same."""
    body = line.lstrip()
    indent = len(line) - len(body)
    pad = " " * indent
    header = re.fullmatch(r"(def \w+)\((.*)\)( -> .*)?:", body)
    if header:
        rows = textwrap.wrap(header[2], COLUMNS - indent - 4, break_long_words=False, break_on_hyphens=False)
        return [f"{pad}{header[1]}(", *(f"{pad}    {row}" for row in rows), f"{pad}){header[3] or ''}:"]
    try:
        statement = ast.parse(body).body[0]
    except SyntaxError:
        return [line]
    plain = isinstance(statement, ast.Return | ast.Assign) and not re.search(r"[\"'#]", body)
    return wrapped(body, indent=indent) if plain else [line]
