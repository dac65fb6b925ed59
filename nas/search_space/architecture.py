"""Architecture: an immutable, hashable, printable set of choices. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from nas.graph import Option, Value


@dataclass(frozen=True)
class Architecture:
    """What fills the holes of a space.

    `space` is the address that `nas.space` understands, `choices` maps each decision to its value as it was
    chosen (raw), `digest` identifies a trial: equal for architectures of one space whose canonical choices
    are equal. `recipe`: of these choices, those that are settings of its training (``train.lr`` -> 0.1).
    """

    space: str
    choices: Mapping[str, Value]
    literal: str
    digest: str
    recipe: Mapping[str, Option] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", MappingProxyType(dict(self.recipe)))
        object.__setattr__(self, "choices", MappingProxyType(dict(self.choices)))

    def __hash__(self) -> int:
        return hash((self.space, self.literal))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and (self.space, self.literal) == (other.space, other.literal)

    def __str__(self) -> str:
        return f"{self.space}:{self.literal}"

    def __reduce__(self) -> tuple[object, ...]:
        own = (self.space, dict(self.choices), self.literal, self.digest, dict(self.recipe))
        return (Architecture, own)

    def to_dict(self) -> dict[str, Any]:
        """What a YAML file of this architecture holds; `nas.search_space.read` builds it again."""
        recipe = {"recipe": dict(self.recipe)} if self.recipe else {}
        return {"space": self.space, "literal": self.literal, "digest": self.digest, **recipe}
