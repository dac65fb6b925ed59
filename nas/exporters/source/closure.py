"""The source of a function with all that it needs from its own package, as one text that imports torch alone.

Definitions are taken from their files as they are written; only decorators that register, imports from the
package and all but the first line of docstrings are left out, and a name changes where two modules use it
differently.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from nas.exporters.job import ExportError
from nas.exporters.source.layout import COLUMNS, clause, folded
from nas.exporters.source.names import (
    ModuleSource,
    Origin,
    annotated,
    chain,
    free_names,
    imported_source,
    module_source,
    standard,
)


class Edit(NamedTuple):
    """Replace the bytes from `start` to `end` of a file."""

    start: int
    end: int
    text: str


class Closure:
    """Collects definitions, each after those it needs. `reserved` names are for others.

    `text` has them all, `imports` the lines that they need.
    """

    def __init__(self, reserved: set[str]) -> None:
        self._definitions: list[tuple[str, bool]] = []  # the text, and whether it is a block of its own
        self._imports: dict[str, str] = {}
        self._names: dict[Origin, str] = {}
        self._taken = set(reserved)
        self._emitted: set[tuple[str, int]] = set()

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
        """The definitions, those that are needed first."""
        groups = groupby(self._definitions, key=lambda definition: definition[1])
        return "\n\n\n".join(
            ("\n\n\n" if block else "\n").join(text for text, _ in group) for block, group in groups
        )

    @property
    def taken(self) -> set[str]:
        """Every name that is in use at the top level."""
        return self._taken | set(self._imports)

    def require(self, module: str, name: str | None = None) -> str:
        """Import a module, or a name from it; gives the name that it has in the text."""
        return self._use(Origin(module, name))

    def add(self, function: Callable[..., Any]) -> str:
        """Collect a top-level function or class; gives the name that it has in the text.

        Raises ExportError if its source, or that of something it uses, cannot stand alone.
        """
        function = inspect.unwrap(function)
        name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
        if not name.isidentifier() or module not in sys.modules:
            raise ExportError(
                f"format 'python' copies the source of top-level functions and classes, and {function!r} is "
                "none: define it with `def` at the top of a module, or export to onnx or torch"
            )
        origin = self._origin(module_source(module), name)
        assert origin is not None
        return self._use(origin)

    def _origin(self, source: ModuleSource, name: str) -> Origin | None:
        """Where a global name of a module is defined, followed through imports; None for a builtin."""
        if name in source.definitions:
            return Origin(source.name, name)
        if name in source.imports:
            module, attribute = source.imports[name]
            if standard(module) or attribute is None:
                return Origin(module, attribute)
            if f"{module}.{attribute}" in sys.modules and not _defines(module, attribute):
                return Origin(f"{module}.{attribute}", None)
            return self._origin(imported_source(module, importer=source.name), attribute)
        if hasattr(builtins, name) or name in ("__name__", "__file__"):
            return None
        if f"{source.name}.{name}" in sys.modules:
            return Origin(f"{source.name}.{name}", None)
        raise ExportError(
            f"format 'python': {source.name} uses {name!r}, whose definition is not found there: define it "
            "at the top of the module, or export to onnx or torch"
        )

    def _use(self, origin: Origin, alias: str = "") -> str:
        """The name in the text of what is at `origin`, which is collected if it is not there yet."""
        parent, dot, last = origin.module.rpartition(".")
        if dot and origin.name is None and standard(origin.module):
            origin = Origin(parent, last)
        if origin in self._names:
            return self._names[origin]
        wanted = alias or origin.name or origin.module.rpartition(".")[2]
        line = _import_line(origin, wanted) if standard(origin.module) else ""
        if line and self._imports.get(wanted) == line:
            name = wanted
        else:
            options = [wanted, *(f"{wanted}{i}" for i in range(2, 1000))]
            name = next(option for option in options if option not in self.taken)
        if not line and origin.name is None:
            raise ExportError(
                f"format 'python' copies definitions, and the module {origin.module!r} is used as a value: "
                "import the names it is used for, or export to onnx or torch"
            )
        self._names[origin] = name
        if line:
            self._imports[name] = _import_line(origin, name)
            return name
        self._taken.add(name)
        assert origin.name is not None
        source = module_source(origin.module)
        statement = source.definitions[origin.name]
        if (source.name, id(statement)) not in self._emitted:
            self._emitted.add((source.name, id(statement)))
            text = self._text(source, statement)
            self._definitions.append((text, isinstance(statement, ast.FunctionDef | ast.ClassDef)))
        return name

    def _text(self, source: ModuleSource, statement: ast.stmt) -> str:
        """The statement's source with its names as they are in the text."""
        edits = [*_docstrings(source, statement)]
        decorators: list[str] = []
        skipped: set[int] = set()
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            for decorator in statement.decorator_list:
                target = decorator.func if isinstance(decorator, ast.Call) else decorator
                root = chain(target)[0]
                origin = self._origin(source, root.id) if isinstance(root, ast.Name) else None
                if origin is None or standard(origin.module):
                    decorators.append(f"@{source.segment(decorator)}\n")
                else:
                    skipped.update(id(node) for node in ast.walk(decorator))
        hints = annotated(statement)
        for node in free_names(statement):
            if id(chain(node)[0]) in skipped:
                continue
            edit = self._edit(source, node, hint=id(node) in hints)
            if edit:
                edits.append(edit)
        edits.extend(self._defined(source, statement))
        start, end = source.span(statement)
        text = source.content[start:end]
        for edit in sorted(edits, reverse=True):
            if start <= edit.start and edit.end <= end:
                text = text[: edit.start - start] + edit.text.encode() + text[edit.end - start :]
        return folded("".join(decorators) + text.decode())

    def _edit(self, source: ModuleSource, node: ast.expr, *, hint: bool) -> Edit | None:
        """How a global name, perhaps with attributes, is to be written; None if it stays."""
        root, *attributes = chain(node)
        assert isinstance(root, ast.Name)
        try:
            origin = self._origin(source, root.id)
            if origin is None:
                return None
            used: ast.expr = root
            for attribute in attributes:
                if origin.name is not None or standard(origin.module):
                    break
                assert isinstance(attribute, ast.Attribute)
                found = self._origin(imported_source(origin.module, importer=source.name), attribute.attr)
                assert found is not None
                origin, used = found, attribute
            name = self._use(origin, root.id if standard(origin.module) and used is root else "")
        except ExportError:
            if not hint:
                raise
            return Edit(*source.span(node), "object")  # a type that only a checker needs
        start, end = source.span(used)
        return Edit(start, end, name) if source.content[start:end].decode() != name else None

    def _defined(self, source: ModuleSource, statement: ast.stmt) -> Iterator[Edit]:
        """The names that the statement itself defines, where they change."""
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            name = self._names.get(Origin(source.name, statement.name), statement.name)
            start, end = source.span(statement)
            match = re.match(rb"(?:def|class)\s+(\w+)", source.content[start:end])
            assert match is not None
            if name != statement.name:
                yield Edit(start + match.start(1), start + match.end(1), name)
            return
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = self._names.get(Origin(source.name, node.id), node.id)
                if name != node.id:
                    yield Edit(*source.span(node), name)


def _defines(module: str, name: str) -> bool:
    return name in module_source(module).definitions


def _import_line(origin: Origin, name: str) -> str:
    line = f"import {origin.module}" if origin.name is None else f"from {origin.module} import {origin.name}"
    return line if name == (origin.name or origin.module) else f"{line} as {name}"


def _docstrings(source: ModuleSource, statement: ast.stmt) -> Iterator[Edit]:
    """Docstrings of several lines become their first one."""
    for node in ast.walk(statement):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) or not node.body:
            continue
        first = node.body[0]
        if (
            isinstance(first, ast.Expr)
            and isinstance(first.value, ast.Constant)
            and isinstance(first.value.value, str)
        ):
            match = re.match(r'([rRuU]?)("""|\'\'\')\s*(.*)', source.segment(first))
            if match:
                line = match[3].rstrip().removesuffix(match[2])
                brief = clause(line, COLUMNS - first.col_offset - 7)
                yield Edit(*source.span(first), f"{match[1]}{match[2]}{brief}{match[2]}")
