"""Strategies: how the next architecture, or the mixing weights, are chosen."""

from nas.execution import Executor, Trial
from nas.strategies.ask_tell import AskTell
from nas.strategies.darts import Darts
from nas.strategies.evolution import Evolution, RegularizedEvolution
from nas.strategies.exhaustive import Exhaustive
from nas.strategies.local_search import LocalSearch
from nas.strategies.pareto_evolution import ParetoEvolution
from nas.strategies.random_search import RandomSearch
from nas.strategies.strategy import (
    STRATEGIES,
    OneShot,
    Report,
    Strategy,
    Task,
)

__all__ = [
    "STRATEGIES", "AskTell", "Darts", "Executor", "OneShot", "ParetoEvolution", "RandomSearch", "Report",
    "Strategy", "Task", "Trial",
]  # fmt: skip
