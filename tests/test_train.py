"""fit(): schedules, exact resume, optimizers, and its words when a training fails."""

from __future__ import annotations

import copy
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.data import Dataset, load
from nas.data.batches import Augment
from nas.network import Network, drop_path
from nas.recipe import Recipe, recipe
from nas.search_space import space
from nas.seeding import randomness
from nas.train import _optimizer, _Training, accuracy, fit, parameter_groups

TINY = {"channels": 2, "cells": 3}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", root=Path(), limit=200)


def network(digits: Dataset) -> Network:
    made = space("darts", **TINY, classes=10, input=digits.input)
    with randomness("test"):
        return Network(made.fill(made.parse("DARTS_V2")))


def trained(
    digits: Dataset, recipe: Recipe, *, stop: int | None = None, state: dict | None = None, **augment: Any
) -> tuple:
    net = network(digits)
    held = digits.split(0.2, seed=0)
    epochs = fit(
        net,
        held.train,
        recipe=recipe,
        mean=digits.mean,
        std=digits.std,
        valid=held.valid,
        augment=Augment(**(augment or {"crop": 1})),
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
    "rmsprop": {
        "optimizer": "rmsprop", "lr": 0.001, "eps": 0.03, "rho": 0.8, "schedule": "exponential",
        "period": 0.4, "gamma": 0.9, "mixup": 0.4, "cutmix": 1.0, "undecayed": ("norms", "biases"),
        "ema": 0.99,
    },
    "plateau": {"schedule": "plateau", "patience": 1, "valid": 0.2, "lr": 1e-6},
}  # fmt: skip
AUGMENTED = {"area": 0.3, "flip": True, "randaugment": (2, 9), "erase": 0.5, "cutout": 2}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_cut_off_goes_on_to_the_same_bits(name: str, digits: Dataset) -> None:
    recipe, augment = Recipe(epochs=3, batch=32, **VARIANTS[name]), AUGMENTED if name == "rmsprop" else {}
    whole, seen, final = trained(digits, recipe, **augment)
    _, _, half = trained(digits, recipe, stop=1, **augment)
    resumed, rest, again = trained(digits, recipe, state=half, **augment)
    assert [epoch.metrics for epoch in rest] == [epoch.metrics for epoch in seen[1:]]
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    assert final["optimizer"]["param_groups"] == again["optimizer"]["param_groups"]


def test_training_learns(digits: Dataset) -> None:
    net, _, _ = trained(digits, Recipe(epochs=20, batch=20, lr=0.1))
    assert accuracy(net, digits.train, mean=digits.mean, std=digits.std)["accuracy"] > 0.5


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 1/128 of a second whenever it is read: once a step."""
    ticks = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks) / 128)


@pytest.mark.usefixtures("slow_clock")
def test_seconds_end_a_training_and_its_schedule_with_it(digits: Dataset) -> None:
    """25 steps are 25/128 s: two epochs of 10 steps and half of a third, under any number of `epochs`."""
    recipe = Recipe(epochs=1, batch=16, seconds=25 / 128, lr=0.1)
    _, seen, state = trained(digits, recipe)
    assert [epoch.metrics["seconds"] * 128 for epoch in seen] == [10, 20, 25]
    assert [epoch.metrics["lr"] for epoch in seen] == [recipe.rate(done / 25) for done in (9, 19, 24)]
    assert state["elapsed"] == 25 / 128
    assert len(trained(digits, Recipe(batch=16, seconds=1e-9))[1]) == 1


@pytest.mark.usefixtures("slow_clock")
def test_seconds_before_an_interruption_count(digits: Dataset) -> None:
    recipe = Recipe(batch=16, seconds=25 / 128, accumulate=3)
    _, seen, _ = trained(digits, recipe)
    _, _, half = trained(digits, recipe, stop=1)
    _, rest, _ = trained(digits, recipe, state=half)
    assert [epoch.metrics for epoch in rest] == [epoch.metrics for epoch in seen[1:]]


def test_early_stop_waits_for_a_better_validation(digits: Dataset) -> None:
    _, seen, _ = trained(digits, Recipe(epochs=20, batch=32, lr=1e-9, early_stop=2, valid=0.2))
    best = [epoch.metrics["valid_accuracy"] for epoch in seen]
    assert len(seen) < 20
    assert max(best[-2:]) <= max(best[:-2])


def test_a_loss_that_is_no_number_stops_in_a_sentence(digits: Dataset) -> None:
    with pytest.raises(ArithmeticError, match=r"train\.lr"):
        trained(digits, Recipe(epochs=3, batch=32, lr=1e30, clip=0))


CONTRADICTIONS = {
    "nesterov": {"optimizer": "adam", "nesterov": True},
    "rho": {"rho": 0.99},
    "eps": {"eps": 1e-3},
    "momentum": {"optimizer": "adamw", "momentum": 0.8},
    "milestones": {"milestones": [0.3]},
    "gamma": {"gamma": 0.2},
    "period": {"schedule": "step", "period": 2.4},
    "patience": {"patience": 3},
    "lr_min": {"schedule": "step", "lr_min": 0.01},
    r"train\.early_stop needs .* train\.valid": {"early_stop": 1},
    r"plateau needs .* train\.valid": {"schedule": "plateau"},
    "warmup to 0": {"schedule": "onecycle", "warmup": 1},
}


@pytest.mark.parametrize("words", CONTRADICTIONS)
def test_contradictions_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Recipe(**CONTRADICTIONS[words])


def test_what_a_validation_decides_needs_one(digits: Dataset) -> None:
    for made in (Recipe(schedule="plateau", valid=0.1), Recipe(early_stop=1, valid=0.1)):
        epochs = fit(network(digits), digits.train, recipe=made, mean=digits.mean, std=digits.std)
        with pytest.raises(ValueError, match="give valid"):
            next(epochs)


@pytest.mark.parametrize("schedule", ["cosine", "step", "onecycle", "constant"])
def test_rates_stay_between_their_ends(schedule: str) -> None:
    lowest = 0.001 if schedule in ("cosine", "onecycle") else 0.0
    recipe = Recipe(epochs=10, lr=0.2, lr_min=lowest, schedule=schedule)
    rates = [recipe.rate(step / 100) for step in range(101)]
    assert max(rates) == pytest.approx(0.2)
    ends = {"cosine": 0.001, "onecycle": 0.001, "step": 0.002, "constant": 0.2}
    assert rates[-1] == pytest.approx(ends[schedule])


def test_warm_up_and_linear_scaling() -> None:
    """Goyal et al. 2017: k times the batch, k times the rate, reached in equal steps."""
    recipe = Recipe(epochs=10, batch=128, lr=0.1, reference_batch=64, warmup=2, schedule="cosine")
    assert [recipe.rate(i / 10) for i in range(3)] == pytest.approx([0.0, 0.1, 0.2])


def test_exponential_decay_goes_by_epochs() -> None:
    """EfficientNet: 0.256, times 0.97 every 2.4 epochs, 5 epochs of warm-up (Tan & Le 2019, section 5.2)."""
    made = Recipe(**recipe("efficientnet")["train"])
    assert made.rate(2.5 / 350) == pytest.approx(0.128)
    assert made.rate(120 / 350) == pytest.approx(0.256 * 0.97**50)
    assert made.rate(119.99 / 350) == pytest.approx(0.256 * 0.97**49)
    assert Recipe(**{**recipe("efficientnet")["train"], "batch": 256}).peak == pytest.approx(0.016)


def test_plateau_divides_when_the_validation_stands_still(digits: Dataset) -> None:
    recipe = Recipe(epochs=2, batch=32, lr=0.01, schedule="plateau", gamma=0.1, patience=2, valid=0.2)
    training = _Training(network(digits), recipe=recipe, device=torch.device("cpu"), seed=0)
    drops = []
    for valid_accuracy in (0.5, 0.6, 0.6, 0.5, 0.7, 0.6, 0.7, 0.6, 0.6):
        training.judge(valid_accuracy)
        drops.append(training.drops)
    assert drops == [0, 0, 0, 1, 1, 1, 2, 2, 3]
    _, _, half = trained(digits, recipe, stop=1)
    _, rest, _ = trained(digits, recipe, state={**half, "drops": 3})
    assert rest[0].metrics["lr"] == pytest.approx(0.01 * 0.1**3)


# --- optimizers ---------------------------------------------------------------------------------------------


def one_step(recipe: Recipe, gradient: float = 0.5) -> tuple[Tensor, Tensor]:
    """A weight of 1 and a norm's weight of 1 after one step of the optimizer with this gradient for both."""
    made = nn.Sequential(nn.Linear(1, 1, bias=False), nn.LayerNorm(1, bias=False))
    for parameter in made.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.full_like(parameter, gradient)
    _optimizer(made, recipe).step()
    return made[0].weight.flatten(), made[1].weight


def test_rmsprop_takes_the_step_of_its_equation() -> None:
    """w - lr * g / (sqrt((1 - rho) g^2) + eps), the average beginning at 0 (Tieleman & Hinton 2012)."""
    weight, _ = one_step(Recipe(optimizer="rmsprop", lr=0.1, rho=0.75, eps=0.25, weight_decay=0))
    assert weight.item() == pytest.approx(1 - 0.1 * 0.5 / (0.5 * 0.5 + 0.25))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_leaves_out_what_it_is_told_to(optimizer: str) -> None:
    common = {"optimizer": optimizer, "lr": 0.1, "weight_decay": 0.5}
    every, norms = one_step(Recipe(**common)), one_step(Recipe(**common, undecayed=("norms",)))
    none = one_step(Recipe(**{**common, "weight_decay": 0.0}))
    assert torch.equal(norms[0], every[0])
    assert torch.equal(norms[1], none[1])
    assert not torch.equal(every[1], none[1])
    assert (none[0] - every[0]).item() == pytest.approx(0.1 * 0.5 * 1)


class Everything(nn.Module):
    """A parameter of each kind; the convolution of two groups is not depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.slope = nn.PReLU(4)
        self.depthwise, self.grouped = nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 3, 3])])
        self.attention = nn.MultiheadAttention(4, 2)
        self.tied = self.attention.out_proj
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_every_parameter_is_of_one_kind() -> None:
    made = Everything()
    names = {id(parameter): name for name, parameter in made.named_parameters()}

    def left_out(*kinds: Any) -> set[str]:
        groups = parameter_groups(made, Recipe(undecayed=kinds))
        assert sum(len(group["params"]) for group in groups) == len(names) - 2  # all but the frozen ones
        return {names[id(p)] for group in groups if group.get("weight_decay") == 0 for p in group["params"]}

    assert left_out() == set()
    assert left_out("others") == {"token", "slope.weight"}
    assert left_out("depthwise") == {"depthwise.weight"}
    assert left_out("biases") == {"depthwise.bias", "attention.in_proj_bias", "attention.out_proj.bias"}
    assert left_out("norms") == {f"norms.{i}.{part}" for i in range(3) for part in ("weight", "bias")}


# --- what networks do while they are trained ----------------------------------------------------------------


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
