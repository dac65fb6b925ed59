"""Predictor: evaluate what a surrogate expects most of.

BANANAS (White, Neiswanger, Savani, AAAI 2021) as a whole: random architectures first, then again and again a
surrogate of all results, candidates that are mutations of the best found, and the one of them that an
acquisition function prefers. The surrogate is a Gaussian process on the choices, the paths and the
Weisfeiler-Lehman subtrees of architectures, as in NAS-BOWL (Ru, Wan, Dong, Osborne, ICLR 2021).
"""

from __future__ import annotations

from contextlib import suppress
from random import Random
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from nas.execution import Result, Trial
from nas.search_space import Architecture
from nas.seeding import derive, generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.features import Choices, Features, key_of
from nas.strategies.strategy import STRATEGIES
from nas.strategies.surrogate import Array, GaussianProcess, Surrogate, expected_improvement

Positive = Annotated[int, Field(ge=1)]
LEGAL = 8  # legal mutations of the best, and as many samples, where hardly any candidate is legal
STEPS = 4  # mutations that lead to a candidate, at most


@STRATEGIES.register("predictor", budget="50trials")
class Predictor(AskTell):
    """Predictor: a Gaussian process on paths and subtrees chooses among mutations of the best

    Args:
        initial: random architectures before the first choice.
        acquisition: ``expected_improvement``, or ``thompson``: the largest of one draw from the posterior of
            each candidate.
        parents: the best found so far, whose mutations are the candidates.
        mutations: candidates of one to four mutations each.
        samples: random candidates beside them.
        known: results that the surrogate learns from: the best and the latest, half of them each.
        epochs: of training for each candidate.
    """

    def __init__(
        self,
        initial: Positive = 10,
        acquisition: Literal["expected_improvement", "thompson"] = "expected_improvement",
        parents: Positive = 10,
        mutations: Positive = 200,
        samples: Annotated[int, Field(ge=0)] = 50,
        known: Annotated[int, Field(ge=2)] = 300,
        epochs: Positive = 5,
    ) -> None:
        super().__init__()
        self.initial = initial
        self.acquisition = acquisition
        self.parents = parents
        self.mutations = mutations
        self.samples = samples
        self.known = known
        self.epochs = epochs

    def begin(self) -> None:
        self.surrogate = Surrogate(Features(self.task.space), first=self.initial, most=self.known)

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        if result is not None:
            self.surrogate.scored.append((self.score(result), trial.architecture.choices))

    def ask(self, number: int) -> Trial:
        rng = generator(self.task.seed, "ask", number)
        found = None
        if len(self.surrogate.scored) >= self.initial:
            process = self.surrogate.process([each.choices for each in self._waiting()])
            for turn, pool in enumerate((self._free, self._free, self._legal)):
                candidates = pool(rng)
                wish = self._wish(process, candidates, (number, turn))
                found = self.first_new(candidates[i] for i in np.argsort(-wish, kind="stable"))
                if found is not None:
                    break
        found = found or self.fresh(rng)
        return Trial(number, found, self.epochs)

    # --- candidates -----------------------------------------------------------------------------------------

    def _chosen(self) -> list[Choices]:
        """The parents."""
        best = sorted(self.surrogate.scored, key=lambda each: -each[0])
        return [choices for _, choices in best[: self.parents]]

    def _free(self, rng: Random) -> list[Choices]:
        """Different choices, none of them told or pending; whether they are legal is not known yet."""
        space, best = self.task.space, self._chosen()
        movable = [decision for decision in space.decisions if decision.size > 1]
        found: dict[object, Choices] = {}
        for _ in range(self.mutations if movable else 0):
            choices = dict(rng.choice(best))
            for step in range(STEPS):
                decision = rng.choice(movable)
                choices[decision.name] = decision.mutate(choices[decision.name], rng)
                if step + 1 < STEPS and rng.random() < 0.5:
                    break
            found[key_of(choices)] = choices
        for _ in range(self.samples):
            choices = {decision.name: decision.sample(rng) for decision in space.decisions}
            found[key_of(choices)] = choices
        for known in (*(trial.architecture for trial, _ in self.told), *self._waiting()):
            found.pop(key_of(known.choices), None)
        return list(found.values())

    def _legal(self, rng: Random) -> list[Choices]:
        """Fewer, each of them legal; some may be known."""
        space, best = self.task.space, self._chosen()
        found = [space.sample(rng) for _ in range(LEGAL)]
        with suppress(ValueError):  # no mutation leads to another legal network
            found += [space.mutate(space.architecture(rng.choice(best)), rng) for _ in range(LEGAL)]
        return [each.choices for each in found]

    def _waiting(self) -> list[Architecture]:
        return [trial.architecture for trial in self.pending.values()]

    def _wish(self, process: GaussianProcess, candidates: list[Choices], key: tuple[int, int]) -> Array:
        """How much each candidate is preferred."""
        if not candidates:
            return np.zeros(0)
        mean, deviation = process(self.surrogate.features.of(candidates))
        if self.acquisition == "expected_improvement":
            return expected_improvement(mean, deviation, float(process.values.max()))
        draws = np.random.default_rng(derive(self.task.seed, "thompson", *key))
        return mean + deviation * draws.standard_normal(len(mean))
