"""stand_in(): import what declares things beside PyTorch code, without PyTorch"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Protocol


def _named(name: str) -> Any:
    """Capitals stand for classes, small letters for modules and for functions that make decorators."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Class(name, (), {}) if name[0].isupper() else Absent(name)


class Class(type(Protocol)):  # type: ignore[misc]  # so that a class may inherit from it and from a protocol
    """The class of classes that have every name."""

    def __getattr__(cls, name: str) -> Any:
        return _named(name)


class Absent(ModuleType):
    """A module that has every name."""

    __path__ = []  # noqa: RUF012  # what makes it a package

    def __getattr__(self, name: str) -> Any:
        return _named(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        return lambda decorated: decorated


class Finder(MetaPathFinder, Loader):
    """Finds `library`, and whatever is asked of it."""

    def __init__(self, library: str) -> None:
        self.library = library

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name.partition(".")[0] == self.library else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


@contextmanager
def stand_in(library: str) -> Iterator[None]:
    """Imports within the block get names without content for those of `library`, which takes seconds.

    Only what stands beside them may be read: names, docstrings, arguments. The modules of `nas` that the
    block imported are forgotten behind it. Where the library is there already, nothing is replaced.
    """
    if library in sys.modules:
        yield
        return
    before, finder = set(sys.modules), Finder(library)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in (library, "nas"):
                del sys.modules[name]
