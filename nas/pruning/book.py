"""Book: the channels of a network by number, which of them are one, and which tensors they run through."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

Place = tuple[str, int, int]  # a parameter or buffer, a dimension of it, an index there
FIXED = 0  # the number of what is no channel, or of one that must stay


@dataclass(frozen=True)
class Bundle:
    """One removable channel: everything that belongs to it.

    Attributes:
        places: (tensor, dimension, index), each once.
        attributes: (module, attribute) whose number counts this channel.
    """

    places: tuple[Place, ...]
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def family(self) -> tuple[tuple[str, int], ...]:
        """The tensors and dimensions that it runs through: channels of one layer have one family."""
        return tuple(sorted({(name, dim) for name, dim, _ in self.places}))


@dataclass
class Book:
    """The numbers of channels, joined in groups.

    Attributes:
        parents: number -> one of its group, itself at the root.
        fixed: numbers whose groups must stay.
        places: a tensor, a dimension, and the number of each index of it.
        spread: a tensor that is used element by element -> the number of each element.
        counted: a module, an attribute that counts channels of it, and their numbers.
    """

    parents: list[int] = field(default_factory=lambda: [FIXED])
    fixed: set[int] = field(default_factory=set)
    places: list[tuple[str, int, Tensor]] = field(default_factory=list)
    spread: dict[str, Tensor] = field(default_factory=dict)
    counted: list[tuple[str, str, Tensor]] = field(default_factory=list)

    def new(self, count: int) -> Tensor:
        """New numbers, (count,)."""
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return torch.arange(first, first + count)

    def root(self, number: int) -> int:
        """The one that stands for its group."""
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def tie(self, one: Tensor, other: Tensor) -> Tensor:
        """Make the channels one, element by element; what is tied to something fixed is fixed. Gives one."""
        one, other = torch.broadcast_tensors(one, other)  # type: ignore[no-untyped-call]
        pairs = torch.stack([thin(one, other).flatten(), thin(other, one).flatten()])
        pairs = torch.unique(pairs[:, pairs[0] != pairs[1]], dim=1)
        for a, b in pairs.T.tolist():
            if FIXED in (a, b):
                self.fixed.add(a or b)
            else:
                self.parents[self.root(a)] = self.root(b)
        return torch.maximum(one, other) if FIXED in pairs else one

    def fix(self, numbers: Tensor) -> None:
        """These must stay."""
        self.fixed.update(torch.unique(thin(numbers, numbers)).tolist())

    def stuck(self) -> set[int]:
        return {self.root(number) for number in self.fixed}

    def bundles(self) -> list[Bundle]:
        """The groups that may go, in the order of their first tensors."""
        for name, numbers in self.spread.items():
            self._along(name, numbers)
        places: dict[int, dict[Place, None]] = {}
        for name, dim, numbers in self.places:
            for index, number in enumerate(numbers.tolist()):
                places.setdefault(self.root(number), {})[name, dim, index] = None
        attributes: dict[int, dict[tuple[str, str], None]] = {}
        for module, attribute, numbers in self.counted:
            for number in numbers.tolist():
                attributes.setdefault(self.root(number), {})[module, attribute] = None
        stuck = {self.root(number) for number in (FIXED, *self.fixed)}
        return [
            Bundle(tuple(found), tuple(attributes.get(root, ())))
            for root, found in places.items()
            if root not in stuck
        ]

    def _along(self, name: str, numbers: Tensor) -> None:
        """A tensor that was used element by element: the one dimension along which its channels lie."""
        roots = numbers.clone().apply_(self.root)
        for dim in range(roots.dim()):
            lines = roots.movedim(dim, 0).flatten(1) if roots.dim() > 1 else roots[:, None]
            if bool((lines == lines[:, :1]).all()) and (lines.shape[0] > 1 or roots.numel() == 1):
                self.places.append((name, dim, lines[:, 0]))
                return
        self.fix(numbers)


def thin(one: Tensor, other: Tensor) -> Tensor:
    """`one` without its copies: one index of each dimension along which both only repeat."""
    index = tuple(
        slice(0, 1) if a == b == 0 else slice(None) for a, b in zip(one.stride(), other.stride(), strict=True)
    )
    return one[index]
