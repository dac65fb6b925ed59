"""The names of a module: what it defines and imports, and what a definition reads from outside itself."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import resolve_name
from itertools import accumulate
from typing import NamedTuple

from nas.exporters.job import ExportError


class Origin(NamedTuple):
    """A definition in a module; the module itself if `name` is None."""

    module: str
    name: str | None


@dataclass(frozen=True, eq=False)
class ModuleSource:
    """A module's file. `definitions`: name -> statement; `imports`: name -> (module, name in it or None)."""

    name: str
    content: bytes
    starts: tuple[int, ...]
    definitions: Mapping[str, ast.stmt]
    imports: Mapping[str, tuple[str, str | None]]

    def span(self, node: ast.stmt | ast.expr) -> tuple[int, int]:
        """The bytes that a node takes, without decorators."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def segment(self, node: ast.stmt | ast.expr) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.content[start:end].decode()


def standard(module: str) -> bool:
    """Whether an exported file may import it: torch and the standard library."""
    root = module.partition(".")[0]
    return root == "torch" or root in sys.stdlib_module_names


def imported_source(name: str, *, importer: str) -> ModuleSource:
    """The source of a module that another one imports.

    Raises ExportError if it is an installed package, other than this framework and the importer's own.
    """
    root = name.partition(".")[0]
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    own = root in ("nas", "baselines", importer.partition(".")[0])
    if name not in sys.modules or (not own and ("site-packages" in path or "dist-packages" in path)):
        raise ExportError(
            f"format 'python' writes a file that imports torch alone, and the network uses {name!r}: replace "
            "that by torch, or export to onnx or torch"
        )
    return module_source(name)


@functools.cache
def module_source(name: str) -> ModuleSource:
    """The source of a module. Raises ExportError if it has none."""
    module = sys.modules[name]
    try:
        content = inspect.getsource(module).encode()
    except (OSError, TypeError) as error:
        raise ExportError(f"format 'python': the module {name!r} has no source to copy") from error
    tree = ast.parse(content)
    package = getattr(module, "__package__", None) or ""
    definitions: dict[str, ast.stmt] = {}
    for statement in tree.body:
        definitions.update((defined, statement) for defined in _defined(statement))
    starts = (0, *accumulate(len(line) for line in content.splitlines(keepends=True)))
    return ModuleSource(name, content, starts, definitions, dict(_imports(tree.body, package)))


def _defined(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return []


def _imports(body: Iterable[ast.stmt], package: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    for statement in body:
        if isinstance(statement, ast.If | ast.Try):
            yield from _imports(statement.body, package)
        elif isinstance(statement, ast.Import):
            for alias in statement.names:
                yield (alias.asname, (alias.name, None)) if alias.asname else (
                    alias.name.partition(".")[0], (alias.name.partition(".")[0], None)
                )  # fmt: skip
        elif isinstance(statement, ast.ImportFrom):
            relative = "." * statement.level + (statement.module or "")
            module = resolve_name(relative, package) if statement.level else relative
            for alias in statement.names:
                yield alias.asname or alias.name, (module, alias.name)


def chain(node: ast.expr) -> list[ast.expr]:
    """``a.b.c`` as its parts, the root first; a node that is no attribute is its own root."""
    parts = [node]
    while isinstance(parts[0], ast.Attribute):
        parts.insert(0, parts[0].value)
    return parts


def annotated(statement: ast.stmt) -> set[int]:
    """The ids of all nodes that stand in an annotation."""
    hints: list[ast.expr | None] = []
    for node in ast.walk(statement):
        if isinstance(node, ast.arg | ast.AnnAssign):
            hints.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            hints.append(node.returns)
    return {id(inner) for hint in hints if hint is not None for inner in ast.walk(hint)}


def free_names(node: ast.AST, bound: frozenset[str] = frozenset()) -> Iterator[ast.expr]:
    """The names, with the attributes taken from them, that a definition reads from outside itself."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        yield from _free_in_function(node, bound)
    elif isinstance(node, ast.ClassDef):
        for outer in (*node.decorator_list, *node.bases, *node.keywords):
            yield from free_names(outer, bound)
        own = bound | _stored(node.body)
        for statement in node.body:  # methods do not see the names of the class
            is_method = isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            yield from free_names(statement, bound if is_method else own)
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
        inner = bound | _stored([generator.target for generator in node.generators])
        for child in ast.iter_child_nodes(node):
            yield from free_names(child, inner)
    elif isinstance(node, ast.Name | ast.Attribute):
        root = chain(node)[0]
        if not isinstance(root, ast.Name):
            yield from free_names(root, bound)
        elif isinstance(root.ctx, ast.Load) and root.id not in bound:
            yield node
    else:
        for child in ast.iter_child_nodes(node):
            yield from free_names(child, bound)


def _free_in_function(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, bound: frozenset[str]
) -> Iterator[ast.expr]:
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    arguments = [
        *node.args.posonlyargs,
        *node.args.args,
        *node.args.kwonlyargs,
        node.args.vararg,
        node.args.kwarg,
    ]
    outer: list[ast.AST | None] = [*node.args.defaults, *node.args.kw_defaults]
    outer += [argument.annotation for argument in arguments if argument]
    if not isinstance(node, ast.Lambda):
        outer += [*node.decorator_list, node.returns]
    for child in outer:
        if child is not None:
            yield from free_names(child, bound)
    inner = bound | {argument.arg for argument in arguments if argument} | _stored(body)
    for child in body:
        yield from free_names(child, inner)


def _stored(body: Iterable[ast.AST]) -> frozenset[str]:
    """The names that are bound in a body, not counting the functions and classes inside it."""
    names: set[str] = set()
    todo = list(body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
        if not isinstance(node, ast.Lambda):
            todo.extend(ast.iter_child_nodes(node))
    return frozenset(names)


def bound_names(statement: ast.stmt) -> frozenset[str]:
    """Every name that is bound anywhere inside a statement: arguments, variables, functions in functions."""
    names = set(_stored(ast.iter_child_nodes(statement)))
    for node in ast.walk(statement):
        if isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            names |= _stored(node.body if isinstance(node.body, list) else [node.body])
    return frozenset(names)
