"""A strategy proposes, Ray Tune trains: with its scheduler, its storage, and its way to go on after a kill.

python examples/tune_search.py runs

Killed and begun again, it goes on; the results are in runs/tune_search.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

import nas
from nas.data import load
from nas.integrations.tune import StrategySearcher
from nas.recipe import Recipe
from nas.seeding import randomness
from nas.train import fit

SCALE: dict[str, Any] = {"channels": 4, "cells": 1, "input": (1, 8, 8), "classes": 10}


def train(config: dict[str, Any]) -> None:
    """Train a proposed network on handwritten digits; Tune hears of every epoch."""
    data = load("digits", root=Path())
    parts = data.split(0.5, seed=0)
    with randomness(0, config["architecture"]):
        network = nas.build(f"nasbench201:{config['architecture']}", **SCALE)
    recipe = Recipe(epochs=config["epochs"], batch=64, lr=0.05)
    for epoch in fit(network, parts.train, recipe=recipe, mean=data.mean, std=data.std, valid=parts.valid):
        tune.report({"valid_accuracy": epoch.metrics["valid_accuracy"]})


def tuner(folder: Path) -> tune.Tuner:
    """A new search in `folder`, or the one that is there."""
    if tune.Tuner.can_restore(folder / "tune_search"):
        return tune.Tuner.restore(str(folder / "tune_search"), train)
    strategy = {"name": "regularized_evolution", "population": 4, "sample": 2, "epochs": 4}
    searcher = StrategySearcher(
        "nasbench201", strategy, metric="valid_accuracy", time_attr="training_iteration"
    )
    chosen = tune.TuneConfig(
        metric="valid_accuracy", mode="max", search_alg=searcher, num_samples=8, reuse_actors=True,
        max_concurrent_trials=2, scheduler=ASHAScheduler(max_t=4, reduction_factor=2),
    )  # fmt: skip
    return tune.Tuner(train, tune_config=chosen, run_config=tune.RunConfig("tune_search", str(folder)))


if __name__ == "__main__":
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    best = tuner(Path(*sys.argv[1:2] or ["runs"]).absolute()).fit().get_best_result()
    print(best.config["architecture"], best.metrics["valid_accuracy"])
