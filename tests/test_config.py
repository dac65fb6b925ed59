"""Configuration: what is resolved repeats the run, and nothing that is given is ignored."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from typing import Any

import pytest
from conftest import mistakes

from nas.config import merge, override, resolve_search, resolve_training
from nas.data import DATA
from nas.documents import read_text, read_yaml
from nas.recipe import recipe, recipes
from nas.run import dump
from nas.search_space import SPACES
from nas.signature import Errors
from nas.strategies import STRATEGIES
from nas.subject import identify

FREE = [name for name in DATA if name not in ("folder", "npz")]  # data that need no path
SUBJECTS = ["darts:DARTS_V2", "nasbench201:|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "resnet20"]


def plain(config: dict[str, Any]) -> Any:
    """What a run's config.yaml gives back."""
    return read_text(dump(config))


# --- resolving is idempotent --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "space", "data"),  # any two of them meet
    [
        (strategy, space, FREE[(i + j) % len(FREE)])
        for i, strategy in enumerate(STRATEGIES)
        for j, space in enumerate(SPACES)
    ],
)
def test_a_resolved_search_resolves_to_itself(strategy: str, space: str, data: str) -> None:
    once = resolve_search([{"strategy": strategy, "space": space, "data": data}])
    assert resolve_search([plain(once)]) == once
    again = resolve_search([once])
    assert again == once
    assert list(again) == list(once)


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_recipe_suits_every_strategy(strategy: str, name: str) -> None:
    once = resolve_search([{"strategy": strategy, "recipe": name}])
    assert resolve_search([once]) == once


@pytest.mark.parametrize("data", FREE)
@pytest.mark.parametrize("what", SUBJECTS)
def test_a_resolved_training_resolves_to_itself(what: str, data: str) -> None:
    subject = identify(what)
    once = resolve_training([{"data": data}], subject.to_config(), scale=subject.scale)
    assert resolve_training([once], subject.to_config(), scale={}) == once
    assert plain(resolve_training([plain(once)], once["what"], scale={})) == plain(once)


def test_nothing_given_is_the_small_search() -> None:
    resolved = resolve_search([])
    assert (resolved["strategy"]["name"], resolved["data"]["name"], resolved["recipe"]) == (
        "darts",
        "digits",
        "digits",
    )
    assert resolved["controls"] == 3


def test_cifar_gets_the_papers_settings() -> None:
    resolved = resolve_search([{"data": "cifar10"}])
    assert resolved["budget"] == "50epochs"
    assert resolved["network"]["channels"] == 36
    assert resolved["network"]["cells"] == 20
    assert resolved["space"]["channels"] == 16
    assert resolved["space"]["cells"] == 8
    assert resolved["strategy"]["batch"] == 64
    assert resolved["train"]["epochs"] == 600
    assert resolved["network"]["auxiliary"] is False or resolved["train"]["auxiliary"] > 0


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_lag_follows_the_workers(workers: int) -> None:
    given = {"strategy": "random", "executor": {"workers": workers}}
    assert resolve_search([given])["search"]["lag"] == workers - 1
    assert resolve_search([given, {"search": {"lag": 7}}])["search"]["lag"] == 7


# --- layers -------------------------------------------------------------------------------------------------


def test_later_layers_win() -> None:
    resolved = resolve_search([{"train": {"epochs": 3, "lr": 0.2}}, {"train": {"epochs": 4}}, {"seed": 5}])
    assert (resolved["train"]["epochs"], resolved["train"]["lr"], resolved["seed"]) == (4, 0.2, 5)


def test_a_setting_beats_the_recipe_and_the_recipe_the_default() -> None:
    of_recipe = recipe("digits")["train"]["epochs"]
    assert resolve_search([])["train"]["epochs"] == of_recipe
    assert resolve_search([{"train": {"epochs": of_recipe + 1}}])["train"]["epochs"] == of_recipe + 1


def test_another_name_drops_the_arguments_of_the_first() -> None:
    layers = [{"strategy": {"name": "darts", "order": 2}}, {"strategy": "random"}]
    assert "order" not in resolve_search(layers)["strategy"]
    assert resolve_search([*layers, {"strategy": "darts"}])["strategy"]["order"] == 1


def test_the_same_name_keeps_the_arguments() -> None:
    assert resolve_search([{"strategy": {"order": 2}}, {"strategy": "darts"}])["strategy"]["order"] == 2


def test_arguments_without_a_name_belong_to_the_name_that_is_chosen() -> None:
    """An option that is given is never dropped in silence."""
    resolved = resolve_search(
        [{"strategy": {"epochs": 1}, "space": {"cells": 2}}, {"strategy": "random", "space": "nasbench201"}]
    )
    assert resolved["strategy"] == {"name": "random", "epochs": 1}
    assert resolved["space"]["cells"] == 2
    assert any("order" in line for line in mistakes({"strategy": {"order": 2}}, {"strategy": "random"}))


def test_merging_changes_no_layer() -> None:
    below, above = {"train": {"epochs": 1}}, {"train": {"epochs": 2, "lr": 1.0}}
    merge(below, above)["train"]["momentum"] = 0.0
    assert below == {"train": {"epochs": 1}}
    assert above == {"train": {"epochs": 2, "lr": 1.0}}


# --- --set --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("seed=3", {"seed": 3}),
        ("train.epochs=10", {"train": {"epochs": 10}}),
        ("train.lr=1e-3", {"train": {"lr": "1e-3"}}),
        ("data.augment.crop=0", {"data": {"augment": {"crop": 0}}}),
        ("strategy=random", {"strategy": "random"}),
        ("space.name=a.py:b", {"space": {"name": "a.py:b"}}),
        ("data=npz:a=b.npz", {"data": "npz:a=b.npz"}),
        ("train.milestones=[0.3, 0.6]", {"train": {"milestones": [0.3, 0.6]}}),
        ("data.limit=", {"data": {"limit": None}}),
    ],
)
def test_override_parses(text: str, layer: dict[str, Any]) -> None:
    assert override(text) == layer


WORDS = [
    (name, key, word)
    for name, strategy in STRATEGIES.items()
    for key, kind in typing.get_type_hints(strategy, include_extras=False).items()
    if isinstance(strategy, type) and typing.get_origin(kind) is typing.Literal
    for word in typing.get_args(kind)
]


def test_a_word_is_given_as_it_is_written(tmp_path: Path) -> None:
    """``off`` is a word, too, and the truth values are ``true`` and ``false``."""
    assert ("darts", "guard", "off") in WORDS
    file = tmp_path / "words.yaml"
    for name, key, word in WORDS:
        file.write_text(f"strategy: {{name: {name}, {key}: {word}}}\n")
        for layer in (override(f"strategy.{key}={word}"), read_yaml(file)):
            assert layer["strategy"][key] == word, (name, key)
    assert [read_text(word) for word in ("true", "False", "off", "no", "y")] == [
        True,
        False,
        "off",
        "no",
        "y",
    ]
    assert read_text("[trueish, false.yaml]") == ["trueish", "false.yaml"]
    assert resolve_search([override("data.augment.flip=off")])["data"]["augment"]["flip"] is False


def test_scientific_notation_is_a_number() -> None:
    assert resolve_search([override("train.lr=1e-3")])["train"]["lr"] == 0.001


@pytest.mark.parametrize("text", ["epochs", "=3", "", "train.lr=[1", "train.lr={"])
def test_override_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="--set"):
        override(text)


# --- mistakes -----------------------------------------------------------------------------------------------


def test_all_mistakes_are_reported_together() -> None:
    lines = mistakes(
        {
            "sead": 1,
            "train": {"epoch": 3, "lr": "fast"},
            "strategy": {"odrer": 2},
            "space": {"chanels": 3},
            "network": {"cels": 3},
            "data": {"limitt": 3},
            "search": {"order": "fre"},
            "executor": {"wokers": 2},
            "budget": "many",
            "controls": -1,
        }
    )
    text = "\n".join(lines)
    for wrong, meant in (
        ("sead", "seed"), ("epoch", "epochs"), ("odrer", "order"), ("chanels", "channels"), ("cels", "cells"),
        ("limitt", "limit"), ("wokers", "workers"),
    ):  # fmt: skip
        assert re.search(rf"{wrong!r}; did you mean {meant!r}", text), f"{wrong} is not in:\n{text}"
    for part in ("train.lr", "'fast'", "search.order", "'many'", "controls"):
        assert part in text
    assert len(lines) == 11


def test_wrong_names_are_reported_together() -> None:
    lines = mistakes({"strategy": "dart", "space": "dartz", "data": "digit", "executor": "lokal", "sead": 1})
    for near in ("darts", "digits", "local", "seed"):
        assert any(f"did you mean {near!r}" in line for line in lines), (near, lines)


@pytest.mark.parametrize("section", ["space", "network", "strategy", "data", "train", "executor", "search"])
@pytest.mark.parametrize("value", [5, ["a"], None, True])
def test_a_section_must_be_a_section(section: str, value: Any) -> None:
    assert any(section in line and "keys and values" in line for line in mistakes({section: value}))


@pytest.mark.parametrize("section", ["space", "strategy", "data", "executor"])
@pytest.mark.parametrize("value", [5, ["a"], None, {"a": 1}])
def test_a_name_must_be_a_name(section: str, value: Any) -> None:
    with pytest.raises(ValueError, match=section if section != "data" else "data"):
        resolve_search([{section: {"name": value}}])


@pytest.mark.parametrize("section", ["space", "network", "strategy", "data", "train", "executor", "search"])
def test_unknown_keys_are_refused_in_every_section(section: str) -> None:
    assert any("'nonsense'" in line for line in mistakes({section: {"nonsense": 1}}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", 0),
        ("train.epochs", 2.5),
        ("train.epochs", "two"),
        ("train.batch", -1),
        ("train.lr", 0),
        ("train.lr", float("nan")),
        ("train.optimizer", "sdg"),
        ("train.drop_path", 1.0),
        ("train.nesterov", 3),
        ("train.lr", [0.1]),
        ("train.milestones", 3),
        ("train.schedule", "cosin"),
        ("strategy.order", 3),
        ("strategy.batch", 0),
        ("strategy.alpha_betas", [0.5]),
        ("data.limit", 0),
        ("data.valid", 0),
        ("data.valid", 1),
        ("data.valid", 2),
        ("data.augment", 5),
        ("data.augment.crop", -1),
        ("data.augment.crp", 1),
        ("data.augment.flip", "maybe"),
        ("seed", -1),
        ("seed", "a"),
        ("controls", 1.5),
        ("threads", -1),
        ("deterministic", "perhaps"),
        ("device", 3),
        ("executor.workers", 0),
        ("executor.threads", 0),
        ("executor.seed", 3),
        ("search.lag", -1),
        ("search.order", "random"),
        ("network.cells", "many"),
        ("space.classes", 10),
        ("network.input", [1, 8, 8]),
        ("data.path", "x"),
        ("data.download", True),
        ("train.5", 1),
    ],
)
def test_wrong_values_are_refused(key: str, value: Any) -> None:
    layer: Any = value
    for part in reversed(key.split(".")):
        layer = {part: layer}
    section, _, name = key.rpartition(".")
    assert any(name in line and section in line for line in mistakes(layer)), mistakes(layer)


def test_keys_that_are_no_text_are_refused() -> None:
    with pytest.raises(ValueError):
        resolve_search([{"train": {5: 3}}])
    with pytest.raises(ValueError):
        resolve_search([{7: 3}])


def test_augmentation_can_be_switched_off() -> None:
    on, off = (
        resolve_search([])["data"]["augment"],
        resolve_search([{"data": {"augment": False}}])["data"]["augment"],
    )
    assert on["crop"]
    assert not any(off.values())


def test_a_recipes_own_mistakes_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("trian: {epochs: 3}\n")
    assert any("did you mean 'train'" in line for line in mistakes({"recipe": str(path)}))
    path.write_text("train: {epoch: 3}\n")
    assert any("did you mean 'epochs'" in line for line in mistakes({"recipe": str(path)}))
    path.write_text("train: 3\n")
    assert any("keys and values" in line for line in mistakes({"recipe": str(path)}))
    assert any("did you mean 'digits'" in line for line in mistakes({"recipe": "digit"}))


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("train: {epochs: 3, cutout: 2}\nbudget: {darts: 4epochs}\n")
    resolved = resolve_search([{"recipe": str(path)}])
    assert (resolved["train"]["epochs"], resolved["train"]["cutout"], resolved["budget"]) == (3, 2, "4epochs")


def test_training_refuses_what_belongs_to_a_search() -> None:
    for layer in (
        {"strategy": "darts"},
        {"budget": "3epochs"},
        {"space": {"channels": 3}},
        {"train": {"epoch": 1}},
    ):
        with pytest.raises(Errors):
            resolve_training([layer], identify("resnet20").to_config(), scale={})


def test_scales_follow_from_the_data_in_trainings_too() -> None:
    with pytest.raises(Errors, match="follows from the data"):
        resolve_training([{"network": {"classes": 3}}], identify("resnet20").to_config(), scale={})


# --- files --------------------------------------------------------------------------------------------------


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("seed: 1\ntrain:\n  epochs: [3\nlr: 2\n")
    with pytest.raises(ValueError, match=r"broken\.yaml.*line 4"):
        read_yaml(path)


@pytest.mark.parametrize("content", ["- a\n- b\n", "just text\n", "3\n"])
def test_a_file_must_hold_keys_and_values(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.yaml").write_text(content)
    with pytest.raises(ValueError, match="must hold keys and values"):
        read_yaml(tmp_path / "list.yaml")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"seed: \xff\xfe\n")
    with pytest.raises(ValueError, match=r"latin\.yaml"):
        read_yaml(tmp_path / "latin.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    call = f"!!python/object/apply:pathlib.Path.touch ['{tmp_path}/made']"
    (tmp_path / "evil.yaml").write_text(f"seed: {call}\n")
    with pytest.raises(ValueError, match=r"evil\.yaml"):
        read_yaml(tmp_path / "evil.yaml")
    assert not (tmp_path / "made").exists()
