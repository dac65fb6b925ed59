"""Batch normalisation (Ioffe & Szegedy 2015) against none, over learning rates.

    python examples/experiments/batch_norm.py

Six 3x3 convolutions with ReLUs on scikit-learn's digits, plain gradient descent at a constant rate: with the
norms a wide range of rates trains, without them a narrow one.
"""

from __future__ import annotations

from functools import partial
from statistics import mean

import matplotlib.pyplot as plt
from common import COLOURS, averaged, data_of, options, save, single_thread, table, trained
from torch import nn

from nas.recipe import Recipe

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def convolutions(channels: int, classes: int, *, norm: bool, width: int = 16, depth: int = 6) -> nn.Module:
    """`depth` convolutions, halving the picture after every second one; He et al. 2015's start."""
    layers: list[nn.Module] = []
    for number in range(depth):
        stride = 2 if number and number % 2 == 0 else 1
        conv = nn.Conv2d(width if number else channels, width, 3, stride, padding=1, bias=not norm)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, *([nn.BatchNorm2d(width)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def main(arguments: list[str] | None = None) -> None:
    chosen = options(__doc__ or "", data="digits", limit=2000, epochs=8, seeds=3).parse_args(arguments)
    single_thread()
    data = data_of(chosen)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8))
    shades = plt.colormaps["viridis"]
    rows = []
    for number, norm in enumerate((True, False)):
        name = "with batch norm" if norm else "without"
        ends = []
        for place, rate in enumerate(RATES):
            recipe = Recipe(
                epochs=chosen.epochs, batch=32, lr=rate, schedule="constant", momentum=0.0, weight_decay=0.0,
                clip=0.0,
            )  # fmt: skip
            build = partial(convolutions, data.input[0], len(data.classes), norm=norm)
            runs = [trained(build, data, recipe, seed=seed)[1] for seed in range(chosen.seeds)]
            whole = [run for run in runs if len(run) == chosen.epochs]
            lost = len(runs) - len(whole)
            chance = 1 - 1 / len(data.classes)
            errors = [1 - run[-1]["test_accuracy"] if run in whole else chance for run in runs]
            ends.append(100 * mean(errors))
            if whole:
                losses = averaged(whole, "train_loss")
                colour = shades(place / len(RATES))
                axes[1 + number].plot(
                    range(1, chosen.epochs + 1), losses, ".-", color=colour, label=f"{rate:g}"
                )
            rows.append([name, f"{rate:g}", f"{ends[-1]:.1f}", lost or ""])
        axes[0].plot(RATES, ends, "o-" if norm else "s--", color=COLOURS[number], label=name)
        axes[1 + number].set(title=f"training loss, {name}", xlabel="epoch", yscale="log", ylim=(2e-3, 4))
        axes[1 + number].legend(title="rate", fontsize=8, ncols=2, loc="lower left")
    axes[0].set(title=f"test error in % after {chosen.epochs} epochs", xlabel="learning rate")
    axes[0].set(xscale="log", yscale="log", ylim=(0.4, 130))
    axes[0].set_yticks(
        [0.5, 1, 2, 5, 10, 20, 50, 100], labels=["0.5", "1", "2", "5", "10", "20", "50", "100"]
    )
    axes[0].legend()
    table(["", "rate", "test error in %", f"no number, of {chosen.seeds}"], rows)
    save(figure, chosen, "batch_norm")


if __name__ == "__main__":
    main()
