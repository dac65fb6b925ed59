"""Joint spaces: settings of the training recipe as decisions, beside those of the network. No torch.

    nasbench201?train.lr=[0.01,0.1]&train.optimizer=["sgd","adamw"]

Such a decision is named by its configuration key and is asked by no hole: the network is the same whatever it
says, its training is not. (A. Zela et al., Towards Automated Deep Learning: Efficient Joint Neural
Architecture and Hyperparameter Search, 2018, argue why both belong to one search.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

from nas.graph import Option
from nas.registry import unknown
from nas.search_space.address import split, tuned, written
from nas.search_space.decision import Decision
from nas.signature import Errors, bind

if TYPE_CHECKING:
    from nas.search_space.space import SearchSpace

TRAIN, AUGMENT = "train.", "data.augment."
LENGTH = "trainings of different length do not compare: it belongs to the whole search"
# Settings that are the same for all trials, and why.
SHARED: Mapping[str, str] = {
    "train.epochs": LENGTH,
    "train.seconds": LENGTH,
    "train.valid": "the search has a validation part of its own, data.valid",
    "train.early_stop": "candidates are not stopped by their own validation accuracy",
    "train.auxiliary": "candidates have no auxiliary classifiers, so that it would never matter",
}
Section = dict[str, Any]


def joint(made: SearchSpace, given: Mapping[str, Any]) -> SearchSpace:
    """`made` with a further decision for each setting of the recipe that is given: key -> its values.

    It has no known points, as those say nothing of the recipe. Raises Errors that lists everything wrong with
    the settings, those that the space brought along included.
    """
    own = {d.name: list(d.options) for d in made.decisions if d.name in made.recipe}
    if not own and not given:
        return made
    decisions = recipe_decisions({**own, **given})
    added = tuple(decision for decision in decisions if decision.name not in own)
    names = ", ".join(decision.name for decision in decisions)
    return replace(
        made,
        decisions=(*made.decisions, *added),
        recipe=(*made.recipe, *(decision.name for decision in added)),
        known={} if added else made.known,
        notes=(*made.notes, f"each architecture is trained with its own {names}"),
    )


def recipe_decisions(given: Mapping[str, Any]) -> tuple[Decision, ...]:
    """A decision for each setting of the recipe, by key, its options checked and of the setting's type.

    Raises Errors that lists every unknown key (with the nearest match) and every wrong value.
    """
    errors: list[str] = []
    found: list[Decision] = []
    for key, values in sorted(given.items()):
        try:
            found.append(Decision(key, _options(key, values)))
        except ValueError as error:
            errors += error.lines if isinstance(error, Errors) else [str(error)]
    if errors:
        raise Errors(errors)
    return tuple(found)


def _options(key: str, values: Any) -> tuple[Option, ...]:
    from nas.augment import Augment
    from nas.recipe import Recipe

    sections: tuple[tuple[str, Any], ...] = ((TRAIN, Recipe), (AUGMENT, Augment))
    schemas = {prefix + field.name: (prefix, kind) for prefix, kind in sections for field in fields(kind)}
    if key in SHARED:
        raise ValueError(f"{key} cannot be a choice: {SHARED[key]}")
    if key not in schemas:
        raise ValueError(unknown("setting of the recipe", key, set(schemas) - set(SHARED)))
    if not isinstance(values, list | tuple) or len(values) < 2:
        raise ValueError(
            f"{key} needs two values or more to choose from, as in {key}=[1,2], not {values!r}; "
            f"what is not to be chosen is set by --set {key}=VALUE"
        )
    prefix, schema = schemas[key]
    name = key.removeprefix(prefix)
    options: list[Any] = []
    for value in values:
        bound = bind(schema, {name: value}, where=prefix.rstrip("."))
        if not isinstance(bound[name], int | float | str):
            raise ValueError(f"{key} = {value!r}: an option is a number, a word, true or false")
        if schema is Augment:
            Augment(**bound)
        options.append(bound[name])
    return tuple(options)


def addressed(section: Mapping[str, Any], default: str, errors: list[str]) -> Section:
    """A configuration's section ``space``, its key ``recipe`` and the settings of its address in one address.

    ``recipe`` holds values by key (``train.lr: [0.01, 0.1]``), which may be nested. `default`: the space that
    is meant if none is named. What is wrong is added to `errors`.
    """
    content = dict(section)
    nested, address = content.pop("recipe", {}), str(content.get("name", default))
    try:
        base, arguments = split(address)
        if not isinstance(nested, Mapping):
            raise ValueError(f"space.recipe must hold settings and their values, not {nested!r}")
        decisions = recipe_decisions({**tuned(address), **_flat(nested)})
    except ValueError as error:
        errors += error.lines if isinstance(error, Errors) else [str(error)]
        return {**content, "name": address.partition("?")[0]}
    if decisions:
        content["name"] = written(base, {**arguments, **options_of(decisions)})
    return content


def told(choices: Mapping[str, Option]) -> str:
    """Choices of the recipe as a text: ``train.lr=0.1, train.optimizer=sgd``."""
    return ", ".join(f"{key}={value}" for key, value in choices.items())


def options_of(decisions: tuple[Decision, ...]) -> dict[str, list[Option]]:
    """The options by the names of the decisions."""
    return {decision.name: list(decision.options) for decision in decisions}


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"train": {"lr": [1, 2]}}`` as ``{"train.lr": [1, 2]}``."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        inner = isinstance(value, Mapping)
        found |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def applied(
    choices: Mapping[str, Option], *, train: Mapping[str, Any], augment: Mapping[str, Any]
) -> tuple[Section, Section]:
    """The sections ``train`` and ``data.augment`` with an architecture's choices of the recipe in them.

    What belongs to an optimizer or a schedule that the choices change is left out of `train`.
    """
    from nas.recipe import pruned

    chosen = {key.removeprefix(TRAIN): value for key, value in choices.items() if key.startswith(TRAIN)}
    drawn = {key.removeprefix(AUGMENT): value for key, value in choices.items() if key.startswith(AUGMENT)}
    return {**pruned(train, chosen), **chosen}, {**augment, **drawn}


def with_choices(config: Mapping[str, Any], choices: Mapping[str, Option]) -> Section:
    """A run's configuration with an architecture's choices of the recipe in it."""
    train, augment = applied(choices, train=config["train"], augment=config["data"]["augment"])
    return {**config, "train": train, "data": {**config["data"], "augment": augment}}


def why_unsuitable(address: str, train: Mapping[str, Any], augment: Mapping[str, Any]) -> list[str]:
    """Why some of the choices that an address allows make no recipe together with these sections.

    A recipe's rules speak of two settings at a time, so all pairs of choices are tried.
    """
    from nas.augment import Augment
    from nas.recipe import Recipe

    for choices in _pairs(tuned(address)):
        try:
            section, drawn = applied(choices, train=train, augment=augment)
            Recipe(**section)
            Augment(**drawn)
        except ValueError as error:
            return [f"space: an architecture may choose {told(choices)}, but {error}"]
    return []


def _pairs(given: Mapping[str, Any]) -> Iterator[dict[str, Option]]:
    """Choices in which every two values of different settings meet, the other settings at their first."""
    first = {key: values[0] for key, values in given.items()}
    for key, values in given.items():
        yield from ({**first, key: value} for value in values)
    for one, other in combinations(given, 2):
        yield from ({**first, one: a, other: b} for a in given[one] for b in given[other])
