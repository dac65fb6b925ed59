"""Evaluators: what an architecture's result is."""

from nas.evaluators.objective import Objective
from nas.evaluators.scratch import EVALUATORS, Scratch

__all__ = ["EVALUATORS", "Objective", "Scratch"]
