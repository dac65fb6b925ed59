"""read_yaml(): a YAML file as a mapping, and the place of a mistake in it. No torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

BASE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
TRUTH = "tag:yaml.org,2002:bool"


class Loader(BASE):  # type: ignore[misc, valid-type]
    """Truth values as in YAML 1.2: ``true`` and ``false`` alone. ``off``, ``on``, ``no`` are words."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [pair for pair in pairs if pair[0] != TRUTH]
        for first, pairs in BASE.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(TRUTH, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_text(text: str) -> Any:
    """What a piece of YAML says."""
    return yaml.load(text, Loader)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises ValueError with the place of a mistake."""
    try:
        content = read_text(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        place = f", line {where.line + 1}, column {where.column + 1}" if where else ""
        raise ValueError(f"{path} is no YAML{place}: {getattr(error, 'problem', error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold keys and values, not a {type(content).__name__}")
    return content
