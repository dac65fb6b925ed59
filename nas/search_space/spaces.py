"""Spaces: the registry of search spaces, by address. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.registry import Registry

if TYPE_CHECKING:
    from nas.search_space.space import SearchSpace


class Spaces(Registry[Callable[..., "SearchSpace"]]):
    """Spaces by address: a name, ``file.py:name`` or ``file.yaml``; ``?key=value&...`` fixes arguments."""

    def resolve(self, address: str) -> Callable[..., SearchSpace]:
        """The function that builds the space; what follows ``?`` is left to `space`."""
        base = address.partition("?")[0]
        if not base.endswith((".yaml", ".yml")):
            return super().resolve(base)
        from nas.search_space.yaml_space import space_file

        return space_file(Path(base).expanduser().resolve())

    def facts(self, address: str) -> Mapping[str, Any]:
        """What was registered beside the space."""
        return super().facts(address.partition("?")[0])
