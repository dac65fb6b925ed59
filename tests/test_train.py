"""fit(): schedules, exact resume, augmentation, the papers' recipes, and its words when a training fails."""

from __future__ import annotations

import copy
import itertools
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn

from nas import hand_designed
from nas.config import resolve_training
from nas.data import Dataset, load
from nas.data.batches import Augment, Batches, keyed
from nas.data.mixing import Mix, mixes
from nas.data.randaugment import OPERATIONS, randaugment
from nas.data.windows import erased, holes, resized, windows
from nas.network import Network, drop_path
from nas.recipe import BELONGS, Recipe, recipe, recipe_for, recipes
from nas.search_space import space
from nas.seeding import randomness
from nas.subject import identify
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


# --- mixed labels -------------------------------------------------------------------------------------------


def drawn(mixup: float, cutmix: float, count: int = 2000) -> list[Mix]:
    return list(itertools.islice(mixes(mixup=mixup, cutmix=cutmix, size=(20, 10), key=(0,)), count))


def test_mixup_draws_from_a_beta_distribution() -> None:
    """Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1))."""
    shares = torch.tensor([mix.share for mix in drawn(0.8, 0)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / (4 * 2.6), abs=0.01)
    assert drawn(0.8, 0) == drawn(0.8, 0)


def test_cutmix_shares_are_the_areas_that_are_left() -> None:
    x = torch.zeros(2, 1, 20, 10)
    x[1] = 1
    for mix in drawn(0, 1.0, 200):
        assert mix(x)[0].mean().item() == pytest.approx(1 - mix.share, abs=1e-6)
        assert torch.equal(mix(x)[0], 1 - mix(x)[1])
    boxes = [mix.box is not None for mix in drawn(0.8, 1.0)]
    assert 0.45 < sum(boxes) / len(boxes) < 0.55


def test_the_loss_of_a_mix_is_that_of_the_mixed_labels(digits: Dataset) -> None:
    """lambda CE(y) + (1 - lambda) CE(y') is the cross-entropy with the labels mixed (Zhang et al. 2018)."""
    recipe = Recipe(label_smoothing=0.1, mixup=1.0)
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    training = _Training(made, recipe=recipe, device=torch.device("cpu"), seed=0)
    x, y = torch.randn(6, 1, 8, 8), torch.tensor([0, 3, 3, 9, 1, 2])
    mix = Mix(0.7)
    loss, logits = training._loss(mix(x), y, mix)
    assert torch.allclose(logits, made(0.7 * x + 0.3 * x.roll(1, 0)), atol=1e-6)
    soft = 0.7 * nn.functional.one_hot(y, 10) + 0.3 * nn.functional.one_hot(y.roll(1), 10)
    expected = nn.functional.cross_entropy(logits, soft, label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


# --- augmentation -------------------------------------------------------------------------------------------


def pictures(n: int = 6, height: int = 20, width: int = 16, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, channels, 5, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def apply(name: str, pixels: Tensor, magnitude: float, direction: int = 1) -> Tensor:
    number = list(OPERATIONS).index(name)
    return randaugment(pixels, torch.full((len(pixels), 1), 2 * number + direction), magnitude)


ALWAYS = ("autocontrast", "equalize")  # have no magnitude


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in ALWAYS])
@pytest.mark.parametrize("channels", [1, 3])
def test_magnitude_0_changes_nothing(name: str, channels: int) -> None:
    pixels = pictures(channels=channels)
    assert torch.equal(apply(name, pixels, 0.0), pixels)
    strong = apply(name, pixels, 9.0)
    assert strong.shape == pixels.shape
    assert strong.dtype == torch.uint8
    assert torch.equal(strong, pixels) == (name == "identity" or (name == "color" and channels == 1))


PILLOW = {
    "autocontrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "posterize": lambda image: ImageOps.posterize(image, 6),
    "solarize": lambda image: ImageOps.solarize(image, 128),
    "color": lambda image: ImageEnhance.Color(image).enhance(1.45),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.45),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.45),
    "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(1.45),
}


@pytest.mark.parametrize("name", PILLOW)
def test_operations_on_colours_are_pillows(name: str) -> None:
    """Half the range. Pillow cuts where we round: a value may differ by 1, and what is made of it by 2."""
    pixels = pictures()
    for image, ours in zip(pixels, apply(name, pixels, 5.0), strict=True):
        theirs = np.asarray(PILLOW[name](Image.fromarray(image.numpy()))).astype(int)
        assert np.abs(theirs - ours.numpy()).max() <= (
            0 if name in ("equalize", "posterize", "solarize") else 2
        )


def test_operations_on_places() -> None:
    pixels = pictures(width=331)
    moved = apply("translate_x", pixels, 1.0)  # 15 pixels
    assert torch.equal(moved[:, :, :-15], pixels[:, :, 15:])
    assert (moved[:, :, -15:] == 128).all()
    assert torch.equal(
        apply("translate_x", pixels, 1.0, direction=0).flip(2), apply("translate_x", pixels.flip(2), 1.0)
    )
    square = pictures(height=16, width=16)
    turned = randaugment(square, torch.full((6, 1), 2 * list(OPERATIONS).index("rotate")), 30.0)
    assert torch.equal(turned, torch.rot90(square, -1, (1, 2))) or torch.equal(
        turned, torch.rot90(square, 1, (1, 2))
    )
    sheared = apply("shear_x", pixels, 10.0)
    assert not torch.equal(sheared, pixels)
    centre = sheared[:, 9:11, 2:-2].float() - pixels[:, 9:11, 2:-2].float()
    assert centre.abs().max() < 8  # moved by 0.15 pixels


def test_every_image_gets_its_own_operation() -> None:
    pixels = pictures(28)
    chosen = torch.arange(28)[:, None]
    together = randaugment(pixels, chosen, 9.0)
    for i in range(28):
        assert torch.equal(together[i : i + 1], randaugment(pixels[i : i + 1], chosen[i : i + 1], 9.0))


def test_windows_have_the_areas_and_ratios_that_were_asked_for() -> None:
    found = windows(0.08, 20_000, (40, 40), keyed(0, 0, "test"))
    top, left, height, width = found.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 40 + 1e-3).all()
    assert (left + width <= 40 + 1e-3).all()
    area, ratio = height * width / 1600, width / height
    own = area < 1  # the others are whole images
    assert own.float().mean() > 0.99
    assert 0.0799 < area.min() < 0.1
    assert ratio[own].min() >= 0.7499
    assert ratio[own].max() <= 1.3334
    assert ratio.log().mean().abs() < 0.01
    assert found.frac().abs().max() > 0  # places between pixels


def test_a_window_is_resized_as_torch_does() -> None:
    pixels = pictures()
    window = torch.tensor([[0.0, 0.0, 20.0, 16.0], [4.0, 2.0, 10.0, 8.0]]).repeat(3, 1)
    made = resized(pixels, window, torch.zeros(6, 1, dtype=torch.bool))
    assert torch.equal(made[0::2], pixels[0::2])
    x = pixels[1::2].permute(0, 3, 1, 2).float()
    large = nn.functional.interpolate(x, scale_factor=2, mode="bilinear")[:, :, 8:28, 4:20]
    assert (made[1::2].permute(0, 3, 1, 2).float() - large).abs().max() <= 0.5
    assert torch.equal(resized(pixels, window, torch.ones(6, 1, dtype=torch.bool)), made.flip(2))


def test_erasing_makes_rectangles_of_noise() -> None:
    """Zhong et al. 2020, algorithm 1: 2 to 40 % of the area of those that are erased is uniform noise."""
    found = holes(0.5, 4000, (32, 32), keyed(0, 0, "test"))
    blank = torch.zeros(4000, 32, 32, 3, dtype=torch.uint8)
    noisy = erased(blank, found)
    hit = found[:, 2] > 0
    assert 0.47 < hit.float().mean() < 0.53
    area = found[:, 2] * found[:, 3]
    touched = (noisy > 0).any(-1).sum((1, 2))
    assert (touched[~hit] == 0).all()
    assert torch.allclose(touched[hit].float(), area[hit].float(), atol=3)  # black by chance
    assert 0.4 * 32 * 32 >= area[hit].max() > 0.35 * 32 * 32
    assert area[hit].min() > 0.01 * 32 * 32  # sides are whole pixels
    values = noisy[touched.argmax()][(noisy[touched.argmax()] > 0).any(-1)].float()
    assert values.mean().item() == pytest.approx(127.5, abs=8)
    assert values.std().item() == pytest.approx(73.9, abs=5)
    assert not torch.equal(noisy[hit][0], noisy[hit][1])


def test_no_option_shifts_the_draws_of_another(digits: Dataset) -> None:
    def first(**augment: Any) -> tuple[Tensor, Tensor]:
        common = {"mean": digits.mean, "std": digits.std, "batch": 50, "device": "cpu", "shuffle": True}
        return next(Batches(digits.train, seed=1, augment=Augment(**augment), **common).epoch(0))

    plain = first(crop=1, flip=True)
    some, labels = first(crop=1, flip=True, erase=0.3)
    same = (plain[0] == some).flatten(1).all(1)
    assert torch.equal(labels, plain[1])
    assert 0.5 < same.float().mean() < 0.95
    both = first(crop=1, flip=True, erase=0.3, randaugment=(1, 0.0))[0]
    assert (both == some).flatten(1).all(1).float().mean() > 0.7  # all but equalize and autocontrast


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        ({"area": 0.1, "crop": 4}, "crop"),
        ({"area": 1.1}, "area"),
        ({"erase": -0.1}, "erase"),
        ({"randaugment": (0, 9)}, "randaugment"),
        ({"randaugment": (2, 11)}, "randaugment"),
    ],
)
def test_impossible_augmentation_is_refused(augment: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Augment(**augment)


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


# --- recipes by name ----------------------------------------------------------------------------------------


def resolved(what: str, **layer: Any) -> dict[str, Any]:
    return resolve_training([layer], identify(what).to_config(), scale={})


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_trains_a_baseline(name: str) -> None:
    """It resolves with nothing to complain of, and says what it is and whose."""
    found = resolved("resnet20", data="cifar10", recipe=name)
    assert found["recipe"] == name
    assert Recipe(**found["train"])
    assert recipe(name)["summary"]
    if listed := recipe(name).get("for"):
        assert recipe(name)["source"]
        members = {*hand_designed.package().FAMILIES, *hand_designed.published()}
        assert all("*" in pattern or pattern in members for pattern in listed)


def test_a_family_has_one_recipe() -> None:
    listed = [pattern for name in recipes() for pattern in recipe(name).get("for", ())]
    assert len(listed) == len(set(listed))
    assert not [a for a in listed for b in listed if a != b and fnmatchcase(a, b)]
    assert recipe_for("deit_tiny_patch16_224", "vit") == "deit"
    assert recipe_for("vit_tiny_patch16_224", "vit") == "vit"
    assert recipe_for("resnet50", "none") is None


def test_a_baseline_gets_its_papers_recipe_on_data_that_are_large_enough() -> None:
    paper = resolved("resnet20", data="cifar10")
    assert paper["recipe"] == "resnet_cifar"
    assert (paper["train"]["epochs"], paper["train"]["clip"]) == (164, 0)
    assert paper["data"]["augment"] == vars(Augment(crop=4, flip=True))
    assert resolved("resnet20", data="digits")["recipe"] == "digits"
    assert resolved("resnet20", data="cifar10", recipe="quick")["recipe"] == "quick"
    assert resolved("darts:DARTS_V2", data="cifar10")["recipe"] == "darts_cifar10"


def test_another_schedule_drops_what_the_recipe_says_of_its_own() -> None:
    found = resolved("resnet20", data="cifar10", recipe="wrn", train={"schedule": "cosine"})["train"]
    assert (found["schedule"], found["milestones"], found["gamma"]) == ("cosine", (0.5, 0.75), 0.1)
    assert found["nesterov"]
    with pytest.raises(ValueError, match="milestones"):
        resolved("resnet20", recipe="wrn", train={"schedule": "cosine", "milestones": [0.2]})
    found = resolved("resnet20", data="cifar10", recipe="wrn", train={"optimizer": "adamw"})["train"]
    assert not found["nesterov"]
    assert set(BELONGS) <= set(found)


def test_the_resnet_recipe_is_the_papers_in_steps() -> None:
    """64,000 steps of 128 images; the rate falls at 32,000 and 48,000 (He et al. 2016, section 4.2)."""
    made = Recipe(**recipe("resnet_cifar")["train"])
    steps = made.epochs * (50_000 // made.batch)
    assert steps == pytest.approx(64_000, rel=0.001)
    rates = [made.rate(step / 64_000) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
