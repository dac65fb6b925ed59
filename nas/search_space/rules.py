"""Rules: why an architecture is not legal, and how legal ones are found. No torch.

A rule is a function of an architecture that says what is wrong with it, or None. A `Limit` is a rule on a
number, which knows by how much it is exceeded: so the closest architecture can be named where none is legal.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from operator import itemgetter
from typing import TYPE_CHECKING

from nas.graph import Value
from nas.search_space.architecture import Architecture
from nas.search_space.decision import Decision, Table

if TYPE_CHECKING:
    from nas.search_space.space import SearchSpace

Rule = Callable[[Architecture], str | None]
Choices = Mapping[str, Value]
TRIES = 1000  # candidates that are looked at before the closest one is repaired


@dataclass(frozen=True)
class Limit:
    """The rule that ``measure(architecture)`` is at most `most`."""

    name: str
    most: float
    measure: Callable[[Architecture], float]

    def excess(self, architecture: Architecture) -> float:
        """By which share of the limit it is exceeded; 0.0 if it holds, infinite for what cannot be built."""
        try:
            return max(0.0, self.measure(architecture) / self.most - 1.0)
        except ValueError:
            return float("inf")

    def __call__(self, architecture: Architecture) -> str | None:
        try:
            found = self.measure(architecture)
        except ValueError as error:
            return f"its {self.name} cannot be measured: {error}"
        return None if found <= self.most else f"{self.name} is {found:,.6g}, more than {self.most:,.6g}"


def excess(rules: Iterable[Rule], architecture: Architecture) -> float:
    """How far an architecture is from legal: the limits' shares, and 1 for every other broken rule."""
    return sum(
        rule.excess(architecture) if isinstance(rule, Limit) else float(rule(architecture) is not None)
        for rule in rules
    )


def repaired(
    space: SearchSpace, start: Architecture, *, order: Callable[[list[Choices]], Sequence[Choices]]
) -> Architecture:
    """A legal architecture by single steps from `start`, each to the first neighbour that is closer to legal.

    `order` says which neighbours' choices come first. Raises ValueError that names the closest architecture
    found if no step leads closer.
    """
    rules, current = space.every_rule, start
    distance = excess(rules, current)
    while space.why_not(current) is not None:
        near = map(space.architecture, order(list(space.moves(current.choices))))
        closer = ((far, each) for each in near if (far := excess(rules, each)) < distance)
        found = next(closer, None)
        if found is None:
            raise ValueError(
                f"no architecture of {space.name!r} was found within the limits; the closest is "
                f"{current.literal}: {space.why_not(current)}. Relax the limit or make the space smaller"
            )
        distance, current = found
    return current


def ranked(space: SearchSpace, scores: Mapping[str, Table]) -> Iterator[Architecture]:
    """All architectures from the best sum of scores to the worst, lazily, legal or not.

    Any architecture can be reached from the best one by steps that never raise the sum (to its own options,
    and from a better row to one of its own), so a search over steps, best first, meets them in order.
    """
    places = {d.name: {option: i for i, option in enumerate(d.options)} for d in space.decisions}

    def loss(choices: Mapping[str, Value]) -> float:
        return -sum(
            scores[name][row][places[name][option]]
            for name, value in choices.items()
            for row, option in value
        )

    tie = count()
    first = {d.name: d.project(scores[d.name]) for d in space.decisions}
    heap = [(loss(first), next(tie), first)]
    seen = {tuple(first.values())}
    while heap:
        _, _, best = heapq.heappop(heap)
        yield space.architecture(best)
        for decision in space.decisions:
            for value in _steps(decision, best[decision.name]):
                choices = {**best, decision.name: value}
                key = tuple(choices.values())
                if key not in seen:
                    seen.add(key)
                    heapq.heappush(heap, (loss(choices), next(tie), choices))


def _steps(decision: Decision, value: Value) -> Iterator[Value]:
    """The values with another option in a row, or another row with any option."""
    yield from decision.neighbours(value)
    free = [row for row in range(decision.rows) if row not in dict(value)]
    for place, (_, kept) in enumerate(value):
        rest = value[:place] + value[place + 1 :]
        for row in free:
            yield from (
                tuple(sorted([*rest, (row, option)], key=itemgetter(0)))
                for option in decision.legal
                if option != kept
            )


def best_legal(space: SearchSpace, scores: Mapping[str, Table]) -> Architecture:
    """The best legal architecture under `scores`; beyond `TRIES` candidates, the best one repaired.

    Raises ValueError that names the closest architecture found if there is none.
    """
    best: Architecture | None = None
    for each in islice(ranked(space, scores), TRIES):
        best = best or each
        if space.why_not(each) is None:
            return each
    assert best is not None
    return repaired(space, best, order=lambda near: near)
