"""Where trials are evaluated."""

from nas.execution import ray  # noqa: F401  (registered by its import)
from nas.execution.executor import EXECUTORS, Evaluator, Executor, Result, Trial, devices
from nas.execution.local import Local

__all__ = ["EXECUTORS", "Evaluator", "Executor", "Local", "Result", "Trial", "devices"]
