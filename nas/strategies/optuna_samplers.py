"""Optuna's samplers on any search space (Akiba et al. 2019, Optuna: A next-generation hyperparameter
optimization framework).

Every decision is a parameter of Optuna's: ordered numbers are whole numbers, all else is categorical. The
study that a sampler looks at is made from told trials alone, and a sampler is made anew for each proposal,
with a seed of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import islice
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from nas.execution import Result, Trial
from nas.search_space import Architecture, SearchSpace
from nas.seeding import derive, generator
from nas.strategies.ask_tell import AskTell
from nas.strategies.strategy import STRATEGIES

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Count = Annotated[int, Field(ge=1)]
Chance = Annotated[float, Field(ge=0, le=1)]


class OptunaSampler(AskTell):
    """A sampler of Optuna's. A subclass writes `sampler`.

    Args:
        epochs: of training for each candidate. Results of fewer epochs are told to Optuna as pruned.
        storage: where a copy of the study is kept, for optuna-dashboard: ``sqlite:///studies.db`` or the
            path of a journal, ``studies.log``.
    """

    name: ClassVar[str]
    conditional: ClassVar[bool] = False  # whether choices that do not matter are left out of trials
    stateful: ClassVar[bool] = False  # whether the sampler keeps its state in the trials' attributes
    several: ClassVar[bool] = True  # whether it improves several goals; else the first one
    draws: ClassVar[int] = 10  # of a sampler, before an architecture is drawn at random
    once: ClassVar[bool] = False  # whether a sampler that proposes the same again is at its end

    def __init__(self, epochs: Count = 5, storage: str | None = None) -> None:
        super().__init__()
        self.epochs, self.storage = epochs, storage

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """The sampler, with a seed."""

    def begin(self) -> None:
        from nas.strategies.optuna_study import Copy, Past, Questions

        goals = self.task.goals if self.several else self.task.goals[:1]
        self._questions = Questions(self.task.space, conditional=self.conditional)
        self._past = Past(self._questions, goals, stateful=self.stateful)
        name = f"{self.task.space.name} {self.name} seed {self.task.seed}"
        metrics = [goal.metric for goal in goals]
        self._copy = Copy(self.storage, name, self._past.directions, metrics) if self.storage else None

    def ask(self, number: int) -> Trial | None:
        if len(self._seen) >= self.task.space.size:
            return None
        found = self._proposed(number)
        return None if found is None else Trial(number, found, self.epochs)

    def _proposed(self, number: int) -> Architecture | None:
        space, known, drawn = self.task.space, None, 0
        running = self.pending.values()
        with self._past.draws(self._sampler("ask", number), running, once=self.once) as draws:
            for choices in islice(draws, self.draws):
                drawn += 1
                architecture = space.architecture(choices)
                if space.why_not(architecture) is None:
                    if not self.seen(architecture):
                        return architecture
                    known = architecture
        if drawn < self.draws or (self.once and known is not None):
            return known
        return self.fresh(generator(self.task.seed, "otherwise", number))

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        part = trial.epochs is not None and trial.epochs < self.epochs
        told = self._past.frozen(trial, result, part=part)
        if self._copy is not None:
            self._copy.add(told)
        self._past.add(told, self._sampler("tell", len(self.told)))

    def _sampler(self, purpose: str, number: int) -> BaseSampler:
        from nas.strategies.optuna_study import quiet

        with quiet():
            return self.sampler(derive(self.task.seed, purpose, number) % 2**32)


@STRATEGIES.register("tpe", budget="50trials")
class TPE(OptunaSampler):
    """TPE: densities of good and of bad choices; proposes where their ratio is highest (Optuna)

    Bergstra et al. 2011, Algorithms for hyper-parameter optimization, section 4; the joint density of all
    choices as in BOHB (Falkner et al. 2018). Choices that do not matter are no part of a trial.

    Args:
        startup: random trials before the densities are used.
        candidates: drawn from the density of the good, of which the best ratio is proposed.
        multivariate: one density of all choices together; without it one for each choice.
        epochs: of training for each candidate.
        storage: ``sqlite:///studies.db`` or a journal's path, for optuna-dashboard.
    """

    name = "tpe"
    conditional = True

    def __init__(
        self,
        startup: Annotated[int, Field(ge=0)] = 10,
        candidates: Count = 24,
        multivariate: bool = True,
        epochs: Count = 5,
        storage: str | None = None,
    ) -> None:
        super().__init__(epochs, storage)
        self.startup, self.candidates, self.multivariate = startup, candidates, multivariate

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(
            n_startup_trials=self.startup, n_ei_candidates=self.candidates, multivariate=self.multivariate,
            group=self.multivariate, constant_liar=True, seed=seed,
        )  # fmt: skip


@STRATEGIES.register("gp", budget="50trials")
class GaussianProcess(OptunaSampler):
    """Gaussian process with expected improvement, over all choices (Optuna)

    A Matérn kernel with a length a choice, distances of categories being 0 or 1; the logarithm of expected
    improvement (Ament et al. 2023), of hypervolume for several goals. Takes up to a second a trial.

    Args:
        startup: random trials before the process is fitted.
        deterministic: whether results have no noise.
        epochs: of training for each candidate.
        storage: ``sqlite:///studies.db`` or a journal's path, for optuna-dashboard.
    """

    name = "gp"
    draws = 2  # a fit each

    def __init__(
        self,
        startup: Count = 10,
        deterministic: bool = False,
        epochs: Count = 5,
        storage: str | None = None,
    ) -> None:
        super().__init__(epochs, storage)
        self.startup, self.deterministic = startup, deterministic

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import GPSampler

        return GPSampler(n_startup_trials=self.startup, deterministic_objective=self.deterministic, seed=seed)


@STRATEGIES.register("cmaes", budget="50trials")
class CMAES(OptunaSampler):
    """CMA-ES on ordered numeric decisions, TPE on the others (Optuna)

    Hansen 2016, The CMA evolution strategy: a tutorial. Decisions whose options are three or more rising or
    falling numbers (widths, depths, kernels) get their values from a normal distribution. One goal, the
    first.

    Args:
        population: of a generation; by default 4 + 3 ln(number of ordered choices).
        startup: random trials before the first generation.
        epochs: of training for each candidate.
        storage: ``sqlite:///studies.db`` or a journal's path, for optuna-dashboard.
    """

    name = "cmaes"
    stateful, several = True, False

    def __init__(
        self,
        population: Annotated[int, Field(ge=2)] | None = None,
        startup: Count = 1,
        epochs: Count = 5,
        storage: str | None = None,
    ) -> None:
        super().__init__(epochs, storage)
        self.population, self.startup = population, startup

    def check(self, space: SearchSpace) -> None:
        from nas.strategies.optuna_study import is_ordered

        if not any(is_ordered(decision.legal) for decision in space.decisions):
            raise ValueError(
                f"cmaes needs a decision whose options are three or more ordered numbers, as widths are; "
                f"{space.name!r} has none: search it with --strategy tpe"
            )

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import CmaEsSampler, TPESampler

        others = TPESampler(multivariate=False, constant_liar=True, seed=seed)
        return CmaEsSampler(
            popsize=self.population, n_startup_trials=self.startup, independent_sampler=others,
            warn_independent_sampling=False, seed=seed,
        )  # fmt: skip


class Genetic(OptunaSampler):
    """Optuna's genetic samplers."""

    stateful = True

    def __init__(
        self,
        population: Annotated[int, Field(ge=2)] = 20,
        crossover: Chance = 0.9,
        mutation: Chance | None = None,
        epochs: Count = 5,
        storage: str | None = None,
    ) -> None:
        super().__init__(epochs, storage)
        self.population, self.crossover, self.mutation = population, crossover, mutation


@STRATEGIES.register("nsga2", budget="100trials")
class NSGA2(Genetic):
    """NSGA-II: generations ranked by domination and crowding, for one goal or several (Optuna)

    Deb et al. 2002, A fast and elitist multiobjective genetic algorithm: NSGA-II.

    Args:
        population: of a generation; the first is random.
        crossover: chance that a child has two parents.
        mutation: chance that a choice is drawn anew; by default one choice a child on average.
        epochs: of training for each candidate.
        storage: ``sqlite:///studies.db`` or a journal's path, for optuna-dashboard.
    """

    name = "nsga2"

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(
            population_size=self.population, crossover_prob=self.crossover, mutation_prob=self.mutation,
            seed=seed,
        )  # fmt: skip


@STRATEGIES.register("nsga3", budget="100trials")
class NSGA3(Genetic):
    """NSGA-III: as NSGA-II, spread along reference points, for three goals and more (Optuna)

    Deb & Jain 2014, An evolutionary many-objective optimization algorithm using reference-point-based
    nondominated sorting approach, part I.

    Args:
        population: of a generation; the first is random.
        crossover: chance that a child has two parents.
        mutation: chance that a choice is drawn anew; by default one choice a child on average.
        divisions: of each goal's axis, between reference points.
        epochs: of training for each candidate.
        storage: ``sqlite:///studies.db`` or a journal's path, for optuna-dashboard.
    """

    name = "nsga3"

    def __init__(
        self,
        population: Annotated[int, Field(ge=2)] = 20,
        crossover: Chance = 0.9,
        mutation: Chance | None = None,
        divisions: Count = 3,
        epochs: Count = 5,
        storage: str | None = None,
    ) -> None:
        super().__init__(population, crossover, mutation, epochs, storage)
        self.divisions = divisions

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIIISampler

        return NSGAIIISampler(
            population_size=self.population, crossover_prob=self.crossover, mutation_prob=self.mutation,
            dividing_parameter=self.divisions, seed=seed,
        )  # fmt: skip


@STRATEGIES.register("brute_force", budget="100trials")
class BruteForce(OptunaSampler):
    """Brute force: every architecture once, in random order, as a tree of choices (Optuna)

    Ends when the tree has no open branch. Choices that do not matter open none.

    Args:
        epochs: of training for each candidate.
        storage: ``sqlite:///studies.db`` or a journal's path, for optuna-dashboard.
    """

    name = "brute_force"
    conditional = True
    draws = 100
    once = True

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import BruteForceSampler

        return BruteForceSampler(seed=seed)
