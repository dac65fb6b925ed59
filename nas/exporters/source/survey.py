"""Everything that a definition needs, found before anything is named or written."""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from nas.exporters.job import ExportError
from nas.exporters.source.names import (
    ModuleSource,
    Origin,
    annotated,
    bound_names,
    chain,
    free_names,
    imported_source,
    module_source,
    standard,
)


class Span(NamedTuple):
    """The bytes from `start` to `end` of a file."""

    start: int
    end: int


class Use(NamedTuple):
    """A global name in a definition: where it stands, how it is written there and what it means.

    `origin` is None for a type that cannot be copied and that only a checker needs.
    """

    span: Span
    written: str
    origin: Origin | None


@dataclass(frozen=True)
class Definition:
    """A statement at the top of a module.

    Attributes:
        source, statement: where it is.
        uses: the global names in it, but for builtins.
        cuts: what is left out of it, decorators that register and the like.
    """

    source: ModuleSource
    statement: ast.stmt
    uses: tuple[Use, ...]
    cuts: tuple[Span, ...]

    @property
    def block(self) -> bool:
        """Whether it is a function or a class."""
        return isinstance(self.statement, ast.FunctionDef | ast.ClassDef)

    @property
    def span(self) -> Span:
        """The statement with its decorators."""
        start, end = self.source.span(self.statement)
        if decorators := getattr(self.statement, "decorator_list", ()):
            start = self.source.starts[decorators[0].lineno - 1]
        return Span(start, end)


@dataclass
class Survey:
    """All that was reached.

    Attributes:
        definitions: what is to be copied; torch and the standard library are imported.
        written: the names that each origin has where it is used, in the order of discovery.
        captured: the names that an origin must not get: a definition that calls it otherwise has variables of
            these names.
        builtins: those that are used; nothing else may have their names.
    """

    definitions: dict[Origin, Definition] = field(default_factory=dict)
    written: dict[Origin, dict[str, None]] = field(default_factory=dict)
    captured: dict[Origin, set[str]] = field(default_factory=dict)
    builtins: set[str] = field(default_factory=set)
    _open: set[Origin] = field(default_factory=set)
    _failed: dict[Origin, ExportError] = field(default_factory=dict)

    def reach(self, origin: Origin) -> None:
        """Take in a definition with all that it needs.

        Raises ExportError if it, or something that it needs, cannot stand alone.
        """
        if standard(origin.module) or origin in self.definitions or origin in self._open:
            return
        if origin in self._failed:
            raise self._failed[origin]
        self._open.add(origin)
        try:
            self.definitions[origin] = self._definition(origin)
        except ExportError as error:
            self._failed[origin] = error
            raise
        finally:
            self._open.remove(origin)

    def _definition(self, origin: Origin) -> Definition:
        if origin.name is None:
            raise ExportError(
                f"format 'python' copies definitions, and the module {origin.module!r} is used as a value: "
                "import the names it is used for, or export to onnx or torch"
            )
        source = module_source(origin.module)
        statement = source.definitions[origin.name]
        cuts = (*self._registrations(source, statement), *self._metadata(source, statement))
        hints, bound = annotated(statement), bound_names(statement)
        uses: list[Use] = []
        for node in free_names(statement):
            start, _ = source.span(node)
            if not any(cut.start <= start < cut.end for cut in cuts):
                uses.extend(self._use(source, node, hint=id(node) in hints))
        for use in uses:
            if use.origin is not None:
                self.written.setdefault(use.origin, {})[use.written] = None
                self.captured.setdefault(use.origin, set()).update(bound - {use.written})
        return Definition(source, statement, tuple(uses), cuts)

    def _registrations(self, source: ModuleSource, statement: ast.stmt) -> Iterator[Span]:
        """The lines of the decorators that come neither from torch nor from the standard library."""
        for decorator in getattr(statement, "decorator_list", ()):
            root = chain(decorator.func if isinstance(decorator, ast.Call) else decorator)[0]
            found = self.origin(source, root.id) if isinstance(root, ast.Name) else None
            if found is not None and not standard(found.module):
                yield Span(source.starts[decorator.lineno - 1], source.starts[decorator.end_lineno])

    def _metadata(self, source: ModuleSource, statement: ast.stmt) -> Iterator[Span]:
        """All but the type in ``Annotated[type, ...]``."""
        for node in ast.walk(statement):
            if not (isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple)):
                continue
            if isinstance(node.value, ast.Name) and source.imports.get(node.value.id) == (
                "typing",
                "Annotated",
            ):
                (start, end), (first, last) = source.span(node), source.span(node.slice.elts[0])
                yield from (Span(start, first), Span(last, end))

    def _use(self, source: ModuleSource, node: ast.expr, *, hint: bool) -> Iterator[Use]:
        """What a name, perhaps with attributes, means: nothing for a builtin."""
        root, *attributes = chain(node)
        assert isinstance(root, ast.Name)
        try:
            found = self.origin(source, root.id)
            if found is None:
                self.builtins.add(root.id)
                return
            used: ast.expr = root
            for attribute in attributes:
                if found.name is not None or standard(found.module):
                    break
                assert isinstance(attribute, ast.Attribute)
                inner = self.origin(imported_source(found.module, importer=source.name), attribute.attr)
                assert inner is not None
                found, used = inner, attribute
            self.reach(found)
        except ExportError:
            if not hint:
                raise
            yield Use(Span(*source.span(node)), "", None)
        else:
            span = Span(*source.span(used))
            yield Use(span, source.content[span.start : span.end].decode(), found)

    def origin(self, source: ModuleSource, name: str) -> Origin | None:
        """Where a global name of a module is defined, followed through imports; None for a builtin."""
        if name in source.definitions:
            return Origin(source.name, name)
        if name in source.imports:
            module, attribute = source.imports[name]
            if standard(module) or attribute is None:
                return _plain(Origin(module, attribute))
            if f"{module}.{attribute}" in sys.modules and attribute not in module_source(module).definitions:
                return Origin(f"{module}.{attribute}", None)
            return self.origin(imported_source(module, importer=source.name), attribute)
        if hasattr(builtins, name) or name in ("__name__", "__file__"):
            return None
        if f"{source.name}.{name}" in sys.modules:
            return Origin(f"{source.name}.{name}", None)
        raise ExportError(
            f"format 'python': {source.name} uses {name!r}, whose definition is not found there: define it "
            "at the top of the module, or export to onnx or torch"
        )


def _plain(origin: Origin) -> Origin:
    """``import torch.nn as nn`` is ``from torch import nn``."""
    parent, dot, last = origin.module.rpartition(".")
    return Origin(parent, last) if dot and origin.name is None and standard(origin.module) else origin
