"""A search space as define-by-run suggestions of Optuna's.

    def objective(trial: optuna.Trial) -> float:
        architecture = suggest(trial, "nasbench201")
        ...

    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=50)
    best = suggest(optuna.trial.FixedTrial(study.best_params), "nasbench201")

The parameters are those of the strategies that are samplers of Optuna's: ordered numbers are whole numbers,
all else is categorical; where a decision keeps some of its rows alone, which ones is a parameter too.
"""

from __future__ import annotations

from functools import lru_cache

from optuna import TrialPruned
from optuna.trial import BaseTrial

from nas.search_space import Architecture, SearchSpace
from nas.search_space import space as space_at
from nas.strategies.optuna_study import Questions, answered


def suggest(trial: BaseTrial, space: str | SearchSpace, *, conditional: bool = True) -> Architecture:
    """An architecture of a space, each of its decisions suggested by `trial`.

    Its literal is kept as the trial's user attribute ``literal``. A `FixedTrial` of a trial's parameters
    gives its architecture again.

    Args:
        trial: of a study's objective, or of ``study.ask()``; or a `FixedTrial`.
        space: a name or another address, or a space.
        conditional: ask nothing that does not matter after the answers so far, as the operation of a layer
            that is not there; it stays at its first option. Without it every trial has the same parameters,
            which Gaussian processes and CMA-ES need.

    Raises TrialPruned, with the rule in a sentence, if what was suggested breaks a rule or limit of the
    space: the study goes on, and its sampler learns to stay away. Nothing is repaired, so that a trial's
    parameters are its architecture. Raises ValueError if there is no such space.
    """
    questions = _questions(space, conditional)
    architecture = questions.space.architecture(questions.choices(lambda each: answered(trial, each)))
    trial.set_user_attr("literal", architecture.literal)
    if (why := questions.space.why_not(architecture)) is not None:
        raise TrialPruned(f"{architecture.literal} is not legal: {why}")
    return architecture


@lru_cache(maxsize=8)
def _questions(space: str | SearchSpace, conditional: bool) -> Questions:
    """Kept, since what a space remembers of questions makes the next ones quick."""
    return Questions(space_at(space) if isinstance(space, str) else space, conditional=conditional)
