"""Evaluators: what an architecture's result is."""

from nas.evaluators.objective import Objective
from nas.evaluators.proxies import PROXIES
from nas.evaluators.scratch import EVALUATORS, Scratch
from nas.evaluators.table import Table, Tabular
from nas.evaluators.zero_cost import ZeroCost

__all__ = ["EVALUATORS", "PROXIES", "Objective", "Scratch", "Table", "Tabular", "ZeroCost"]
