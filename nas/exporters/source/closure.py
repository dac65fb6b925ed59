"""The source of functions with all that they need from their own packages: a text that imports torch alone.

Definitions are taken from their files as they are written. Left out are decorators that register, imports
from the packages, notes to the type checker and the formatter, and all but the first sentence of docstrings.
A name changes where two modules use it differently, or where it would meet a variable of the same name.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from nas.exporters.job import ExportError
from nas.exporters.source.layout import docstring, folded, unmarked
from nas.exporters.source.names import ModuleSource, Origin, module_source, standard
from nas.exporters.source.survey import Definition, Span, Survey


class Edit(NamedTuple):
    """Replace a span of a file."""

    span: Span
    text: str


class Closure:
    """Names and writes functions and classes, each after those it needs.

    Args:
        functions: all that may be asked for; each is defined at the top of a module.
        imports: (module, name in it or None) that the text has in any case, under their own names.
        reserved: names that are for others.

    Raises ExportError if the source of a function, or of something it uses, cannot stand alone.
    """

    def __init__(
        self,
        functions: Iterable[Callable[..., Any]],
        *,
        imports: Iterable[tuple[str, str | None]],
        reserved: Collection[str],
    ) -> None:
        self._survey = Survey()
        self._definitions: list[tuple[str, bool]] = []  # the text, and whether it is a block of its own
        self._imports: dict[str, str] = {}
        self._names: dict[Origin, str] = {}
        self._constants: dict[str, str] = {}  # their text -> the name that it has
        for function in functions:
            self._survey.reach(self._origin(function))
        self._taken = {*reserved, *self._survey.builtins}
        for module, name in imports:
            origin = Origin(module, name)
            self._names[origin] = name or module
            self._imports[name or module] = _import_line(origin, name or module)

    @property
    def imports(self) -> str:
        """The import lines that the definitions need: the standard library, a blank line, torch."""
        plain = sorted(line for line in self._imports.values() if not line.startswith("from "))
        members: dict[str, list[str]] = {}
        for line in sorted(self._imports.values()):
            if line.startswith("from "):
                module, _, name = line.removeprefix("from ").partition(" import ")
                members.setdefault(module, []).append(name)
        lines = [*plain, *(f"from {module} import {', '.join(names)}" for module, names in members.items())]
        ours = [line for line in lines if line.split()[1].partition(".")[0] == "torch"]
        others = [line for line in lines if line not in ours]
        return "\n".join([*others, "", *ours] if others else ours)

    @property
    def text(self) -> str:
        """The definitions that were named, those that are needed first."""
        groups = groupby(self._definitions, key=lambda definition: definition[1])
        return "\n\n\n".join(
            ("\n\n\n" if block else "\n").join(text for text, _ in group) for block, group in groups
        )

    @property
    def taken(self) -> set[str]:
        """Every name that is in use at the top level."""
        return self._taken | set(self._imports)

    def name(self, function: Callable[..., Any]) -> str:
        """The name in the text of one of the functions; from now on the text has it."""
        return self._name(self._origin(function))

    def _origin(self, function: Callable[..., Any]) -> Origin:
        function = inspect.unwrap(function)
        name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
        if not name.isidentifier() or module not in sys.modules:
            raise ExportError(
                f"format 'python' copies the source of top-level functions and classes, and {function!r} is "
                "none: define it with `def` at the top of a module, or export to onnx or torch"
            )
        origin = self._survey.origin(module_source(module), name)
        assert origin is not None
        return origin

    def _name(self, origin: Origin) -> str:
        """The name in the text of what is at `origin`, which is written if it is not there yet."""
        if origin in self._names:
            return self._names[origin]
        if standard(origin.module):
            name = self._names[origin] = self._free(origin)
            self._imports[name] = _import_line(origin, name)
            return name
        definition = self._survey.definitions[origin]
        constant = self._constant(definition)
        same = self._constants.get(constant, "")
        if same and same not in self._survey.captured.get(origin, ()):
            self._names[origin] = same
            return same
        source = definition.source
        for name, statement in source.definitions.items():
            if statement is definition.statement:
                each = Origin(source.name, name)
                self._names[each] = self._free(each)
                self._taken.add(self._names[each])
        if constant:
            self._constants[constant] = self._names[origin]
        text = folded(unmarked(self._text(definition, definition.span)))
        self._definitions.append((text, definition.block))
        return self._names[origin]

    def _free(self, origin: Origin) -> str:
        """A name that nothing has yet and that no variable hides: its own, or what it is called somewhere."""
        own = origin.name or origin.module.rpartition(".")[2]
        called = [name for name in self._survey.written.get(origin, ()) if name.isidentifier()]
        first, *others = [*called, own] if standard(origin.module) else [own, *called]
        options = [first, *others, *(f"{first}{i}" for i in range(2, 1000))]
        hidden = self._survey.captured.get(origin, set())
        return next(name for name in options if name not in self.taken and name not in hidden)

    def _constant(self, definition: Definition) -> str:
        """A constant whose value cannot change, as text; two modules may share it. Else nothing."""
        statement = definition.statement
        fixed = ast.Constant | ast.Subscript | ast.Tuple | ast.Name | ast.Attribute | ast.BinOp
        if not (isinstance(statement, ast.Assign) and isinstance(statement.value, fixed)):
            return ""
        names = ", ".join(ast.unparse(target) for target in statement.targets)
        return f"{names} = {self._text(definition, Span(*definition.source.span(statement.value)))}"

    def _text(self, definition: Definition, span: Span) -> str:
        """A part of a definition with its names as they are in the text."""
        edits = [Edit(cut, "") for cut in definition.cuts]
        edits += _docstrings(definition.source, definition.statement)
        edits += self._defined(definition)
        edits += [
            Edit(use.span, self._name(use.origin) if use.origin else "object") for use in definition.uses
        ]
        text = definition.source.content[span.start : span.end]
        for (start, end), new in sorted(edits, reverse=True):
            if span.start <= start and end <= span.end:
                text = text[: start - span.start] + new.encode() + text[end - span.start :]
        return text.decode()

    def _defined(self, definition: Definition) -> Iterator[Edit]:
        """The names that the statement itself defines."""
        source, statement = definition.source, definition.statement
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            start, end = source.span(statement)
            match = re.match(rb"(?:def|class)\s+(\w+)", source.content[start:end])
            assert match is not None
            span = Span(start + match.start(1), start + match.end(1))
            yield Edit(span, self._names[Origin(source.name, statement.name)])
            return
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = self._names.get(
                    Origin(source.name, node.id), node.id
                )  # variables of comprehensions stay
                yield Edit(Span(*source.span(node)), name)


def _import_line(origin: Origin, name: str) -> str:
    line = f"import {origin.module}" if origin.name is None else f"from {origin.module} import {origin.name}"
    return line if name == (origin.name or origin.module) else f"{line} as {name}"


def _docstrings(source: ModuleSource, statement: ast.stmt) -> Iterator[Edit]:
    """Docstrings become their first sentence."""
    for node in ast.walk(statement):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) or not node.body:
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            match = re.fullmatch(r'([rRuU]?)("""|\'\'\'|"|\')(.*)\2', source.segment(first), re.DOTALL)
            if match and isinstance(first.value.value, str):
                brief = docstring(match[3], indent=first.col_offset)
                yield Edit(Span(*source.span(first)), f"{match[1]}{brief}")
