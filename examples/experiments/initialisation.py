"""How weights begin: zero, N(0, 0.01^2), N(0, 1), Xavier (Glorot & Bengio 2010), He (He et al. 2015).

    python examples/experiments/initialisation.py

A perceptron of ten hidden layers of 256, with tanh and with ReLU, on 3,000 images of MNIST: the spread of
what each layer gives and of the gradient that comes back to it before the first step, and the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import mean

import matplotlib.pyplot as plt
import torch
from common import COLOURS, averaged, data_of, options, save, single_thread, table, trained
from torch import Tensor, nn

from nas.data import Dataset
from nas.data.batches import Batches
from nas.recipe import Recipe
from nas.seeding import randomness

DEPTH, WIDTH = 10, 256
STARTS: dict[str, Callable[[Tensor], object]] = {
    "zero": nn.init.zeros_,
    "N(0, 0.01²)": partial(nn.init.normal_, std=0.01),
    "N(0, 1)": nn.init.normal_,
    "Xavier": nn.init.xavier_normal_,
    "He": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
}
LOOKS = ("x-", "v--", "^-", "o-", "s-")
SMALLEST = 1e-14  # of the plot: what is less, zero too, is drawn there


def perceptron(
    inputs: int, classes: int, *, act: type[nn.Module], start: Callable[[Tensor], object]
) -> nn.Module:
    """Hidden layers in `network[1:-1]`, two modules each; biases are 0."""
    sizes = [inputs, *[WIDTH] * DEPTH]
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), act())]
    network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(WIDTH, classes))
    for module in network:
        if isinstance(module, nn.Linear):
            start(module.weight)
            nn.init.zeros_(module.bias)
    return network


def spreads(network: nn.Sequential, data: Dataset, *, seed: int) -> tuple[list[float], list[float]]:
    """Standard deviation of each hidden layer's output, and of the loss's gradient there, for 500 images."""
    batches = Batches(
        data.train, mean=data.mean, std=data.std, batch=500, device="cpu", seed=seed, shuffle=True
    )
    x, labels = next(iter(batches.epoch(0)))
    outputs = []
    for module in network:
        x = module(x)
        if not isinstance(module, nn.Flatten | nn.Linear):
            x.retain_grad()
            outputs.append(x)
    nn.functional.cross_entropy(x, labels).backward()
    network.zero_grad()
    gradients = [torch.zeros_like(out) if out.grad is None else out.grad for out in outputs]
    return [out.std().item() for out in outputs], [gradient.std().item() for gradient in gradients]


def main(arguments: list[str] | None = None) -> None:
    chosen = options(__doc__ or "", data="mnist", limit=3000, epochs=15, seeds=1).parse_args(arguments)
    single_thread()
    data = data_of(chosen)
    recipe = Recipe(
        epochs=chosen.epochs, batch=50, lr=0.01, schedule="constant", momentum=0.9, weight_decay=0.0, clip=0.0
    )
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2))
    rows = []
    for line, act in zip(axes, (nn.Tanh, nn.ReLU), strict=True):
        failed = []
        for colour, mark, (name, start) in zip(COLOURS, LOOKS, STARTS.items(), strict=False):
            build = partial(perceptron, math.prod(data.input), len(data.classes), act=act, start=start)
            with randomness(0, "network"):
                forward, backward = spreads(build(), data, seed=0)
            look = {"color": colour, "markersize": 4, "label": name}
            for axis, values in zip(line, (forward, backward), strict=False):
                axis.plot(range(1, DEPTH + 1), [max(value, SMALLEST) for value in values], mark, **look)
            runs = [trained(build, data, recipe, seed=seed)[1] for seed in range(chosen.seeds)]
            losses = averaged(runs, "train_loss")
            line[2].plot(range(1, len(losses) + 1), losses, mark, **look)
            whole = all(len(run) == chosen.epochs for run in runs)
            failed += [] if whole else [name]
            errors = [100 * (1 - run[-1]["test_accuracy"]) for run in runs if run]
            error = f"{mean(errors):.1f}" if whole else "no number"
            rows.append([f"{act.__name__}, {name}", *(f"{value:.1e}" for value in
                        (forward[0], forward[-1], backward[-1], backward[0])), error])  # fmt: skip
        for axis, title in zip(
            line, ("output of a layer", "gradient at a layer", "training loss"), strict=True
        ):
            axis.set(title=f"{act.__name__}: {title}", yscale="log")
            axis.set_xlabel("epoch" if axis is line[2] else "hidden layer")
        line[0].set_ylabel("standard deviation before training")
        line[2].set_ylim(3e-4, 10)
        for name in failed:
            line[2].text(
                0.5, 0.93, f"{name}: the loss is no number", transform=line[2].transAxes, ha="center"
            )
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    table(["", "output 1", f"output {DEPTH}", f"gradient {DEPTH}", "gradient 1", "test error in %"], rows)
    save(figure, chosen, "initialisation")


if __name__ == "__main__":
    main()
