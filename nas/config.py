"""Configuration: layers of YAML and overrides, checked against constructor signatures before anything is
built.

A section is the keyword arguments of one constructor: ``strategy: {name: darts, order: 2}`` is bound to
`Darts`. All mistakes are reported together. What is returned is resolved: defaults included, good for
repeating the run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nas.budget import Budget
from nas.constraints import RULES, limits, parted
from nas.data import DATA, defaults
from nas.documents import read_text
from nas.goal import ACCURACY, Goal, goals_from
from nas.recipe import Recipe, pruned, recipe, recipe_for
from nas.registry import absolute, unknown
from nas.search_space.address import split, structure, tuned, written
from nas.search_space.joint import addressed, why_unsuitable
from nas.search_space.space import SPACES
from nas.settings import cores, data_settings, ranking_settings, search_settings, settings
from nas.signature import Errors, bind, parameters

# The sections that name a thing, and the thing that is meant if they name none.
NAMED = {
    "space": "darts", "strategy": "darts", "data": "digits", "evaluator": "scratch", "executor": "local",
}  # fmt: skip
RECIPE_KEYS = ("summary", "source", "for", "data", "space", "network", "strategy", "budget", "train")
SECTIONS = ("space", "network", "strategy", "data", "train", "evaluator", "executor", "search", "ranking")
TOO_SMALL = "digits"  # data that have this recipe are too small for a hand-designed network's own
FROM_DATA = ("classes", "input")  # arguments of spaces that follow from the data
Layer = Mapping[str, Any]


def override(text: str) -> dict[str, Any]:
    """``a.b=c`` as a layer; the value is read as YAML. Raises ValueError if there is no ``=``."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"--set takes KEY=VALUE, as in --set train.epochs=10, not {text!r}")
    try:
        layer: Any = value if re.fullmatch(r"0\d+", value) else read_text(value)  # 016 is a name, not 14
    except yaml.YAMLError as error:
        raise ValueError(f"--set {text}: the value is no YAML") from error
    for part in reversed(key.strip().split(".")):
        layer = {part: layer}
    return dict(layer)


def merge(*layers: Layer) -> dict[str, Any]:
    """The layers on top of each other, later wins.

    Another `name` in a section drops that section's other keys.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            value = {"name": value} if key in NAMED and isinstance(value, str) else value
            below = merged.get(key)
            if not isinstance(value, Mapping) or not isinstance(below, Mapping):
                merged[key] = dict(value) if isinstance(value, Mapping) else value
            elif key != "data" and below.get("name") not in (None, value.get("name", below.get("name"))):
                merged[key] = dict(value)
            else:
                merged[key] = merge(below, value)
    return merged


class _Check:
    """Collects mistakes, so that they are reported together."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def bind(self, function: Any, given: Layer, where: str, *, skip: int = 0) -> dict[str, Any]:
        if function is None:  # there is none of that name, which is reported
            return {}
        try:
            return bind(function, {str(key): value for key, value in given.items()}, where=where, skip=skip)
        except Errors as error:
            self.errors += error.lines
            return {}

    def attempt(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except ValueError as error:
            self.errors.append(str(error))
            return None

    def done(self) -> None:
        if self.errors:
            raise Errors(self.errors)


def resolve_search(layers: Sequence[Layer], *, foreign_data: bool = False) -> dict[str, Any]:
    """The whole configuration of a search. `foreign_data`: the examples are given as arrays, not by name.

    Raises Errors that lists every unknown key, wrong value and unknown name.
    """
    from nas.evaluators import EVALUATORS
    from nas.execution import EXECUTORS
    from nas.strategies import STRATEGIES

    check = _Check()
    given = _known(check, merge(*layers), ("command", "recipe", "budget", *SECTIONS, *parameters(settings)))
    given["space"] = addressed(given.get("space", {}), NAMED["space"], check.errors)
    data, base, recipe_name = _data(check, given, foreign_data)
    sections = ("space", "strategy", "evaluator", "executor")
    raw = [str(given.get(section, {}).get("name", NAMED[section])) for section in sections]
    space_name, strategy_name, evaluator_name, executor_name = (str(check.attempt(absolute, n)) for n in raw)
    build = check.attempt(SPACES.resolve, space_name)
    strategy = check.attempt(STRATEGIES.resolve, strategy_name)
    evaluator = check.attempt(EVALUATORS.resolve, evaluator_name)
    executor = check.attempt(EXECUTORS.resolve, executor_name)
    space_section, network = _both_scales(check, build, space_name, given, base)
    resolved = {
        "command": "search",
        "recipe": recipe_name,
        "space": space_section,
        "network": network,
        "strategy": {
            "name": strategy_name,
            **check.bind(strategy, _section(given, "strategy", base, strategy_name), "strategy"),
        },
        "data": data,
        "train": _recipe(check, base, given),
        "budget": _budget(check, given, base, strategy_name) if strategy else "",
        "evaluator": {
            "name": evaluator_name,
            **check.bind(evaluator, _section(given, "evaluator", {}, evaluator_name), "evaluator", skip=4),
        },
        "executor": {
            "name": executor_name,
            **check.bind(executor, _section(given, "executor", {}, executor_name), "executor", skip=2),
        },
        "search": _search(check, given.get("search", {})),
        **_ranking(check, strategy, strategy_name, given.get("ranking")),
        **_settings(check, given, base),
    }
    check.errors += [] if check.errors else why_unsuitable(space_name, resolved["train"], data["augment"])
    check.done()
    workers = resolved["executor"].get("workers", 1)
    if resolved["search"]["lag"] is None:
        resolved["search"]["lag"] = workers - 1
    return resolved


def resolve_training(
    layers: Sequence[Layer], what: Layer, *, scale: Layer, foreign_data: bool = False
) -> dict[str, Any]:
    """The whole configuration of one training.

    `what`: `Subject.to_config()`; `scale`: the network's, from its run. The key ``inherits`` names the run of
    a search whose supernet leaves its weights.
    """
    from nas import hand_designed

    check = _Check()
    keys = ("command", "what", "inherits", "recipe", "network", "data", "train", *parameters(settings))
    given = _known(check, merge(*layers), keys)
    data, base, recipe_name = _data(check, given, foreign_data, _papers(what))
    own_scale = {name: value for name, value in scale.items() if name not in FROM_DATA}
    if "space" in what:
        build = check.attempt(SPACES.resolve, what["space"])
        published = SPACES.facts(what["space"]).get("network", {})
        sized = {
            **published,
            **split(what["space"])[1],
            **_section({}, "network", base, split(what["space"])[0]),
            **own_scale,
            **given.get("network", {}),
        }
    else:
        build, arguments = hand_designed.factory(what["name"], what.get("arguments"))
        sized = {**{k: v for k, v in arguments.items() if k not in FROM_DATA}, **given.get("network", {})}
    resolved = {
        "command": "train",
        "what": dict(what),
        **({"inherits": str(given["inherits"])} if "inherits" in given else {}),
        "recipe": recipe_name,
        "network": _scale(check, build, sized, "network"),
        "data": data,
        "train": _recipe(check, base, given),
        **_settings(check, {k: v for k, v in given.items() if k != "controls"}, base),
    }
    check.done()
    del resolved["controls"]
    return resolved


def _search(check: _Check, given: Layer) -> dict[str, Any]:
    """The section ``search``, its objectives with their directions."""
    bound = check.bind(search_settings, given, "search")
    objectives = bound.get("objective", ())
    parts = objectives.split(",") if isinstance(objectives, str) else objectives
    goals = check.attempt(goals_from, parts or (str(ACCURACY),)) or ()
    return {**bound, "objective": [str(goal) for goal in goals]}


def _ranking(check: _Check, strategy: Any, name: str, given: Layer | None) -> dict[str, Any]:
    """The section ``ranking``, of a strategy with a supernet."""
    from nas.strategies import has_supernet

    if strategy is not None and has_supernet(name):
        bound = check.bind(ranking_settings, given or {}, "ranking")
        goal = check.attempt(Goal.parse, bound.get("metric", ACCURACY.metric))
        return {"ranking": {**bound, "metric": str(goal)}}
    if given is not None and strategy is not None:
        check.errors.append(
            f"ranking compares networks in a supernet with themselves alone, and strategy {name} has no "
            "supernet: leave it out"
        )
    return {}


def _recipe(check: _Check, base: Layer, given: Layer) -> dict[str, Any]:
    """The section ``train``, checked as a whole too."""
    chosen = given.get("train", {})
    bound = check.bind(Recipe, {**pruned(base.get("train", {}), chosen), **chosen}, "train")
    if bound:
        check.attempt(lambda: Recipe(**bound))
    return bound


def _augment(check: _Check, *layers: Any) -> dict[str, Any]:
    """The section ``data.augment``: keys and values, or false for none."""
    from nas.augment import Augment

    merged: dict[str, Any] = {}
    for layer in layers:
        if layer is False:
            merged = {}
        elif isinstance(layer, Mapping):
            merged |= layer
        elif layer not in (None, True):
            check.errors.append(f"data.augment must hold keys and values, or be true or false, not {layer!r}")
    bound = check.bind(Augment, merged, "data.augment")
    if bound:
        check.attempt(lambda: Augment(**bound))
    return bound


def _settings(check: _Check, given: Layer, base: Layer) -> dict[str, Any]:
    keys = parameters(settings)
    bound = check.bind(settings, {k: v for k, v in merge(base, given).items() if k in keys}, "configuration")
    if not bound.get("threads"):
        bound["threads"] = int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or 0) or cores()
    return bound


def _papers(what: Layer) -> str | None:
    """The recipe of a hand-designed network's paper; None for an architecture of a space."""
    from nas import hand_designed

    if "space" in what:
        return None
    found = what.get("arguments") or hand_designed.entry(what["name"])
    return recipe_for(what["name"], found.get("family", ""))


def _data(
    check: _Check, given: Layer, foreign: bool, papers: str | None = None
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The resolved section ``data``; the recipe that goes with it, or `papers`; that recipe's name."""
    section = dict(given.get("data", {}))
    name = str(section.get("name", NAMED["data"]))
    facts: Mapping[str, Any] = {} if foreign else (check.attempt(defaults, name) or {})
    of_data = facts.get("recipe", "quick")
    fitting = papers if of_data != TOO_SMALL else None
    recipe_name = str(given.get("recipe") or fitting or of_data)
    read = check.attempt(recipe, recipe_name) or {}
    base = _known(check, read, [*RECIPE_KEYS, *parameters(settings)], f"recipe {recipe_name}")
    from_recipe = dict(base.get("data", {}))
    layers = (facts.get("augment"), from_recipe.pop("augment", None), section.pop("augment", None))
    augment = _augment(check, *layers)
    known = parameters(data_settings)
    options = {k: v for k, v in section.items() if k not in known}
    own = {**from_recipe, **{k: v for k, v in section.items() if k in known}}
    bound = check.bind(data_settings, own, "data")
    if bound:
        bound["root"] = str(Path(bound["root"]).expanduser().absolute())
    if not foreign and name.partition(":")[0] in DATA:
        source = parameters(DATA[name.partition(":")[0]])
        for option in options:
            if option not in source or option in ("path", "root", "download"):
                extra = [*known, "augment", *(k for k in source if k not in ("path", "root", "download"))]
                check.errors.append("data: " + unknown("argument", option, extra))
    return {**bound, **options, "augment": augment}, base, recipe_name


def _section(given: Layer, section: str, base: Layer, name: str) -> dict[str, Any]:
    """What the recipe says of this section for this name, under what was given."""
    found = merge(base.get(section, {}).get(name, {}), given.get(section, {}))
    found.pop("name", None)
    return found


def _both_scales(
    check: _Check, build: Any, address: str, given: Layer, base: Layer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections ``space`` and ``network``, which share what changes the decisions."""
    published = SPACES.facts(address).get("network", {}) if build else {}
    key, fixed = split(address)
    searched, bounds = parted(_section(given, "space", base, key))
    wrong = [name for name in searched if build and name not in parameters(build)]
    for name in wrong:
        known = [*parameters(build), *parameters(limits)]
        check.errors.append("space: " + unknown("argument", str(name), known))
    searched = {name: value for name, value in searched.items() if name not in wrong}
    own = _scale(check, build, {**fixed, **searched}, "space")
    sized = {**published, **_section(given, "network", base, key)}
    shared = structure(build, own, build(**own).decisions) if own else {}
    network = _scale(check, build, {**shared, **sized}, "network")
    for name, value in shared.items():
        if network.get(name, value) != value:
            check.errors.append(
                f"network.{name} = {network[name]!r} makes other decisions than space.{name} = {value!r}: "
                "what is found would not fit; leave it out"
            )
    return {"name": written(key, tuned(address)), **own, **_limits(check, bounds)}, network


def _limits(check: _Check, given: Layer) -> dict[str, Any]:
    """The limits of section ``space`` that are set."""
    bound = check.bind(limits, given, "space")
    if bound.get("rule") is not None:
        bound["rule"] = check.attempt(absolute, bound["rule"])
        check.attempt(RULES.resolve, str(bound["rule"]))
    return {key: value for key, value in bound.items() if value is not None}


def _scale(check: _Check, build: Any, given: Layer, where: str) -> dict[str, Any]:
    for name in FROM_DATA:
        if name in given:
            check.errors.append(f"{where}.{name} follows from the data: leave it out")
    bound = check.bind(build, {k: v for k, v in given.items() if k not in FROM_DATA}, where)
    return {name: value for name, value in bound.items() if name not in FROM_DATA}


def _known(check: _Check, given: Layer, known: Sequence[str], where: str = "configuration") -> dict[str, Any]:
    """`given` without what is unknown or no section, which is reported."""
    sections = (*SECTIONS, "budget") if "summary" in known else SECTIONS  # a recipe has a budget a strategy
    sound: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            check.errors.append(f"{where}: " + unknown("key", str(key), known))
        elif key in sections and not isinstance(value, Mapping):
            check.errors.append(f"{where}: {key} must hold keys and values, not {value!r}")
        else:
            sound[key] = value
    return sound


def _budget(check: _Check, given: Layer, base: Layer, strategy: str) -> str:
    """The budget that was given, or the recipe's or the strategy's own."""
    from nas.strategies import STRATEGIES, has_supernet

    one_shot = has_supernet(strategy)
    asked = _section(given, "strategy", base, strategy).get("epochs") if one_shot else None
    budget = (
        given.get("budget", f"{asked}epochs" if asked else None)
        or base.get("budget", {}).get(strategy)
        or STRATEGIES.facts(strategy).get("budget", "50epochs" if one_shot else "10trials")
    )
    check.attempt(_check_budget, str(budget), one_shot, strategy)
    return str(budget)


def _check_budget(text: str, one_shot: bool, strategy: str) -> None:
    budget = Budget.parse(text)
    if one_shot and budget.trials is not None:
        raise ValueError(
            f"strategy {strategy} trains a supernet and counts epochs, not trials: --budget 50epochs"
        )
    if not one_shot and budget.epochs is not None:
        raise ValueError(f"strategy {strategy} evaluates architectures and counts trials: --budget 20trials")
