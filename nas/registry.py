"""Registry: a mapping from a name to the thing of that name, which suggests near misses and lists itself.

Everything a user can name (primitives, spaces, strategies, evaluators, data, ...) lives in one registry of
its kind. A thing of one's own needs no registration: ``path/to/file.py:name`` is resolved to that object.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
USER = "nas_user_"  # beginning of the module names of files that are imported by path
LISTED = 60  # names, at most, that a message lists


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist: the nearest match first, then what there is.

    Of more than `LISTED` names the nearest ones.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listing = ", ".join(names) if names else "nothing"
    if len(names) > LISTED:
        nearest = difflib.get_close_matches(name, names, n=LISTED // 4, cutoff=0.0)
        listing = f"{len(names)}, the nearest: {', '.join(nearest)}"
    return f"no {kind} {name!r}{hint} (there are: {listing})"


def label(address: str) -> str:
    """A short name for what an address names: of ``path/my.py:thing`` thing, of ``path/my.yaml?a=1`` my."""
    return Path(address.partition("?")[0].rpartition(":")[2]).stem


def absolute(address: str) -> str:
    """An address that means the same in every working directory: the path of a file made whole."""
    path, colon, name = address.rpartition(":")
    if colon and path.endswith(".py"):
        return f"{_whole(path)}:{name}"
    path, question, query = address.partition("?")
    return f"{_whole(path)}{question}{query}" if path.endswith((".yaml", ".yml")) else address


def _whole(path: str) -> Path:
    return Path(path).expanduser().resolve()


def load_file(path: Path, text: str | None = None) -> ModuleType:
    """Import a Python file by its path, once a process; `text`: what it holds, if another machine has it.

    Raises ValueError if it is missing or fails.
    """
    path = path.expanduser().resolve()
    # The same name in every process: what the file defines can be sent to workers that imported it.
    name = f"{USER}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if text is None and not path.is_file():
        raise ValueError(f"no Python file at {path}: a thing of your own is named path/to/file.py:name")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        if text is None:
            spec.loader.exec_module(module)
        else:
            exec(compile(text, str(path), "exec"), vars(module))
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path} could not be imported: {type(error).__name__}: {error}") from error
    return module


def loaded_files() -> list[Path]:
    """The files that `load_file` imported in this process: what a worker has to import as well."""
    own = [module for name, module in sys.modules.items() if name.startswith(USER)]
    return [Path(module.__file__) for module in own if module.__file__]


class Registry(Mapping[str, T], Generic[T]):
    """Names to things of one kind. ``registry["nmae"]`` raises a ValueError that names the nearest match."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._things: dict[str, T] = {}
        self._facts: dict[str, Mapping[str, Any]] = {}

    def register(self, name: str, **facts: Any) -> Callable[[T], T]:
        """Decorator: enter the decorated thing under `name`; `facts` are kept beside it."""

        def enter(thing: T) -> T:
            if name in self._things:
                raise ValueError(f"{self.kind} {name!r} is registered twice: choose another name")
            self._things[name] = thing
            self._facts[name] = MappingProxyType(facts)
            return thing

        return enter

    def resolve(self, address: str) -> T:
        """The thing at `address`: a registered name, ``file.py:name``, or an entry point of group
        ``nas.<kind>``.

        Raises ValueError, with the nearest match, if there is none.
        """
        path, colon, name = address.rpartition(":")
        if colon and path.endswith(".py"):
            module = load_file(Path(path))
            if not hasattr(module, name):
                own = [each for each in vars(module) if not each.startswith("_")]
                raise ValueError(f"in {path}: " + unknown(self.kind, name, own))
            thing: T = getattr(module, name)
            return thing
        if address not in self._things:
            for entry in importlib.metadata.entry_points(group=f"nas.{self.kind}", name=address):
                self._things.setdefault(address, entry.load())
                self._facts.setdefault(address, MappingProxyType({}))
        return self[address]

    def facts(self, address: str) -> Mapping[str, Any]:
        """What was registered beside the thing; empty for a thing that is not registered."""
        path, _, name = address.rpartition(":")
        if path.endswith(".py") and self._things.get(name) is not self.resolve(address):
            return MappingProxyType({})
        return self._facts.get(name, MappingProxyType({}))

    def summary(self, name: str) -> str:
        """The first line of the thing's docstring."""
        return (self[name].__doc__ or "").strip().partition("\n")[0]

    def __getitem__(self, name: str) -> T:
        if name not in self._things:
            raise ValueError(unknown(self.kind, name, self._things))
        return self._things[name]

    def __contains__(self, name: object) -> bool:
        return name in self._things

    def __iter__(self) -> Iterator[str]:
        return iter(self._things)

    def __len__(self) -> int:
        return len(self._things)
