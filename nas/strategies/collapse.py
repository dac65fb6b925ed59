"""The collapse guard: when does a differentiable search drift to a network of skip connections?

A skip connection is trained from the first step on and gains weight as long as convolutions lag behind; then
the derived network is shallow and poor although the mixture does well (Liang et al., "DARTS+", 2019; Zela et
al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020). Where `none` is an
option, the convolutions may also be cut off from the output. The signs that are measured: the number of skip
connections, that of operations with weights which reach the output, the gap between mixture and derived path,
and, on demand, the curvature of the validation loss in the alphas, whose growth comes before the collapse
(Zela et al., section 4).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from nas.counting import node_cost
from nas.graph import Hole, Option, Scalar
from nas.isomorphism import IDENTITIES
from nas.search_space import Architecture, SearchSpace

Reaction = Literal["warn", "stop", "off"]
PATIENCE = 5  # epochs in a row: early in a search the strongest options change from one to the next
WIDE = (64, 16, 16)  # a shape at which an operation is looked at
CHANCE = 0.01  # with which random choices would have as many skip connections: below it, it is no chance
DOUBTFUL = 0.05  # below this chance, if it lasts
STEPS = 100  # of the power iteration, at most
PRECISION = 1e-4  # relative change of the eigenvalue at which the iteration ends


def is_skip(space: SearchSpace, option: Option) -> bool:
    """Whether an option passes its input on."""
    return space.graph.operation(option) in IDENTITIES


def skips(space: SearchSpace, architecture: Architecture) -> int:
    """The number of choices of an architecture that are skip connections."""
    return sum(is_skip(space, o) for value in architecture.choices.values() for _, o in value)


def chances(space: SearchSpace) -> list[float]:
    """For each choice of an architecture, the chance of a skip connection if it is drawn uniformly."""
    found: list[float] = []
    for decision in space.decisions:
        share = sum(is_skip(space, option) for option in decision.legal) / len(decision.legal)
        found += [share] * decision.keep
    return found


def tail(probabilities: Iterable[float], count: int) -> float:
    """The chance that at least `count` of independent events with these probabilities happen, exactly."""
    exactly = [1.0]  # the chance of 0, 1, 2 ... of the events so far
    for p in probabilities:
        exactly = [
            stay * (1 - p) + come * p for stay, come in zip([*exactly, 0.0], [0.0, *exactly], strict=True)
        ]
    return sum(exactly[max(0, count) :])


def weighted(space: SearchSpace, architecture: Architecture) -> int:
    """The number of choices of an architecture that are operations with weights and reach the output."""
    filled = space.graph.fill(architecture.choices)
    alive = {filled.output}
    for node in reversed(filled.nodes):
        if node.name in alive:
            alive.update(node.inputs)
    chosen = {node.name: node.op for node in space.graph.nodes if isinstance(node.op, Hole)}
    return len(
        {
            chosen[node.name][:2]
            for node in filled.nodes
            if node.name in alive and node.name in chosen and _has_weights(str(node.op), node.attrs)
        }
    )


@cache
def _has_weights(op: str, attrs: tuple[tuple[str, Scalar], ...]) -> bool:
    """Whether an operation that keeps its input's size has weights."""
    try:
        return node_cost(op, WIDE, WIDE[0], 1, attrs, False)[0] > 0
    except (ValueError, RuntimeError):  # it never has that size
        return True


@dataclass
class Guard:
    """Looks at the derived network, epoch by epoch.

    An epoch is collapsed if uniformly random choices would have as many skip connections with a chance below
    `CHANCE`, and there are more of them than after the first epoch: to begin with many is no drift. Or if for
    `PATIENCE` epochs in a row that chance was below `DOUBTFUL` and there were more of them, or no operation
    with weights reached the output although one did after the first epoch.

    `first`: skip connections and weighted operations after the first epoch. `since`: the first collapsed
    epoch, from 1. `healthy`: the last epoch that shows no sign before it, and the literal of its network.
    `doubtful`: how many epochs in a row, up to now, show one.
    """

    space: SearchSpace
    first: tuple[int, int] | None = None
    since: int | None = None
    healthy: tuple[int, str] | None = None
    doubtful: int = 0

    def look(self, epoch: int, architecture: Architecture) -> dict[str, float]:
        """The metrics of the derived network after `epoch`, from 1; nothing if no operation is chosen.

        Warns, in a sentence, at the first collapse.
        """
        possible = chances(self.space)
        count, learned = skips(self.space, architecture), weighted(self.space, architecture)
        self.first = (count, learned) if self.first is None else self.first
        if not any(possible) and not any(self.first):
            return {}
        chance = tail(possible, count)
        grown, barren = count > self.first[0], not learned and self.first[1] > 0
        self.doubtful = self.doubtful + 1 if barren or (grown and chance < DOUBTFUL) else 0
        collapsed = (grown and chance < CHANCE) or self.doubtful >= PATIENCE
        if collapsed and self.since is None:
            self.since = epoch
            warnings.warn(
                f"the search has collapsed in epoch {epoch}: {count} of {len(possible)} choices are skip "
                f"connections ({self.first[0]} after the first epoch), as random choices have with a chance "
                f"of {100 * chance:.2g} %, and {learned} operations with weights reach the output; do not "
                "trust what is found from here on (strategy.guard=stop ends a search there)",
                stacklevel=2,
            )
        elif self.since is None and not self.doubtful:
            self.healthy = (epoch, architecture.literal)
        return {
            "skip_connections": float(count),
            "skip_share": count / len(possible),
            "weighted_operations": float(learned),
            "collapsed": float(collapsed),
        }

    def state(self) -> dict[str, Any]:
        """What `load` takes."""
        return {name: value for name, value in vars(self).items() if name != "space"}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        vars(self).update(state)


def largest_eigenvalue(loss: Tensor, parameters: Sequence[Tensor]) -> float:
    """The largest eigenvalue of the Hessian of `loss` with respect to `parameters`, by power iteration.

    Products of the Hessian with a vector are second backward passes (Pearlmutter, 1994); the graph of `loss`
    is kept. The iteration finds the eigenvalue of largest size; where that is negative, or one of each sign
    is as large, it is run again on the Hessian moved up by that size.
    """
    flat = _flat(torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True))

    def product(vector: Tensor) -> Tensor:
        return _flat(torch.autograd.grad(flat, parameters, vector, retain_graph=True, materialize_grads=True))

    start = torch.randn(len(flat), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(flat)
    size, value = _power(product, start)
    if value >= (1 - 10 * PRECISION) * size:
        return value
    return _power(lambda vector: product(vector) + size * vector, start)[1] - size


def _power(product: Callable[[Tensor], Tensor], vector: Tensor) -> tuple[float, float]:
    """Of a symmetric matrix, the largest size of an eigenvalue, and the Rayleigh quotient reached."""
    size = value = 0.0
    for _ in range(STEPS):
        vector = vector / torch.linalg.vector_norm(vector)
        image = product(vector)
        before, size = size, torch.linalg.vector_norm(image).item()
        value = (vector @ image).item()
        if size == 0.0 or abs(size - before) <= PRECISION * size:
            break
        vector = image
    return size, value


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
