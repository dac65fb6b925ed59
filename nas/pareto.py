"""Pareto fronts of scores (larger is better in every goal): ranks, crowding, hypervolume, a growing front.

K. Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II (2002), section III, for ranks and
crowding. E. Zitzler and L. Thiele, Multiobjective Evolutionary Algorithms (1999), for the hypervolume;
L. While et al., A Fast Way of Calculating Exact Hypervolumes (2012), for how it is computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import ge
from typing import Generic, TypeVar

T = TypeVar("T")
Scores = tuple[float, ...]


def covers(a: Scores, b: Scores) -> bool:
    """Whether `a` is nowhere worse than `b`."""
    return all(map(ge, a, b))


def nondominated(points: Sequence[Scores]) -> list[Scores]:
    """The points that no other one dominates, equal ones once, by the first goal from the best on."""
    kept: list[Scores] = []
    if points and len(points[0]) == 2:
        for point in sorted(points, reverse=True):  # of two goals the second rises along a front
            if not kept or point[1] > kept[-1][1]:
                kept.append(point)
        return kept
    for point in sorted(points, reverse=True):  # what dominates it comes before it
        if not any(covers(other, point) for other in kept):
            kept.append(point)
    return kept


def ranks(points: Sequence[Scores]) -> list[int]:
    """The front that each point is on: 0 if no other dominates it, 1 if only points of front 0 do, ..."""
    found = [0] * len(points)
    left = set(range(len(points)))
    rank = 0
    while left:
        front = set(nondominated([points[i] for i in left]))
        peeled = {i for i in left if points[i] in front}
        for i in peeled:
            found[i] = rank
        left -= peeled
        rank += 1
    return found


def crowding(points: Sequence[Scores]) -> list[float]:
    """How far a point's neighbours on its front are apart, summed over the goals; infinite at the ends.

    Each goal in parts of its extent (section III-B).
    """
    found = [0.0] * len(points)
    for goal in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda i: points[i][goal])
        extent = points[order[-1]][goal] - points[order[0]][goal]
        if extent > 0:
            found[order[0]] = found[order[-1]] = math.inf
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                found[i] += (points[after][goal] - points[before][goal]) / extent
    return found


def hypervolume(points: Sequence[Scores], reference: Scores) -> float:
    """The volume that is dominated by the points and dominates `reference`, exactly, for any number of goals.

    In the product of the goals' units. A point that is not better than the reference in all goals adds
    nothing.
    """
    above = [tuple(x - r for x, r in zip(point, reference, strict=True)) for point in points]
    return _volume(nondominated([point for point in above if min(point) > 0]))


def _volume(points: list[Scores]) -> float:
    """Of points of which none dominates another, above the origin.

    Of the points in rising order of the last goal, each adds what the later ones do not cover: they reach at
    least as high in that goal, so that is its height times an area of one goal less (section III).
    """
    if not points:
        return 0.0
    if len(points[0]) == 1:
        return max(point[0] for point in points)
    if len(points[0]) == 2:
        total = below = 0.0
        for x, y in sorted(points, reverse=True):
            total += x * (y - below)
            below = y
        return total
    total = 0.0
    order = sorted(points, key=lambda point: point[-1])
    for place, point in enumerate(order):
        base = point[:-1]
        limited = [tuple(map(min, base, other)) for other in order[place + 1 :]]
        total += point[-1] * (math.prod(base) - _volume(nondominated(limited)))
    return total


class Front(Generic[T]):
    """What no other dominates, of items that come one by one.

    Items of a higher `level` (more epochs of training) are another measurement: with the first of them the
    front begins anew, and those of lower levels are passed over.

    Attributes:
        members: (scores, item), by the first goal from the best on; of equal scores the first that came.
        worst: the worst score of each goal that was seen, the reference point of `hypervolume`.
        points: all scores that were seen.
    """

    def __init__(self) -> None:
        self._begin(0)

    def _begin(self, level: int) -> None:
        self.members: list[tuple[Scores, T]] = []
        self.worst: Scores = ()
        self.points: list[Scores] = []
        self._level = level
        self._volume: float | None = 0.0

    def add(self, scores: Scores, item: T, *, level: int = 0) -> bool:
        """Take in an item; whether the front changed."""
        if level < self._level:
            return False
        if level > self._level:
            self._begin(level)
        self.points.append(scores)
        worst = tuple(map(min, self.worst, scores)) if self.worst else scores
        if worst != self.worst:
            self.worst, self._volume = worst, None
        if any(covers(member, scores) for member, _ in self.members):
            return False
        self.members = [each for each in self.members if not covers(scores, each[0])]
        self.members.append((scores, item))
        self.members.sort(key=lambda each: each[0], reverse=True)
        self._volume = None
        return True

    @property
    def hypervolume(self) -> float:
        """Of the members above `worst`. It never falls while one level lasts."""
        if self._volume is None:
            self._volume = hypervolume([scores for scores, _ in self.members], self.worst)
        return self._volume
