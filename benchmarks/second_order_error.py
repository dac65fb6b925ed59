"""Relative error of DARTS's finite difference (Liu et al. 2019, equations 7 and 8), against the exact one.

    python benchmarks/second_order_error.py [--channels 4] [--cells 3] [--batch 16] [--steps 20] [--seeds 3]

A small supernet of the DARTS space is trained on digits for some steps (alphas and weights, first order).
Then the gradient of the alphas through one step of training is computed in each way on the same pair of
batches, with batch statistics, and compared with the double backward pass in float64. Two errors, medians
over seeds: of the whole gradient, and of the part that makes it second order (less its direct part).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor

from nas.data import load
from nas.data.batches import Examples
from nas.search_space import space
from nas.strategies import Darts, Task

Batch = tuple[Tensor, Tensor]
METHODS = {  # name -> arguments of Darts
    "direct part alone": {},
    "finite, 0.01 / |v|": {"unrolled": "finite", "epsilon": 1e-2},
    "finite, 1e-4 / |v|": {"unrolled": "finite", "epsilon": 1e-4},
    "finite, 1e-6 / |v|": {"unrolled": "finite", "epsilon": 1e-6},
    "exact": {"unrolled": "exact"},
}


def trained(options: argparse.Namespace, seed: int) -> tuple[Darts, Batch, Batch]:
    """A search after some steps, and the pair of batches that comes next."""
    data = load("digits", root=Path())
    held = data.split(0.5, seed=seed)
    made = space("darts", channels=options.channels, cells=options.cells, input=data.input)
    strategy = Darts(order=1, batch=options.batch, lr=0.05, alpha_lr=0.02)
    strategy.horizon, strategy.rate = 1, 0.05
    strategy.prepare(Task(made, seed=seed, examples=Examples(held.train, held.valid, data.mean, data.std)))
    strategy.supernet.train()
    pairs = zip(strategy.train_batches.epoch(0), strategy.valid_batches.epoch(0), strict=True)
    for train, valid in list(pairs)[: options.steps]:
        strategy.step(train, valid)
    strategy.order = 2
    return strategy, next(strategy.train_batches.epoch(1)), next(strategy.valid_batches.epoch(1))


def cast(strategy: Darts, dtype: torch.dtype) -> None:
    """Weights, momentum and alphas in another precision, in place."""
    strategy.supernet.to(dtype)
    for state in strategy.weight_optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"].to(dtype)
    for alpha in strategy.alphas.values():
        alpha.data = alpha.data.to(dtype)


def gradient(strategy: Darts, name: str, train: Batch, valid: Batch) -> Tensor:
    """All alphas in one vector, in float64."""
    dtype = next(strategy.supernet.parameters()).dtype
    batches = [(x.to(dtype), y) for x, y in (train, valid)]
    if name == "direct part alone":
        stepped = strategy.stepped(strategy.weights, batches[0])
        stepped = {key: weight.detach() for key, weight in stepped.items()}
        parts = torch.autograd.grad(strategy.loss(stepped, batches[1]), list(strategy.alphas.values()))
    else:
        strategy.unrolled, strategy.epsilon = "finite", 0.01
        for key, value in METHODS[name].items():
            setattr(strategy, key, value)
        parts = tuple(strategy.alpha_gradient(*batches).values())
    return torch.cat([part.flatten() for part in parts]).double()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("channels", 4), ("cells", 3), ("batch", 16), ("steps", 20), ("seeds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    errors: dict[tuple[torch.dtype, str], list[tuple[float, float]]] = {}
    for seed in range(options.seeds):
        strategy, train, valid = trained(options, seed)
        cast(strategy, torch.float64)
        exact = gradient(strategy, "exact", train, valid)
        second = exact - gradient(strategy, "direct part alone", train, valid)
        for dtype in (torch.float64, torch.float32):
            cast(strategy, dtype)
            for name in METHODS:
                off = (gradient(strategy, name, train, valid) - exact).norm()
                both = ((off / exact.norm()).item(), (off / second.norm()).item())
                errors.setdefault((dtype, name), []).append(both)
    print(f"{'':8} {'':20} {'of the gradient':>16} {'of its second-order part':>26}")
    for (dtype, name), pairs in errors.items():
        whole, part = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{str(dtype)[6:]:8} {name:20} {whole:16.1e} {part:26.1e}")


if __name__ == "__main__":
    main()
