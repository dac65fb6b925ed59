"""What the experiments share: options, a training with its curve, tables, and the look of a plot."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

import matplotlib
import torch
from torch import nn

from nas.data import Dataset, load
from nas.recipe import Recipe
from nas.seeding import randomness
from nas.train import accuracy, fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Okabe & Ito's colours, which the colour-blind tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
plt.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "font.size": 10, "savefig.dpi": 110})


def options(about: str, *, data: str, limit: int, epochs: int, seeds: int) -> argparse.ArgumentParser:
    """The arguments that every experiment has, with its own defaults."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", default=data, help="name of a data set")
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("NAS_DATA", "data")))
    parser.add_argument("--limit", type=int, default=limit, help="training images, class-balanced")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="folder of the plot")
    return parser


def data_of(chosen: argparse.Namespace) -> Dataset:
    """The data, with at most `limit` training images."""
    data = load(chosen.data, root=chosen.data_dir)
    return data.limited(min(chosen.limit, len(data.train)))


def trained(
    build: Callable[[], nn.Module], data: Dataset, recipe: Recipe, *, seed: int
) -> tuple[nn.Module, list[dict[str, float]]]:
    """A network with the start and the order of images of `seed`, and what is seen of it after each epoch.

    A training whose loss is no number any more ends there.
    """
    with randomness(seed, "network"):
        network = build()
    norms = {"mean": data.mean, "std": data.std}
    seen: list[dict[str, float]] = []
    try:
        for epoch in fit(network, data.train, recipe=recipe, seed=seed, **norms):
            on_test = accuracy(network, data.test, **norms)
            seen.append({**epoch.metrics, **{f"test_{key}": value for key, value in on_test.items()}})
    except FloatingPointError:
        pass
    return network, seen


def averaged(runs: Sequence[Sequence[dict[str, float]]], key: str) -> list[float]:
    """The mean over the runs after each epoch that all of them have."""
    return [mean(epoch[key] for epoch in epochs) for epochs in zip(*runs, strict=False)]


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their heads, in columns."""
    lines = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        print("  ".join([line[0].ljust(widths[0]), *cells]))


def save(figure: plt.Figure, chosen: argparse.Namespace, name: str) -> None:
    """Write the plot and say where."""
    chosen.out.mkdir(parents=True, exist_ok=True)
    path = chosen.out / f"{name}.png"
    figure.savefig(path, bbox_inches="tight")
    print(f"\nwrote {path}")


def single_thread() -> None:
    """Small tensors gain nothing from more, and one thread makes a run repeat to the bit."""
    torch.set_num_threads(1)
