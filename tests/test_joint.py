"""Joint spaces: laws of decisions about the recipe, what they do to a training, and what refuses them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

import nas
from nas.augment import Augment
from nas.cli.train import _below
from nas.config import override, resolve_search, resolve_training
from nas.data import load
from nas.data.batches import Examples
from nas.documents import read_yaml
from nas.evaluators import Scratch
from nas.execution import Trial
from nas.graph import Builder, Hole
from nas.lint import Linter
from nas.loop import begin, proceed
from nas.recipe import Recipe
from nas.run import events
from nas.search_space import SPACES, Decision, SearchSpace, read, space
from nas.strategies import STRATEGIES, OneShot
from nas.subject import identify
from nas.training import load_data

CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
RATES = "nasbench201?train.lr=[0.01,0.1]"
ADDRESSES = (
    RATES,
    "nasbench201?train.optimizer=[sgd,adamw]&train.lr=[1e-4,1e-2,1]&data.augment.cutout=[0,3]",
    "chain?layers=3&train.weight_decay=[0,1e-4,5e-4]",
    "darts?train.schedule=[cosine,constant]",
    "nasbench101?train.nesterov=[true,false]&train.batch=[16,32]",
    "mobile?data.augment.flip=[true,false]",
)
SMALL: dict[str, Any] = {"channels": 4, "cells": 1}
RANDOM = {"strategy": "random"}


@pytest.fixture(params=ADDRESSES, ids=lambda address: address.partition("=")[0])
def made(request: pytest.FixtureRequest) -> SearchSpace:
    return space(request.param, **SPACES.facts(request.param)["small"])


def samples(made: SearchSpace, n: int = 30) -> list:
    return [made.sample(Random(i)) for i in range(n)]


# --- laws --------------------------------------------------------------------------------------------------


def test_address_and_literal_say_everything(made: SearchSpace) -> None:
    again = space(made.name, **made.scale)
    assert (again.name, again.decisions, again.recipe) == (made.name, made.decisions, made.recipe)
    assert len(made.recipe) == made.name.count("[")
    for each in samples(made):
        for found in (made.parse(each.literal), read(each.to_dict()), pickle.loads(pickle.dumps(each))):
            assert (found, found.digest, found.recipe) == (each, each.digest, each.recipe)
        assert dict(each.recipe) == {name: each.choices[name][0][1] for name in made.recipe}
        assert each.to_dict()["recipe"] == dict(each.recipe)
        assert identify(f"{made.name}:{each.literal}").architecture == each


def test_copies_keep_the_settings(made: SearchSpace) -> None:
    unnamed = replace(made, name="")
    for copy in (
        pickle.loads(pickle.dumps(made)),
        pickle.loads(pickle.dumps(unnamed)),
        made.resized(classes=7),
    ):
        assert (copy.decisions, copy.recipe) == (made.decisions, made.recipe)


def test_canonical_keeps_the_settings(made: SearchSpace) -> None:
    for each in samples(made):
        canonical = made.canonical(each)
        assert (canonical.digest, dict(canonical.recipe)) == (each.digest, dict(each.recipe))
        assert made.fill(canonical) == made.fill(each)


def test_settings_are_decisions_like_any_other(made: SearchSpace) -> None:
    plain = space(made.name.partition("?")[0], **made.scale)
    drawn = samples(made)
    assert made.size == plain.size * len({json.dumps(list(p)) for p in _products(made)})
    for name in made.recipe:
        assert {each.recipe[name] for each in drawn} == set(made.decision(name).options)
    first, second = drawn[:2]
    near = list(made.neighbours(first))
    for name in made.recipe:
        others = {each.recipe[name] for each in near if each.recipe[name] != first.recipe[name]}
        assert others == set(made.decision(name).options) - {first.recipe[name]}
    children = [made.mutate(first, Random(i)) for i in range(100)]
    assert any(child.recipe != first.recipe for child in children)
    assert all(child.digest != first.digest for child in children)
    crossed = made.cross(first, second, Random(0))
    assert all(crossed.recipe[name] in (first.recipe[name], second.recipe[name]) for name in made.recipe)
    masks = {d.name: d.mask(first.choices[d.name]) for d in made.decisions}
    assert made.project(masks) == first
    assert len(made.encode(first)) == sum(d.rows * len(d.options) for d in made.decisions)


def _products(made: SearchSpace) -> list[tuple[Any, ...]]:
    from itertools import product

    return list(product(*(made.decision(name).options for name in made.recipe)))


def test_the_network_is_the_same_and_its_result_is_not(made: SearchSpace) -> None:
    for each in samples(made, 10):
        for name in made.recipe:
            other = next(o for o in made.decision(name).options if o != each.recipe[name])
            moved = made.architecture({**each.choices, name: ((0, other),)})
            assert made.fill(moved) == made.fill(each)
            assert made.network_digest(moved) == made.network_digest(each)
            assert made.result_digest(moved) != made.result_digest(each)
            assert moved.digest != each.digest


def test_isomorphic_networks_of_one_recipe_have_one_result() -> None:
    made = space(RATES, **SMALL)
    swapped = "|skip_connect~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|nor_conv_3x3~2|"
    mirror = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
    a, b, c = (
        made.parse(f"{cell}+|{rate}~0|") for cell, rate in ((swapped, 0.1), (mirror, 0.1), (mirror, 0.01))
    )
    assert a.digest != b.digest
    assert made.network_digest(a) == made.network_digest(b) == made.network_digest(c)
    assert made.result_digest(a) == made.result_digest(b) != made.result_digest(c)


def test_without_settings_a_result_is_a_network() -> None:
    made = space("nasbench201", **SMALL)
    each = made.parse(CELL)
    assert made.result_digest(each) == made.network_digest(each)
    assert dict(each.recipe) == {}
    assert "recipe" not in each.to_dict()


def test_the_order_of_an_address_does_not_matter() -> None:
    one = space("nasbench201?train.lr=[0.01,0.1]&train.batch=[16,32]")
    other = space("nasbench201?train.batch=[16,32]&train.lr=[1e-2,1e-1]")
    assert (one.name, one.decisions) == (other.name, other.decisions)


def test_a_space_of_ones_own_may_bring_settings(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        "from dataclasses import replace\n"
        "from nas.search_space import Decision, nasbench201\n"
        "def own(key='train.lr', *, channels=4, cells=1, classes=10, input=(3, 32, 32)):\n"
        "    made = nasbench201(channels=channels, cells=cells, classes=classes, input=input)\n"
        "    decisions = (*made.decisions, Decision(key, (0.01, 0.1)))\n"
        "    return replace(made, decisions=decisions, recipe=(key,), known={})\n"
    )
    made = space(f"{path}:own")
    each = made.sample(Random(0))
    assert set(each.recipe) == {"train.lr"}
    assert read(each.to_dict()) == each
    with pytest.raises(ValueError, match=r"did you mean 'train\.lr'"):
        space(f"{path}:own?key=train.lrr")


def test_lint_has_nothing_against_a_joint_space() -> None:
    made = space("nasbench201?train.lr=[0.01,0.1]&train.optimizer=[sgd,adam]", **SMALL)
    findings = list(Linter(made, made, samples=6).findings())
    assert not [found for found in findings if found.kind == "error"]
    assert not [found for found in findings if "never changes" in found.text]


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.lrr=[0.1,0.2]", "did you mean 'train.lr'"),
        ("data.augment.cutou=[0,8]", "did you mean 'data.augment.cutout'"),
        ("nonsense.at.all=[1,2]", "no setting of the recipe 'nonsense.at.all'"),
        ("train.lr=[fast,0.1]", "train.lr = 'fast': input should be a valid number"),
        ("train.lr=[-0.1,0.1]", "train.lr = -0.1: input should be greater than 0"),
        ("train.optimizer=[sgd,adm]", "train.optimizer = 'adm'"),
        ("data.augment.cutout=[0,-8]", "data.augment.cutout must be a number of pixels"),
        ("train.lr=0.1", "needs two values or more"),
        ("train.lr=[0.1]", "needs two values or more"),
        ("train.lr=[0.1,1e-1]", "options must differ"),
        ("train.milestones=[[0.5],[0.2]]", "an option is a number, a word"),
        ("train.epochs=[1,20]", "train.epochs cannot be a choice"),
        ("train.early_stop=[1,20]", "train.early_stop cannot be a choice"),
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_in_a_sentence(setting: str, sentence: str) -> None:
    address = f"nasbench201?{setting}"
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        space(address)
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")) as caught:
        resolve_search([RANDOM, {"space": address}, {"train": {"epoch": 3}}])
    assert len(caught.value.lines) == 2  # and the other mistake


@pytest.mark.parametrize(
    ("address", "train", "sentence"),
    [
        ("nasbench201?train.momentum=[0.5,0.9]", {"optimizer": "adam"}, "train.momentum belongs to"),
        ("nasbench201?train.momentum=[0.5,0.9]&train.optimizer=[sgd,adam]", {}, "train.momentum belongs to"),
        ("nasbench201?train.schedule=[cosine,onecycle]", {"warmup": 1}, "warms up by itself"),
        ("nasbench201?train.schedule=[cosine,plateau]", {"valid": 0.0}, "needs a validation part"),
    ],
)  # fmt: skip
def test_settings_must_suit_the_recipe(address: str, train: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        resolve_search([RANDOM, {"space": address, "train": train}])


def test_settings_of_one_optimizer_go_with_the_others_of_its_kind() -> None:
    address = 'nasbench201?train.momentum=[0.5,0.9]&train.optimizer=["sgd","rmsprop"]'
    assert resolve_search([RANDOM, {"space": address}])["space"]["name"] == address


@pytest.mark.parametrize(
    "name", [n for n in STRATEGIES if isinstance(STRATEGIES[n], type) and issubclass(STRATEGIES[n], OneShot)]
)
def test_one_recipe_trains_a_supernet(name: str) -> None:
    with pytest.raises(ValueError, match=r"train\.lr cannot be chosen here.*--strategy random"):
        STRATEGIES[name]().check(space(RATES, **SMALL))


def test_a_setting_is_one_row_that_no_hole_asks() -> None:
    b = Builder((3, 8, 8))
    b("end", "linear", b("pool", "global_avg_pool", b("op", Hole("op"), "input", out=4)), out=10)
    decisions = (Decision("op", ("conv_1x1", "conv_3x3")), Decision("train.lr", (0.1, 0.2), rows=2))
    for wrong in (("op",), ("train.lr",), ("train.batch",)):
        with pytest.raises(ValueError, match="is no setting of the recipe"):
            SearchSpace(decisions, b.graph(), recipe=wrong)


# --- configuration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        {"space": RATES},
        {"space": {"name": "nasbench201", "recipe": {"train.lr": [0.01, 0.1]}}},
        {"space": {"name": "nasbench201", "recipe": {"train": {"lr": ["1e-2", "1e-1"]}}}},
        {"space": "nasbench201", **override("space.recipe.train.lr=[0.01,0.1]")},
    ],
    ids=["address", "key", "nested", "set"],
)
def test_every_form_ends_in_the_address(layer: dict[str, Any]) -> None:
    if "recipe" in layer["space"]:
        layer["space"].setdefault("name", "nasbench201")
    resolved = resolve_search([RANDOM, layer])
    assert resolved["space"]["name"] == RATES
    assert resolve_search([resolved]) == resolved


def test_structure_and_settings_go_together() -> None:
    resolved = resolve_search([RANDOM, {"space": "chain?layers=3&train.lr=[0.01,0.1]"}])
    assert resolved["space"]["layers"] == resolved["network"]["layers"] == 3
    section = dict(resolved["space"])
    assert space(section.pop("name"), **section).name == "chain?layers=3&train.lr=[0.01,0.1]"


# --- training ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples() -> Examples:
    data = load("digits", root=Path("data"), limit=200)
    held = data.split(0.5, seed=0)
    return Examples(held.train, held.valid, data.mean, data.std, Augment(crop=1))


@pytest.mark.parametrize(
    ("setting", "chosen", "recipe", "augment"),
    [
        ("train.lr=[0.01,0.1]", 0.1, {"lr": 0.1}, {}),
        ("train.weight_decay=[0,0.5]", 0.5, {"weight_decay": 0.5}, {}),
        ("train.optimizer=[sgd,adamw]", "adamw", {"optimizer": "adamw", "momentum": 0.9}, {}),
        ("data.augment.cutout=[0,4]", 4, {}, {"cutout": 4}),
    ],
)
def test_a_trial_is_that_of_the_plain_space_under_its_recipe(
    examples: Examples, setting: str, chosen: Any, recipe: dict[str, Any], augment: dict[str, Any]
) -> None:
    """And not that of the run's recipe: the choice has an effect."""
    scale = {**SMALL, "input": (1, 8, 8)}
    base = Recipe(epochs=1, batch=20, lr=0.05, momentum=0.8)
    plain, made = space("nasbench201", **scale), space(f"nasbench201?{setting}", **scale)
    option = next(o for o in made.decisions[-1].options if o == chosen)
    trial = Trial(0, made.parse(f"{CELL}+|{option}~0|"))
    found = Scratch(made, examples, base)(trial, seed=1)
    drawn = replace(examples, augment=replace(examples.augment, **augment))
    network = Trial(0, plain.parse(CELL))
    assert found == Scratch(plain, drawn, replace(base, **recipe))(network, seed=1)
    assert found["train_loss"] != Scratch(plain, examples, base)(network, seed=1)["train_loss"]


def small_search(folder: Path, **settings: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"strategy": "random", "budget": "3trials", "controls": 0, "run": folder}
    sizes = {"network": SMALL, "data": "digits"}
    return nas.search(**{**given, **sizes, **settings})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search over rates of which none is the run's own, with controls."""
    folder = tmp_path_factory.mktemp("joint") / "run"
    config = resolve_search(
        [
            {"space": {"name": "nasbench201?train.lr=[0.02,0.2]", **SMALL}, "network": SMALL, **RANDOM},
            {"data": {"name": "digits", "limit": 200}, "train": {"epochs": 1, "batch": 20, "lr": 0.07}},
            {"budget": "3trials", "controls": 2, "threads": 1, "device": "cpu"},
        ]
    )
    data = load_data(config)
    with begin(config, folder, data=data) as opened:
        proceed(opened, data=data)
    return folder


def test_controls_of_the_space_have_their_own_settings(run: Path) -> None:
    lines = [event for event in events(run) if event["kind"] == "control"]
    rates = {}
    for event in lines:
        rate = read_yaml(run / "controls" / event["name"] / "config.yaml")["train"]["lr"]
        rates.setdefault(event["group"], set()).add(rate)
        own = space("nasbench201?train.lr=[0.02,0.2]").parse(event["literal"]) if "literal" in event else None
        assert rate == (own.recipe["train.lr"] if own else 0.07)
        assert event.get("recipe", {}) == (dict(own.recipe) if own else {})
    best = read_yaml(run / "best.yaml")
    assert rates.pop("found") == {best["recipe"]["train.lr"]}
    assert rates.pop("random") <= {0.02, 0.2}
    assert list(rates.values()) == [{0.07}]


def test_the_report_says_whose_recipe_it_was(run: Path) -> None:
    from nas.report import page

    text = page(run).read_text()
    assert f"with train.lr={read_yaml(run / 'best.yaml')['recipe']['train.lr']}" in text
    assert "under one recipe, but for train.lr: hand-designed networks have the run's" in text


def resolved(what: str, *layers: dict[str, Any], data: str | None = None, recipe: str | None = None) -> Any:
    """The configuration with which `nas train WHAT` trains."""
    subject = identify(what)
    below = _below(subject, data, recipe)
    config = resolve_training([*below, *layers], subject.to_config(), scale=subject.scale, foreign_data=True)
    return config["train"]["lr"]


def test_a_training_takes_the_choice_unless_it_is_set_by_hand(run: Path) -> None:
    chosen = read_yaml(run / "best.yaml")["recipe"]["train.lr"]
    assert resolved(str(run)) == resolved(str(run / "best.yaml")) == chosen
    assert resolved(f"{RATES}:{CELL}+|0.01~0|") == 0.01
    assert resolved(str(run), recipe="quick") == chosen
    assert resolved(str(run), {"train": {"lr": 0.5}}) == 0.5
    assert resolved(str(run / "controls" / "found-0")) == chosen
    other = run.parent / "by_hand"
    shutil.copytree(run / "controls" / "found-0", other)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace(f"  lr: {chosen}\n", "  lr: 0.5\n"))
    assert resolved(str(other)) == 0.5


def test_what_an_optimizer_has_no_use_for_is_left_out() -> None:
    """The run's momentum does not stand in the way of a choice of Adam."""
    subject = identify('nasbench201?train.optimizer=["adam","sgd"]:' + CELL + "+|adam~0|")
    layers = [*_below(subject, None, None)]
    assert resolve_training(layers, subject.to_config(), scale={})["train"]["optimizer"] == "adam"


# --- searching ---------------------------------------------------------------------------------------------


def preference(architecture: Any) -> float:
    """Best at a rate of 0.1, whatever the network."""
    return 1.0 - abs(architecture.recipe["train.lr"] - 0.1)


def test_a_search_finds_the_rate_that_is_best(tmp_path: Path) -> None:
    address = "nasbench201?train.lr=[0.001,0.01,0.1,1.0]"
    result = small_search(
        tmp_path / "run", space=nas.space(address, **SMALL), objective=preference, budget="16trials"
    )
    assert result["recipe"] == {"train.lr": 0.1}
    assert nas.space(result["space"]).parse(result["best"]).recipe["train.lr"] == 0.1


def test_every_network_is_evaluated_once_for_each_rate(tmp_path: Path) -> None:
    """One layer, two operations, two rates: four results, whatever is proposed."""
    made = nas.space("chain?layers=1&operations=[conv_1x1,conv_3x3]&train.lr=[0.01,0.1]", channels=4)
    seen: Counter[tuple[str, float]] = Counter()

    def objective(architecture: Any) -> float:
        seen[made.network_digest(architecture), architecture.recipe["train.lr"]] += 1
        return preference(architecture)

    settings: dict[str, Any] = {"network": {"channels": 4}, "budget": "40trials"}
    result = small_search(tmp_path / "run", space=made, objective=objective, **settings)
    assert sorted(seen.values()) == [1, 1, 1, 1]
    assert len({network for network, _ in seen}) == 2
    assert result["cost"]["trials"] == 4


def lines(folder: Path) -> list[dict[str, Any]]:
    kept = [event for event in events(folder) if event["kind"] not in ("resume", "done")]
    return [{k: v for k, v in event.items() if k not in ("time", "seconds")} for event in kept]


@pytest.mark.parametrize("told", [1, 4, 7])
def test_a_search_that_was_cut_off_goes_on_the_same(tmp_path: Path, told: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    small_search(whole, space=nas.space(RATES, **SMALL), objective=preference, budget="6trials")
    shutil.copytree(whole, cut)
    ledger = (whole / "events.jsonl").read_text().splitlines(keepends=True)
    (cut / "events.jsonl").write_text("".join(ledger[:told]))
    (cut / "best.yaml").unlink()
    nas.search(run=cut, resume=True, objective=preference)
    assert lines(cut) == lines(whole)
    assert (cut / "best.yaml").read_text() == (whole / "best.yaml").read_text()
