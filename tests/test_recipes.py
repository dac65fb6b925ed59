"""Recipes by name: the papers' settings, and which of them a network is trained by."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest

from nas import hand_designed
from nas.config import resolve_training
from nas.data.batches import Augment
from nas.recipe import BELONGS, Recipe, recipe, recipe_for, recipes
from nas.subject import identify


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
