"""fit(): schedules, exact resume, and the words it finds for a training that goes wrong."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from nas.data import Dataset, load
from nas.data.batches import Augment
from nas.network import Network, drop_path
from nas.search_space import space
from nas.seeding import randomness
from nas.train import Recipe, accuracy, fit

TINY = {"channels": 2, "cells": 3}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", root=Path(), limit=200)


def network(digits: Dataset) -> Network:
    made = space("darts", **TINY, classes=10, input=digits.input)
    with randomness("test"):
        return Network(made.fill(made.parse("DARTS_V2")))


def trained(digits: Dataset, recipe: Recipe, *, stop: int | None = None, state: dict | None = None) -> tuple:
    net = network(digits)
    held = digits.split(0.2, seed=0)
    epochs = fit(
        net,
        held.train,
        recipe=recipe,
        mean=digits.mean,
        std=digits.std,
        valid=held.valid,
        augment=Augment(crop=1),
        seed=3,
        state=state,
    )
    seen = []
    for epoch in epochs:
        seen.append(epoch)
        if epoch.step == stop:
            return net, seen, copy.deepcopy(epoch.state())
    return net, seen, copy.deepcopy(seen[-1].state())


VARIANTS = {
    "plain": {},
    "adam": {"optimizer": "adam", "lr": 0.001},
    "adamw": {"optimizer": "adamw", "lr": 0.001, "schedule": "onecycle"},
    "everything": {
        "drop_path": 0.3, "ema": 0.9, "warmup": 1.5, "label_smoothing": 0.1, "accumulate": 2, "cutout": 2,
        "nesterov": True, "schedule": "step", "reference_batch": 64,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_cut_off_goes_on_to_the_same_bits(name: str, digits: Dataset) -> None:
    recipe = Recipe(epochs=3, batch=32, **VARIANTS[name])
    whole, seen, final = trained(digits, recipe)
    _, _, half = trained(digits, recipe, stop=1)
    resumed, rest, again = trained(digits, recipe, state=half)
    assert [epoch.metrics for epoch in rest] == [epoch.metrics for epoch in seen[1:]]
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    assert final["optimizer"]["param_groups"] == again["optimizer"]["param_groups"]


def test_training_learns(digits: Dataset) -> None:
    net, _, _ = trained(digits, Recipe(epochs=10, batch=20, lr=0.1))
    assert accuracy(net, digits.train, mean=digits.mean, std=digits.std)["accuracy"] > 0.5


def test_early_stop_waits_for_a_better_validation(digits: Dataset) -> None:
    _, seen, _ = trained(digits, Recipe(epochs=20, batch=32, lr=1e-9, early_stop=2, valid=0.2))
    best = [epoch.metrics["valid_accuracy"] for epoch in seen]
    assert len(seen) < 20
    assert max(best[-2:]) <= max(best[:-2])


def test_a_loss_that_is_no_number_stops_in_a_sentence(digits: Dataset) -> None:
    with pytest.raises(ArithmeticError, match=r"train\.lr"):
        trained(digits, Recipe(epochs=3, batch=32, lr=1e30, clip=0))


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="nesterov"):
        Recipe(optimizer="adam", nesterov=True)
    with pytest.raises(ValueError, match=r"train\.valid"):
        Recipe(early_stop=1)
    with pytest.raises(ValueError, match=r"train\.warmup"):
        Recipe(schedule="onecycle", warmup=1)


@pytest.mark.parametrize("schedule", ["cosine", "step", "onecycle", "constant"])
def test_rates_stay_between_their_ends(schedule: str) -> None:
    recipe = Recipe(epochs=10, lr=0.2, lr_min=0.001, schedule=schedule, milestones=(0.5, 0.75), gamma=0.1)
    rates = [recipe.rate(step / 100) for step in range(101)]
    assert max(rates) == pytest.approx(0.2)
    ends = {"cosine": 0.001, "onecycle": 0.001, "step": 0.002, "constant": 0.2}
    assert rates[-1] == pytest.approx(ends[schedule])


def test_warm_up_and_linear_scaling() -> None:
    """Goyal et al. 2017: k times the batch, k times the rate, reached in equal steps."""
    recipe = Recipe(epochs=10, batch=128, lr=0.1, reference_batch=64, warmup=2, schedule="cosine")
    assert [recipe.rate(i / 10) for i in range(3)] == pytest.approx([0.0, 0.1, 0.2])


def test_auxiliary_head_trains_and_leaves_inference_alone() -> None:
    made = space("darts", channels=4, cells=6, input=(3, 32, 32), auxiliary=True)
    net = Network(made.fill(made.parse("DARTS_V2")))
    x = torch.randn(2, 3, 32, 32)
    main, auxiliary = net.outputs(x)
    assert auxiliary.shape == main.shape == (2, 10)
    net.eval()
    assert torch.equal(net(x), net.outputs(x)[0])
    auxiliary.sum().backward()
    assert net.get_parameter("auxiliary.classifier.weight").grad is not None
    assert net.get_parameter("classifier.weight").grad is None


def test_drop_path_drops_examples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(20_000, 2, 1, 1)
    y = drop_path(x, 0.3)
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert (y[:, 0] == y[:, 1]).all()
    assert y.mean().item() == pytest.approx(1.0, abs=0.02)


def test_drop_path_spares_identities() -> None:
    """With every droppable operation dropped, what is left is what identities carry."""
    made = space("nasbench201", channels=4, cells=1, input=(3, 8, 8))
    net = Network(made.fill(made.parse("all-skip")))
    x = torch.randn(4, 3, 8, 8)
    net.train()
    torch.manual_seed(0)
    expected = net(x)
    droppable = {name for step in net._program.steps for name in step.drops}
    net.drop_path = 0.5
    torch.manual_seed(0)
    cells_only = torch.equal(net(x), expected)
    assert droppable  # the residual blocks between the stages
    assert not cells_only
