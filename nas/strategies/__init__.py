"""Strategies: how the next architecture, or the mixing weights, are chosen."""

from nas.execution import Executor, Trial
from nas.strategies.asha import Asha
from nas.strategies.ask_tell import AskTell
from nas.strategies.beta_darts import BetaDarts
from nas.strategies.bohb import Bohb
from nas.strategies.darts import Darts
from nas.strategies.darts_pt import DartsPT
from nas.strategies.drnas import DrNAS
from nas.strategies.enas import ENAS
from nas.strategies.evolution import Evolution, RegularizedEvolution
from nas.strategies.exhaustive import Exhaustive
from nas.strategies.fair_darts import FairDarts
from nas.strategies.fairnas import FairNAS
from nas.strategies.gdas import GDAS
from nas.strategies.hyperband import Hyperband
from nas.strategies.local_search import LocalSearch
from nas.strategies.ofa import OFA
from nas.strategies.optuna_samplers import CMAES, NSGA2, NSGA3, TPE, BruteForce, GaussianProcess
from nas.strategies.p_darts import PDarts
from nas.strategies.pareto_evolution import ParetoEvolution
from nas.strategies.pc_darts import PCDarts
from nas.strategies.pnas import PNAS
from nas.strategies.ppo import PPO
from nas.strategies.predictor import Predictor
from nas.strategies.proxyless import Proxyless
from nas.strategies.r_darts import RobustDarts
from nas.strategies.random_search import RandomSearch
from nas.strategies.reinforce import Reinforce
from nas.strategies.rsws import RSWS
from nas.strategies.sdarts import SmoothDarts
from nas.strategies.snas import SNAS
from nas.strategies.spos import SPOS
from nas.strategies.strategy import (
    STRATEGIES,
    OneShot,
    Report,
    Strategy,
    Task,
    has_supernet,
)
from nas.strategies.zero_cost import ZeroCost

__all__ = [
    "CMAES", "ENAS", "GDAS", "NSGA2", "NSGA3", "OFA", "PNAS", "PPO", "RSWS", "SNAS", "SPOS",
    "STRATEGIES", "TPE", "Asha", "AskTell", "BetaDarts", "Bohb", "BruteForce", "Darts", "DartsPT",
    "DrNAS", "Evolution", "Executor", "Exhaustive", "FairDarts", "FairNAS", "GaussianProcess",
    "Hyperband", "LocalSearch", "OneShot", "PCDarts", "PDarts", "ParetoEvolution", "Predictor",
    "Proxyless", "RandomSearch", "RegularizedEvolution", "Reinforce", "Report", "RobustDarts",
    "SmoothDarts", "Strategy", "Task", "Trial", "ZeroCost", "has_supernet",
]  # fmt: skip
