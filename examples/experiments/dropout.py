"""Dropout (Srivastava et al. 2014) against none, in a perceptron that knows its few training images by heart.

    python examples/experiments/dropout.py

784-512-512-10 with ReLUs, 1,000 images of MNIST, all 10,000 test images; with dropout a fifth of the pixels
and half of the hidden units are left out, as in the paper.
"""

from __future__ import annotations

import math
from functools import partial
from statistics import mean, stdev

import matplotlib.pyplot as plt
from common import COLOURS, averaged, data_of, options, save, single_thread, table, trained
from torch import nn

from nas.recipe import Recipe

RATES = {"none": (0.0, 0.0), "hidden 0.5": (0.0, 0.5), "pixels 0.2, hidden 0.5": (0.2, 0.5)}


def perceptron(inputs: int, classes: int, *, pixels: float, hidden: float, width: int = 512) -> nn.Module:
    """Two hidden layers, with dropout in front of every layer."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Dropout(pixels), nn.Linear(inputs, width), nn.ReLU()),
        *(nn.Dropout(hidden), nn.Linear(width, width), nn.ReLU()),
        *(nn.Dropout(hidden), nn.Linear(width, classes)),
    )


def main(arguments: list[str] | None = None) -> None:
    chosen = options(__doc__ or "", data="mnist", limit=1000, epochs=40, seeds=3).parse_args(arguments)
    single_thread()
    data = data_of(chosen)
    recipe = Recipe(
        epochs=chosen.epochs, batch=50, lr=0.02, schedule="constant", momentum=0.9, weight_decay=0.0, clip=0.0
    )
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    rows = []
    for colour, (name, (pixels, hidden)) in zip(COLOURS, RATES.items(), strict=False):
        size = math.prod(data.input)
        build = partial(perceptron, size, len(data.classes), pixels=pixels, hidden=hidden)
        runs = [trained(build, data, recipe, seed=seed)[1] for seed in range(chosen.seeds)]
        curves = {key: averaged(runs, key) for key in ("train_loss", "test_accuracy", "test_loss")}
        steps = range(1, len(curves["train_loss"]) + 1)
        axes[0].plot(steps, curves["train_loss"], color=colour, label=name)
        axes[1].plot(steps, curves["test_loss"], color=colour)
        axes[2].plot(steps, [100 * (1 - value) for value in curves["test_accuracy"]], color=colour)
        errors = [100 * (1 - run[-1]["test_accuracy"]) for run in runs]
        spread = f" ± {stdev(errors):.2f}" if len(errors) > 1 else ""
        rows.append([name, f"{curves['train_loss'][-1]:.4f}", f"{curves['test_loss'][-1]:.3f}",
                     f"{mean(errors):.2f}{spread}"])  # fmt: skip
    for axis, title in zip(axes, ("training loss", "test loss", "test error in %"), strict=True):
        axis.set(title=title, xlabel="epoch")
    axes[0].set_yscale("log")
    for axis in axes[1:]:  # the first epochs are far above
        lowest = min(min(line.get_ydata()) for line in axis.lines)
        axis.set_ylim(0.9 * lowest, 2 * lowest)
    axes[2].legend(*axes[0].get_legend_handles_labels(), title="dropout")
    table(["dropout", "training loss", "test loss", "test error in %"], rows)
    save(figure, chosen, "dropout")


if __name__ == "__main__":
    main()
