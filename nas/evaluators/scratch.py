"""Train a candidate from scratch, briefly, and measure it on the validation part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nas.augment import Augment
from nas.counting import cost, latency
from nas.data.batches import Examples
from nas.execution import Evaluator, Result, Trial
from nas.execution.early_stop import STOPPED, after, hopeless
from nas.network import Network
from nas.recipe import Recipe
from nas.registry import Registry
from nas.search_space import SearchSpace
from nas.search_space.joint import applied
from nas.seeding import derive, randomness
from nas.storage import load_state, remove, save_state
from nas.train import accuracy, fit

EVALUATORS: Registry[Callable[..., Evaluator]] = Registry("evaluator")
LATENCY = "latency_ms"
METRICS = ("valid_accuracy", "valid_loss", "train_loss", "params", "macs", LATENCY)


@EVALUATORS.register("scratch", metrics=METRICS)
@dataclass(frozen=True)
class Scratch:
    """Trains from scratch with the run's recipe, for the trial's epochs; accuracy on the validation part

    Where settings of the recipe are decisions of the space, an architecture's own go before the run's.
    Parameters, multiply-adds and latency are those of the candidate as it is trained here, at the space's
    scale, not of the network that the search gives in the end.

    Args:
        latency: measure the milliseconds of one forward pass of one example, too. A time differs from
            measurement to measurement, and with what else the machine does.
    """

    space: SearchSpace
    examples: Examples
    recipe: Recipe
    device: str = "cpu"
    latency: bool = False

    def __call__(self, trial: Trial, *, seed: int) -> Result:
        graph = self.space.fill(trial.architecture)
        with randomness(seed, "network"):
            network = Network(graph)
        given, own = self.examples, trial.architecture.recipe
        drawn = vars(given.augment or Augment())
        train, drawn = applied(own, train=vars(self.recipe), augment=drawn)
        recipe, augment = replace(Recipe(**train), early_stop=0), Augment(**drawn)
        if trial.epochs:
            recipe = replace(recipe, epochs=trial.epochs, seconds=0.0)
        common: dict[str, Any] = {"mean": given.mean, "std": given.std, "device": self.device}
        training = {"recipe": recipe, "augment": augment, "seed": derive(seed, "fit"), **common}
        if recipe.schedule == "plateau" or trial.hurdles:
            training["valid"] = given.valid
        kept = (load_state(trial.checkpoint) if trial.checkpoint else None) or {}
        metrics: dict[str, float] = kept.get("metrics", {})
        accuracies: list[float] = kept.get("accuracies", [])
        early: dict[str, float] = {}
        for epoch in fit(network, given.train, **training, state=kept.get("state")):
            metrics = epoch.metrics
            if trial.hurdles:
                accuracies.append(metrics["valid_accuracy"])
                if hopeless(accuracies, trial.hurdles) and not _done(recipe, metrics, epoch.step):
                    early[STOPPED] = epoch.step
                    break
            if trial.checkpoint:
                told = {"state": epoch.state(), "metrics": metrics, "accuracies": accuracies}
                save_state(trial.checkpoint, told)
        early |= {after(epoch): value for epoch, value in enumerate(accuracies, 1)}
        if accuracies:
            checked = {"accuracy": metrics["valid_accuracy"], "loss": metrics["valid_loss"]}
        else:
            checked = accuracy(network, given.valid, **common)
        figures = cost(graph)
        if trial.checkpoint:
            remove(trial.checkpoint)
        timed = {LATENCY: latency(network.eval(), input=graph.input)} if self.latency else {}
        return {
            "valid_accuracy": checked["accuracy"],
            "valid_loss": checked["loss"],
            "train_loss": metrics["train_loss"],
            "params": figures.params,
            "macs": figures.macs,
            **timed,
            **early,
        }


def _done(recipe: Recipe, metrics: Mapping[str, float], epochs: int) -> bool:
    """Whether a training is at its end."""
    return metrics["seconds"] >= recipe.seconds if recipe.seconds else epochs >= recipe.epochs
