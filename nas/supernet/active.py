"""Active: what of a program is run where some options are not."""

from __future__ import annotations

from nas.network import JOIN_FUNCTIONS, Program, Runner, Step
from nas.supernet.mixture import Gate, Mixture, Recomputed, Weights


def idle(runner: Runner, weights: Weights) -> bool:
    """Whether nothing of what a node mixes is active, so that it is zero. What is around it is looked
    through, but for what lets channels pass by (`Partial`).
    """
    if isinstance(runner, Mixture):
        return runner.idle(weights.runs)
    if isinstance(runner, Gate) and not weights.runs(runner.pick):
        return True
    inner = runner.mixture if isinstance(runner, Recomputed) else getattr(runner, "runner", None)
    return inner is not None and idle(inner, weights)


def _adds(runner: Runner) -> bool:
    """Whether a node is a sum, perhaps one that is there by choice."""
    while isinstance(runner, Gate):
        runner = runner.runner
    return runner is JOIN_FUNCTIONS["sum"]


def active_steps(program: Program, weights: Weights) -> tuple[Step, ...]:
    """The steps that lead to the output of a program. Of a sum, idle terms are left out, and with them what
    they alone read; where all are idle, the first one tells the shape.
    """
    if weights.active is None:
        return program.inference
    gone = {step.target for step in program.inference if step.mixed and idle(step.run, weights)}
    steps: list[Step] = []
    read = {program.output}
    for step in reversed(program.inference):
        if step.target in read:
            inputs = step.inputs
            if _adds(step.run):
                inputs = tuple(place for place in inputs if place not in gone) or inputs[:1]
            free = tuple(place for place in dict.fromkeys(inputs) if place not in read)  # no later step reads
            steps.append(step._replace(inputs=inputs, free=free))
            read.update(inputs)
    return tuple(reversed(steps))
