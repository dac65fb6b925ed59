"""Evolution: architectures that did well are copied with changes, others are forgotten.

Regularized evolution (Real, Aggarwal, Huang, Le, AAAI 2019, algorithm 1) lets the oldest die; `evolution` has
the older schemes, a steady state in which the worst dies, and generations, and crosses two parents (Real et
al., ICML 2017; Goldberg & Deb 1991 on tournaments).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import cycle
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from nas.execution import Result, Trial
from nas.search_space import Architecture, SearchSpace
from nas.seeding import generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.strategy import STRATEGIES

Count = Annotated[int, Field(ge=1)]
Chance = Annotated[float, Field(ge=0, le=1)]
STEPS = 20  # further mutations, and random samples, in search of a child that is not known


class Member(NamedTuple):
    """An architecture of a population. `score`: larger is better."""

    score: float
    number: int
    architecture: Architecture


def tournament(population: Sequence[Member], sample: int, rng: Random) -> Architecture:
    """The best of `sample` members drawn with replacement."""
    drawn = [rng.choice(population) for _ in range(sample)]
    return max(drawn, key=lambda member: member.score).architecture


def brood(
    space: SearchSpace,
    parents: Sequence[Architecture],
    rng: Random,
    *,
    known: Collection[str],
    mutation: float,
) -> Iterator[Architecture]:
    """Legal children, in turn of two parents and mutated (Guo et al., ECCV 2020, algorithm 1), lazily.

    None has a digest in `known`, to which the caller adds each before it asks for the next. What is known is
    mutated further; where that finds nothing, random ones follow, and it ends where none is left.

    Args:
        mutation: the chance of each kept row to change in a mutant; one changes at least.
    """
    genes = sum(decision.keep for decision in space.decisions)
    for crossed in cycle((True, False)):
        child = rng.choice(parents)
        if crossed:
            child = space.cross(child, rng.choice(parents), rng)
        changes = 0 if crossed else max(1, sum(rng.random() < mutation for _ in range(genes)))
        with suppress(ValueError):  # no mutation leads to another legal network
            for _ in range(changes):
                child = space.mutate(child, rng)
            for _ in range(STEPS):
                if child.digest not in known:
                    break
                child = space.mutate(child, rng)
        if child.digest in known:
            drawn = (space.sample(rng) for _ in range(STEPS))
            found = next((each for each in drawn if each.digest not in known), None)
            if found is None:
                return
            child = found
        yield child


@STRATEGIES.register("regularized_evolution", budget="50trials")
class RegularizedEvolution(AskTell):
    """Regularized evolution: a mutation of the best of a sample joins, the oldest dies

    Real et al. use 100 and 25 for 20,000 evaluations; the defaults here are for some hundreds.

    Args:
        population: members, of which the first ones are random.
        sample: members drawn, with replacement, of which the best is the parent.
        epochs: of training for each candidate.
    """

    def __init__(self, population: Count = 20, sample: Count = 5, epochs: Count = 5) -> None:
        super().__init__()
        self.sample, self.epochs = sample, epochs
        self.population: deque[Member] = deque(maxlen=population)
        self.size = population

    def ask(self, number: int) -> Trial:
        rng = generator(self.task.seed, "ask", number)
        if len(self.population) + len(self.pending) < self.size or not self.population:
            return Trial(number, self.fresh(rng), self.epochs)
        parent = tournament(self.population, self.sample, rng)
        return Trial(number, _mutant(self, parent, rng), self.epochs)

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        if result is not None:
            self.population.append(Member(self.score(result), trial.number, trial.architecture))


@STRATEGIES.register("evolution", budget="50trials")
class Evolution(AskTell):
    """Evolution: crossover and mutation of the winners of tournaments; the worst die, or whole generations

    Args:
        population: members, of which the first ones are random.
        sample: members of a tournament, drawn with replacement.
        scheme: ``steady``: each child joins and the worst member dies; ``generational``: as many children as
            members replace them, but for the `elite`.
        elite: the best members that live on into the next generation.
        crossover: the chance that a child has two parents.
        mutation: the chance that a child of two parents is mutated too; a child of one parent always is.
        epochs: of training for each candidate.
    """

    def __init__(
        self,
        population: Count = 20,
        sample: Count = 5,
        scheme: Literal["steady", "generational"] = "steady",
        elite: Annotated[int, Field(ge=0)] = 2,
        crossover: Chance = 0.5,
        mutation: Chance = 0.5,
        epochs: Count = 5,
    ) -> None:
        super().__init__()
        if elite >= population:
            raise ValueError(f"elite={elite} leaves no place for children: make it less than {population=}")
        self.size, self.sample, self.scheme, self.elite = population, sample, scheme, elite
        self.crossover, self.mutation, self.epochs = crossover, mutation, epochs
        self.population: list[Member] = []
        self.children: list[Member] = []  # of the generation to come

    def ask(self, number: int) -> Trial:
        rng, space = generator(self.task.seed, "ask", number), self.task.space
        first = len(self.population) + len(self.pending) < self.size
        if first or not self.population:
            return Trial(number, self.fresh(rng), self.epochs)
        parent = tournament(self.population, self.sample, rng)
        if rng.random() >= self.crossover:
            return Trial(number, _mutant(self, parent, rng), self.epochs)
        child = space.cross(parent, tournament(self.population, self.sample, rng), rng)
        if rng.random() < self.mutation or self.seen(child):
            child = _mutant(self, child, rng)
        return Trial(number, child, self.epochs)

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        if result is None:
            return
        member = Member(self.score(result), trial.number, trial.architecture)
        if len(self.population) < self.size:
            self.population.append(member)
        elif self.scheme == "steady":
            self.population.append(member)
            self.population.remove(min(self.population, key=_standing))
        else:
            self.children.append(member)
            if len(self.children) == self.size - self.elite:
                best = sorted(self.population, key=_standing, reverse=True)[: self.elite]
                self.population, self.children = best + self.children, []


def _standing(member: Member) -> tuple[float, int]:
    """By score; among equals the younger stands higher."""
    return member.score, member.number


def _mutant(strategy: AskTell, parent: Architecture, rng: Random) -> Architecture:
    """A mutation of `parent`; while it was proposed before, a mutation of that; if all were, a new sample."""
    space, last = strategy.task.space, parent

    def step() -> Architecture:
        nonlocal last
        last = space.mutate(last, rng)
        return last

    with suppress(ValueError):  # no mutation leads to another legal network
        found = strategy.unseen(step)
        if not strategy.seen(found):
            return found
    return strategy.fresh(rng)
