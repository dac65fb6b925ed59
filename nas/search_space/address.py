"""Addresses of spaces: a name or a file, and the arguments that change or add decisions. No torch.

An argument with a dot in its name is a setting of the training recipe (`nas.search_space.joint`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from nas.documents import read_text
from nas.search_space.decision import Decision
from nas.signature import parameters

if TYPE_CHECKING:
    from nas.search_space.space import SearchSpace


def split(address: str) -> tuple[str, dict[str, Any]]:
    """An address without its arguments, and the arguments of the space's function."""
    base, given = _parts(address)
    return base, {key: value for key, value in given.items() if "." not in key}


def tuned(address: str) -> dict[str, Any]:
    """The settings of the recipe that an address makes decisions: configuration key -> its values."""
    return {key: value for key, value in _parts(address)[1].items() if "." in key}


def _parts(address: str) -> tuple[str, dict[str, Any]]:
    base, _, query = address.partition("?")
    given: dict[str, Any] = {}
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        if not equals or key in given:
            raise ValueError(
                f"{address}: after ? come key=value pairs joined by &, each key once; see {part!r}"
            )
        try:
            given[key] = read_text(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{address}: the value of {key} is no YAML") from error
    return base, given


def structure(
    build: Callable[..., SearchSpace], arguments: Mapping[str, Any], decisions: tuple[Decision, ...]
) -> dict[str, Any]:
    """Those of `arguments` that change the decisions of the space: its structure, as opposed to its size.

    `decisions`: those that `build` makes of the arguments.
    """
    defaults = parameters(build)
    changed = {name: value for name, value in arguments.items() if value != defaults[name]}
    if not changed or any(default is inspect.Parameter.empty for default in defaults.values()):
        return {}
    plain = build(**defaults).decisions
    if decisions == plain:
        return {}
    return {name: value for name, value in changed.items() if _changes(build, defaults, name, value, plain)}


def _changes(
    build: Callable[..., SearchSpace],
    defaults: Mapping[str, Any],
    name: str,
    value: Any,
    plain: tuple[Decision, ...],
) -> bool:
    try:
        return build(**{**defaults, name: value}).decisions != plain
    except ValueError:  # possible only together with another argument
        return True


def written(base: str, arguments: Mapping[str, Any]) -> str:
    """The address of `base` with these arguments; `split` reads it."""
    if not arguments:
        return base
    texts = {name: json.dumps(value, separators=(",", ":")) for name, value in sorted(arguments.items())}
    return base + "?" + "&".join(f"{name}={text}" for name, text in texts.items())
