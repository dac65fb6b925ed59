"""The expected cost of the network that mixing weights describe, as a differentiable function of them.

Cai, Zhu, Han ("ProxylessNAS", ICLR 2019, section 3.3) add up the expected cost of each block:
its options' costs, weighed by their probabilities. So that this holds for every space, each option's cost is
what it adds to exact counts of whole networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nas.counting import Latencies, cost
from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.seeding import generator
from nas.strategies.shared_weights import TINY

Measure = Literal["macs", "params", "latency"]
SAMPLES = 3  # networks that are counted for each option of a row


@dataclass(frozen=True)
class ExpectedCost:
    """What each option adds to the cost of a network.

    `constant` and `options` (decision -> rows x options) are in multiply-adds, parameters or milliseconds.
    `error`: by how much their sums miss the counts, as a share (root mean square); zero where options do not
    interact.
    """

    space: SearchSpace
    constant: float
    options: Mapping[str, Tensor]
    error: float

    def __call__(self, tables: Mapping[str, Tensor]) -> Tensor:
        """The expected cost under tables of mixing weights (rows, options): a scalar.

        It is the mean over architectures drawn from the tables: of each decision, rows uniformly, in each
        one option; or, where one row is kept, a row with its option. Options that no value may have are left
        out of the draw.
        """
        total: Tensor | float = self.constant
        for decision in self.space.decisions:
            chances = probabilities(decision, tables[decision.name])
            total = total + (chances * self.options[decision.name].to(chances)).sum()
        assert isinstance(total, Tensor)
        return total


def probabilities(decision: Decision, table: Tensor) -> Tensor:
    """The chance of each option (rows, options) to be part of a value drawn from a table."""
    legal = torch.tensor([option not in decision.never for option in decision.options], device=table.device)
    table = table * legal
    if decision.keep == 1:
        return table / table.sum().clamp_min(TINY)
    return table / table.sum(-1, keepdim=True).clamp_min(TINY) * (decision.keep / decision.rows)


def expected_cost(
    space: SearchSpace, measure: Measure = "macs", *, seed: int = 0, device: str | torch.device = "cpu"
) -> ExpectedCost:
    """Fits what each option adds to counts of random networks of a space (least squares).

    Where options do not interact the sums are exact; elsewhere they are the best sums there are. All networks
    are counted if there are few. ``latency`` adds up what operations take alone on the `device`, measured
    anew in each call. Raises ValueError if no choices make a network.
    """
    latencies = Latencies(torch.device(device))
    unknown = 1 + sum(d.rows * len(d.options) for d in space.decisions)
    wanted = SAMPLES * unknown + 20
    codes, costs = [], []
    for architecture in _networks(space, wanted, seed):
        try:
            filled = space.fill(architecture)
            counted = latencies(filled) if measure == "latency" else getattr(cost(filled), measure)
        except ValueError:  # no network, or one that cannot be built
            continue
        codes.append([1.0, *space.encode(architecture)])
        costs.append(float(counted))
    if not codes:
        raise ValueError(f"{wanted} random choices of {space.name!r} made no network to count")
    a, b = torch.tensor(codes, dtype=torch.float64), torch.tensor(costs, dtype=torch.float64)
    size = b.mean() if b.any() else b.new_ones(())
    found = torch.linalg.lstsq(a, b[:, None] / size, driver="gelsd").solution[:, 0]
    error = (a @ found - b / size).square().mean().sqrt().item()
    options, start = {}, 1
    for d in space.decisions:
        end = start + d.rows * len(d.options)
        options[d.name] = (found[start:end] * size).view(d.rows, len(d.options))
        start = end
    return ExpectedCost(space, (found[0] * size).item(), options, error)


def _networks(space: SearchSpace, wanted: int, seed: int) -> Iterator[Architecture]:
    """All architectures of a small space, else random ones: uniform choices, legal or not."""
    if space.size <= wanted:
        yield from map(space.at, range(space.size))
        return
    for number in range(wanted):
        rng = generator(seed, "expected cost", number)
        yield space.architecture({d.name: d.sample(rng) for d in space.decisions})
