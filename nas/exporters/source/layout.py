"""Lines that fit: statements folded inside parentheses, docstrings of one sentence."""

from __future__ import annotations

import ast
import io
import json
import re
import textwrap
import tokenize
from collections.abc import Sequence

COLUMNS = 110
QUOTES = ('"', "\\")  # what must not stand before a docstring's end
NOTE = re.compile(r"# *(type: *ignore|fmt: *(off|on|skip)|pragma:)")
SENTENCE = re.compile(r"(?<!\bet al)(?<!\be\.g)(?<!\bi\.e)(?<!\b[A-Z])\. +(?=[A-Z`'\"(])")
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


def docstring(text: str, *, indent: int) -> str:
    """The first sentence of a docstring in its quotes, on as many lines as it needs.

    Args:
        text: what stands between the quotes, as it is written.
        indent: of the statement.
    """
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    end = SENTENCE.search(paragraph)
    sentence = paragraph[: end.start() + 1] if end else paragraph
    room = COLUMNS - indent - 6
    if len(sentence) < room:
        return f'"""{sentence}{" " if sentence.endswith(QUOTES) else ""}"""'
    rows = textwrap.wrap(sentence, COLUMNS - indent - 3, break_long_words=False, break_on_hyphens=False)
    return '"""' + "\n".join([rows[0], *(f"{' ' * indent}{row}" for row in [*rows[1:], '"""'])])


def unmarked(text: str) -> str:
    """The text without notes to the type checker and the formatter."""
    lines = text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and NOTE.match(token.string):
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines)


def called(name: str, arguments: Sequence[str], *, indent: int) -> list[str]:
    """``return name(arguments)``, on as many lines as it needs."""
    pad = " " * indent
    line = f"{pad}return {name}({', '.join(arguments)})"
    if len(line) <= COLUMNS:
        return [line]
    return [f"{pad}return {name}(", *_packed(arguments, indent=indent + 4), f"{pad})"]


def folded(text: str) -> str:
    """A definition in which headers fill their lines, and long assignments and returns are folded."""
    lines: list[str] = []
    for line in HEADER.sub(_filled, text).split("\n"):
        lines.extend([line] if len(line) <= COLUMNS else _shorter(line))
    return "\n".join(lines)


def _filled(header: re.Match[str]) -> str:
    """A header with one parameter a line, with as many a line as fit."""
    pad = header["pad"]
    given = [line.strip().removesuffix(",") for line in header["given"].splitlines()]
    return "\n".join(
        [f"{pad}{header['start']}(", *_packed(given, indent=len(pad) + 4), f"{pad}){header['end']}"]
    )


def _packed(items: Sequence[str], *, indent: int) -> list[str]:
    """Items with a comma after each, as many a line as fit."""
    rows = [""]
    for item in items:
        if rows[-1] and indent + len(rows[-1]) + len(item) + 2 > COLUMNS:
            rows.append("")
        rows[-1] += f" {item}," if rows[-1] else f"{item},"
    return [f"{' ' * indent}{row}" for row in rows]


def _shorter(line: str) -> list[str]:
    """The line in several; as it is where that is not sure to be the same."""
    body = line.lstrip()
    indent = len(line) - len(body)
    pad = " " * indent
    header = re.fullmatch(r"(def \w+)\((.*)\)( -> .*)?:", body)
    if header:
        rows = _packed(_parts(header[2]), indent=indent + 4)
        return [f"{pad}{header[1]}(", *rows, f"{pad}){header[3] or ''}:"]
    try:
        statement = ast.parse(body).body[0]
    except SyntaxError:
        return [line]
    plain = isinstance(statement, ast.Return | ast.Assign) and not re.search(r"[\"'#]", body)
    return wrapped(body, indent=indent) if plain else [line]


def _parts(parameters: str) -> list[str]:
    """The parameters of a header, which commas outside of all brackets separate."""
    parts, depth = [""], 0
    for character in parameters:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
