"""What is done to images and labels in a training: augmentation, mixed labels."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn

from nas.data import Dataset, load
from nas.data.batches import Augment, Batches, keyed
from nas.data.mixing import Mix, mixes
from nas.data.randaugment import OPERATIONS, randaugment
from nas.data.windows import erased, holes, resized, windows
from nas.recipe import Recipe
from nas.train import _Training


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", root=Path(), limit=200)


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
