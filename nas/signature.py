"""Binding arguments to a constructor's signature: the signature is the schema of the configuration."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any

from nas.registry import unknown


class Errors(ValueError):
    """Several mistakes in one configuration, reported together, a line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def parameters(function: Callable[..., Any], *, skip: int = 0) -> dict[str, Any]:
    """The keyword parameters of `function` that a user may set, with their defaults
    (`inspect.Parameter.empty`: none).

    A class means its constructor. The first `skip` parameters, `*args` and `**kwargs` are left out.
    """
    found = list(inspect.signature(function).parameters.values())[skip:]
    return {p.name: p.default for p in found if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}


def bind(
    function: Callable[..., Any], given: Mapping[str, Any], *, where: str, skip: int = 0
) -> dict[str, Any]:
    """All arguments of `function`, defaults included: `given` checked and converted to the annotated types.

    `where` is the configuration section that a message names (``strategy`` -> ``strategy.lr``).
    Raises Errors that lists every unknown name (with the nearest match), missing argument and wrong value.
    """
    import pydantic

    known = parameters(function, skip=skip)
    whole = not inspect.isclass(function) or is_dataclass(function)  # whose fields may be inherited
    hints = typing.get_type_hints(function if whole else function.__init__, include_extras=True)
    errors = [f"{where}: " + unknown("argument", name, known) for name in given if name not in known]
    bound: dict[str, Any] = {}
    for name, default in known.items():
        if name not in given:
            if default is inspect.Parameter.empty:
                errors.append(f"{where}.{name} has no default: give it a value")
            bound[name] = default
            continue
        try:
            bound[name] = pydantic.TypeAdapter(hints.get(name, Any)).validate_python(given[name])
        except pydantic.ValidationError as error:
            texts = [detail["msg"].removeprefix("Value error, ") for detail in error.errors()]
            reasons = {text[0].lower() + text[1:] for text in texts}
            errors.append(f"{where}.{name} = {given[name]!r}: " + "; ".join(sorted(reasons)))
    if errors:
        raise Errors(errors)
    return bound
