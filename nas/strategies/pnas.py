"""PNAS: from simple architectures to complex ones (Liu et al., Progressive Neural Architecture Search, ECCV
2018, algorithm 1).

The paper evaluates all cells of one block, learns to predict their accuracy, adds every possible block to the
best, evaluates those of which the prediction is best, and so on. Here the choices of any space, in their
order, take the place of blocks: what is not reached yet stays neutral (a skip connection, the smallest
number). The predictor is a Gaussian process where the paper has an ensemble of networks, and it learns after
every result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, product
from math import prod
from random import Random
from typing import Annotated

import numpy as np
from pydantic import Field

from nas.execution import Result, Trial
from nas.graph import ZEROS, Option, Value
from nas.isomorphism import IDENTITIES
from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.seeding import generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.features import Choices, Features, key_of
from nas.strategies.strategy import STRATEGIES
from nas.strategies.surrogate import GaussianProcess, Surrogate

Positive = Annotated[int, Field(ge=1)]
Slot = tuple[Decision, int | None]  # one row of a decision that keeps all; the whole of another
TRIALS = 100  # where the budget does not say
KNOWN = 300  # results that the surrogate learns from


@STRATEGIES.register("pnas", budget="50trials")
class PNAS(AskTell):
    """PNAS: architectures grow choice by choice; a surrogate picks which of the best to extend, and how

    After the last stage the best ones are varied stage by stage again.

    Args:
        stages: in which the choices are made, an equal share in each (the paper: 5, a block in each).
        beam: evaluations in a stage, and architectures that the next one extends (the paper: 256). Without
            it the budget of trials is divided among the stages.
        expansions: of an architecture that are considered, at most.
        epochs: of training for each candidate.
    """

    def __init__(
        self,
        stages: Positive = 5,
        beam: Positive | None = None,
        expansions: Positive = 25,
        epochs: Positive = 5,
    ) -> None:
        super().__init__()
        self.stages, self.beam, self.expansions, self.epochs = stages, beam, expansions, epochs

    def begin(self) -> None:
        space = self.task.space
        self.parts = _parts(_slots(space), self.stages)
        self.width = self.beam or max(1, (self.task.trials or TRIALS) // len(self.parts))
        self.neutral = _neutral(space, generator(self.task.seed, "neutral")).choices
        self.surrogate = Surrogate(Features(space), first=10, most=KNOWN)
        self._numbers: list[int] = []  # of the trials that have a score

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        if result is not None:
            self.surrogate.scored.append((self.score(result), trial.architecture.choices))
            self._numbers.append(trial.number)

    def ask(self, number: int) -> Trial:
        rng = generator(self.task.seed, "ask", number)
        first = number // self.width
        process = self.surrogate.process() if len(self.surrogate.scored) > 1 else None
        for stage in range(first, first + len(self.parts)):  # the next one if this one has nothing new
            candidates = self._candidates(stage, first * self.width)
            found = self.first_new(candidates[i] for i in self._order(candidates, process, rng))
            if found is not None:
                return Trial(number, found, self.epochs)
        return Trial(number, self.fresh(rng), self.epochs)

    def _candidates(self, stage: int, before: int) -> list[Choices]:
        """The best of the trials `before`, each extended in every way by the choices of a stage."""
        scored = [
            each for number, each in zip(self._numbers, self.surrogate.scored, strict=True) if number < before
        ]
        best = [choices for _, choices in sorted(scored, key=lambda each: -each[0])[: self.width]]
        found: dict[object, Choices] = {}
        for parent in best or [self.neutral]:
            # Keyed by the stage: what it considers, and the features of that, stay the same all along.
            rng = generator(self.task.seed, "expand", stage, repr(key_of(parent)))
            for choices in _expansions(parent, self.parts[stage % len(self.parts)], self.expansions, rng):
                found[key_of(choices)] = choices
        for trial in (*(trial for trial, _ in self.told), *self.pending.values()):
            found.pop(key_of(trial.architecture.choices), None)
        return list(found.values())

    def _order(self, candidates: list[Choices], process: GaussianProcess | None, rng: Random) -> list[int]:
        """The candidates' places, the most promising first; any order before there are results."""
        places = list(range(len(candidates)))
        rng.shuffle(places)
        if process is None or not candidates:
            return places
        mean, _ = process(self.surrogate.features.of(candidates))
        return [places[i] for i in np.argsort(-mean[places], kind="stable")]


def _slots(space: SearchSpace) -> list[Slot]:
    """What is chosen at once, in the order of the space."""
    return [
        (decision, row)
        for decision in space.decisions
        if decision.size > 1
        for row in (range(decision.rows) if decision.keep == decision.rows else (None,))
    ]


def _parts(slots: list[Slot], stages: int) -> list[list[Slot]]:
    """The slots in order, in so many parts of like size; fewer if there are not so many slots."""
    number = max(1, min(stages, len(slots)))
    ends = [round(len(slots) * k / number) for k in range(number + 1)]
    return [slots[a:b] for a, b in pairwise(ends)]


def _neutral(space: SearchSpace, rng: Random) -> Architecture:
    """The architecture that does least, as far as the names of options tell."""
    tables = {d.name: [[_plainness(d, option) for option in d.options]] * d.rows for d in space.decisions}
    try:
        return space.project(tables)
    except ValueError:  # limits under which no plain one is in reach
        return space.sample(rng)


def _plainness(decision: Decision, option: Option) -> float:
    if isinstance(option, str):
        return 2.0 if option in IDENTITIES else float(option == "none" or option in ZEROS)
    return -float(sorted(o for o in decision.options if not isinstance(o, str)).index(option))


def _expansions(parent: Choices, slots: list[Slot], most: int, rng: Random) -> Iterator[Choices]:
    """The parent with other choices in these slots: all if they are at most `most`, or a sample."""
    number = prod(decision.size if row is None else len(decision.legal) for decision, row in slots)
    if number <= most:
        ways: Iterable[Sequence[Value | Option]] = product(
            *(decision.values() if row is None else decision.legal for decision, row in slots)
        )
    else:
        ways = (
            [d.sample(rng) if row is None else rng.choice(d.legal) for d, row in slots] for _ in range(most)
        )
    for way in ways:
        choices = dict(parent)
        for (decision, row), choice in zip(slots, way, strict=True):
            if isinstance(choice, tuple):
                choices[decision.name] = choice
            else:
                choices[decision.name] = tuple(
                    (r, choice if r == row else option) for r, option in choices[decision.name]
                )
        yield choices
