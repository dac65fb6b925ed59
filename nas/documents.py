"""read_yaml(): a YAML file as a mapping, and the place of a mistake in it. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises ValueError with the place of a mistake."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
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
