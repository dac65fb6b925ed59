"""Where trials are evaluated."""

from nas.execution.executor import EXECUTORS, Evaluator, Executor, Local, Result, Trial, devices

__all__ = ["EXECUTORS", "Evaluator", "Executor", "Local", "Result", "Trial", "devices"]
