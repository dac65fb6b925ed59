"""Listed: the few architectures of a space that a list has. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from random import Random
from typing import TYPE_CHECKING, Any

from nas.search_space.architecture import Architecture
from nas.search_space.space import Choices, SearchSpace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class Listed(SearchSpace):
    """A space whose legal architectures are members of a list so thin that draws hardly ever meet one.

    Samples are members, uniformly. A move from an architecture leads to the members that differ from it in
    the fewest rows of its decisions, and a mutation goes to one of them.
    """

    members: tuple[Architecture, ...] = ()
    _codes: list[Any] = field(default_factory=list)  # the members as numbers, made on first use

    @classmethod
    def of(cls, space: SearchSpace, members: Iterable[Architecture]) -> Listed:
        """`space` with these members alone. Raises ValueError if there is none."""
        kept = tuple(members)
        if not kept:
            raise ValueError(f"a list of architectures of {space.name!r} has at least one")
        allowed = {member.literal for member in kept}

        def listed(architecture: Architecture) -> str | None:
            return None if architecture.literal in allowed else "it is not on the list"

        own = {each.name: getattr(space, each.name) for each in fields(SearchSpace)}
        return cls(**{**own, "limits": (*space.limits, listed)}, members=kept)

    @property
    def size(self) -> int:
        return len(self.members)

    def sample(self, rng: Random) -> Architecture:
        return rng.choice(self.members)

    def mutate(self, architecture: Architecture, rng: Random) -> Architecture:
        near = list(self.neighbours(architecture))
        if not near:
            raise ValueError(
                f"space {self.name!r}: the list has no other network than {architecture.literal!r}"
            )
        return rng.choice(near)

    def cross(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        mixed = {d.name: rng.choice((a, b)).choices[d.name] for d in self.decisions}
        distances = self._distances(mixed)
        return self.members[int(distances.argmin())]

    def at(self, place: int) -> Architecture:
        return self.members[place]

    def moves(self, choices: Choices) -> Iterator[Choices]:
        distances = self._distances(choices)
        others = distances[distances > 0]
        if len(others):
            for place in (distances == others.min()).nonzero()[0]:
                yield self.members[int(place)].choices

    def adjacent(self, a: Choices, b: Choices) -> bool:
        distances = self._distances(a)
        others = distances[distances > 0]
        apart = sum(one != other for one, other in zip(self._code(a), self._code(b), strict=True))
        return bool(len(others)) and apart == others.min()

    def _distances(self, choices: Choices) -> NDArray[np.int64]:
        """In how many rows each member differs."""
        import numpy as np

        if not self._codes:
            codes = [self._code(member.choices) for member in self.members]
            self._codes.append(np.array(codes, dtype=np.int16))
        differs: NDArray[np.int64] = (self._codes[0] != np.array(self._code(choices))).sum(axis=1)
        return differs

    def _code(self, choices: Choices) -> list[int]:
        """The option in each row of each decision, -1 where the row is not kept."""
        found = []
        for decision in self.decisions:
            picked = dict(choices[decision.name])
            found += [
                decision.options.index(picked[row]) if row in picked else -1 for row in range(decision.rows)
            ]
        return found
