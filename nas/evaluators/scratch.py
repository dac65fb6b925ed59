"""Train a candidate from scratch, briefly, and measure it on the validation part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nas.counting import cost
from nas.data.batches import Examples
from nas.execution import Evaluator, Result, Trial
from nas.network import Network
from nas.recipe import Recipe
from nas.registry import Registry
from nas.search_space import SearchSpace
from nas.seeding import derive, randomness
from nas.train import accuracy, fit

EVALUATORS: Registry[Callable[..., Evaluator]] = Registry("evaluator")


@EVALUATORS.register("scratch")
@dataclass(frozen=True)
class Scratch:
    """Trains from scratch with the run's recipe, for the trial's epochs; accuracy on the validation part"""

    space: SearchSpace
    examples: Examples
    recipe: Recipe
    device: str = "cpu"

    def __call__(self, trial: Trial, *, seed: int) -> Result:
        graph = self.space.fill(trial.architecture)
        with randomness(seed, "network"):
            network = Network(graph)
        recipe = replace(self.recipe, early_stop=0)
        if trial.epochs:
            recipe = replace(recipe, epochs=trial.epochs, seconds=0.0)
        given = self.examples
        common: dict[str, Any] = {"mean": given.mean, "std": given.std, "device": self.device}
        metrics: dict[str, float] = {}
        training = {"recipe": recipe, "augment": given.augment, "seed": derive(seed, "fit"), **common}
        if recipe.schedule == "plateau":
            training["valid"] = given.valid
        for epoch in fit(network, given.train, **training):
            metrics = epoch.metrics
        checked = accuracy(network, given.valid, **common)
        figures = cost(graph)
        return {
            "valid_accuracy": checked["accuracy"],
            "valid_loss": checked["loss"],
            "train_loss": metrics["train_loss"],
            "params": figures.params,
            "macs": figures.macs,
        }
