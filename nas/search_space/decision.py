"""Decision: the one kind of choice. No torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from math import comb
from random import Random

from nas.graph import Option, Value
from nas.registry import unknown

Table = Sequence[Sequence[float]]  # rows x options


@dataclass(frozen=True)
class Decision:
    """A table of rows x options. A value keeps `keep` rows and picks one option in each.

    A NAS-Bench-201 node with j edges has j rows and keeps all; a DARTS node with j possible inputs keeps two
    rows; a depth is one row. Options in `never` can be mixed in a supernet but are never part of a value:
    DARTS's ``none``.

    Raises ValueError if there is no option to pick, or more rows are kept than there are.
    """

    name: str
    options: tuple[Option, ...]
    rows: int = 1
    keep: int = 1
    never: tuple[Option, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.rows:
            raise ValueError(
                f"decision {self.name!r}: keep must be in 1..rows ({self.rows}), not {self.keep}"
            )
        texts = [str(option) for option in self.options]
        if len(set(texts)) < len(texts) or len(set(self.options)) < len(texts):
            raise ValueError(
                f"decision {self.name!r}: options must differ, also as text, got {list(self.options)}"
            )
        for text in texts:
            if set(text) & set("|+") or text != text.strip() or not text:
                raise ValueError(
                    f"decision {self.name!r}: a literal could not show the option {text!r}: "
                    "no | or +, no space at its ends, not empty"
                )
        if not self.legal:
            raise ValueError(f"decision {self.name!r} has no option that a value may have")

    @cached_property
    def legal(self) -> tuple[Option, ...]:
        """The options that a value may have."""
        return tuple(option for option in self.options if option not in self.never)

    @property
    def size(self) -> int:
        """The number of values."""
        return comb(self.rows, self.keep) * int(len(self.legal) ** self.keep)

    def values(self) -> list[Value]:
        """Every value, in a fixed order."""
        return [
            tuple(zip(rows, options, strict=True))
            for rows in combinations(range(self.rows), self.keep)
            for options in product(self.legal, repeat=self.keep)
        ]

    def at(self, place: int) -> Value:
        """``values()[place]``, without making them all."""
        place, digits = divmod(place, len(self.legal) ** self.keep)
        rows: list[int] = []
        for row in range(self.rows):
            missing = self.keep - len(rows)
            beginning = comb(self.rows - row - 1, missing - 1) if missing else 0
            if place < beginning:
                rows.append(row)
            else:
                place -= beginning
        options: list[Option] = []
        for _ in rows:
            digits, digit = divmod(digits, len(self.legal))
            options.append(self.legal[digit])
        return tuple(zip(rows, reversed(options), strict=True))

    def parse(self, group: str) -> Value:
        """The value that a literal shows as ``|option~row|...|``. Raises ValueError with what is wrong."""
        by_text = {str(option): option for option in self.legal}
        value: list[tuple[int, Option]] = []
        for part in group.strip().strip("|").split("|"):
            option, tilde, row = part.rpartition("~")
            if not tilde or not row.isdigit():
                raise ValueError(f"decision {self.name!r}: {part!r} is not of the form option~row")
            if option not in by_text:
                raise ValueError(f"decision {self.name!r}: " + unknown("option", option, by_text))
            value.append((int(row), by_text[option]))
        return _sorted(value)

    def check(self, value: Value) -> Value:
        """The value itself if it is legal. Raises ValueError with the rule that it breaks."""
        rows = [row for row, _ in value]
        if len(rows) != self.keep or rows != sorted(set(rows)) or not set(rows) <= set(range(self.rows)):
            raise ValueError(
                f"decision {self.name!r} keeps {self.keep} of rows 0..{self.rows - 1}, got rows {rows}"
            )
        for _, option in value:
            if option not in self.legal:
                raise ValueError(
                    f"decision {self.name!r} has no option {option!r}; options are {list(self.legal)}"
                )
        return value

    def sample(self, rng: Random) -> Value:
        """A value, uniformly."""
        rows = sorted(rng.sample(range(self.rows), self.keep))
        return tuple((row, rng.choice(self.legal)) for row in rows)

    def neighbours(self, value: Value) -> list[Value]:
        """The values that differ in one option, or in one kept row."""
        found: list[Value] = []
        free = [row for row in range(self.rows) if row not in dict(value)]
        for place, (row, option) in enumerate(value):
            rest = value[:place] + value[place + 1 :]
            found += [_sorted([*rest, (row, other)]) for other in self.legal if other != option]
            found += [_sorted([*rest, (other, option)]) for other in free]
        return found

    def adjacent(self, a: Value, b: Value) -> bool:
        """Whether `b` is one of ``neighbours(a)``."""
        gone, come = set(a) - set(b), set(b) - set(a)
        if len(gone) != 1 or len(come) != 1:
            return False
        (old,), (new,) = gone, come
        return old[0] == new[0] or old[1] == new[1]

    def mutate(self, value: Value, rng: Random) -> Value:
        """A neighbour of `value`: always a different value. Raises ValueError if there is only one value."""
        found = self.neighbours(value)
        if not found:
            raise ValueError(f"decision {self.name!r} has one value only: nothing to mutate")
        return rng.choice(found)

    def project(self, scores: Table, never: Collection[Option] = ()) -> Value:
        """The best legal value under `scores` (rows x options), larger is better.

        Each row offers its best option; the `keep` best rows are kept. Ties go to the lower index. This is
        DARTS's derivation (Liu et al. 2019, section 2.4) for j x 8 with keep 2, and argmax for 1 x n.
        """
        allowed = [
            i for i, option in enumerate(self.options) if option not in self.never and option not in never
        ]
        best = [max(allowed, key=lambda i: row[i]) for row in scores]
        order = sorted(range(self.rows), key=lambda row: -scores[row][best[row]])
        return tuple((row, self.options[best[row]]) for row in sorted(order[: self.keep]))

    def mask(self, value: Value) -> list[list[float]]:
        """The value as a table: 1.0 at each kept row's option, 0.0 elsewhere. ``project(mask(v)) == v``."""
        picked = dict(value)
        return [[float(picked.get(row) == option) for option in self.options] for row in range(self.rows)]


def _sorted(value: list[tuple[int, Option]]) -> Value:
    return tuple(sorted(value, key=lambda kept: kept[0]))
