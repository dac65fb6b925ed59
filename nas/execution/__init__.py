"""Where trials are evaluated."""

from nas.execution.executor import EXECUTORS, Evaluator, Executor, Result, Trial, devices
from nas.execution.local import Local
from nas.execution.ray import RayPool

__all__ = ["EXECUTORS", "Evaluator", "Executor", "Local", "RayPool", "Result", "Trial", "devices"]
