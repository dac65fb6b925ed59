"""resolve_comparison(): the configuration of a comparison, and the networks that it names.

networks:
  - resnet20
  - {what: resnet20, name: narrow, network: {widths: [8, 16, 32]}}
  - darts?channels=8:DARTS_V2
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from nas.budget import Budget
from nas.config import FROM_DATA, NAMED, merge, resolve_training
from nas.data import defaults
from nas.documents import read_yaml
from nas.execution.early_stop import stopped
from nas.goal import goals_of
from nas.jobs import apart, bound
from nas.registry import unknown
from nas.run import CONFIG, events
from nas.search_space.joint import told
from nas.settings import settings
from nas.signature import Errors, bind, parameters
from nas.subject import Subject, from_config, identify

Config = dict[str, Any]
Layer = Mapping[str, Any]
OF_ENTRY = ("what", "name", "network", "run")
SHARED = ("recipe", "data", "train", *(key for key in parameters(settings) if key != "controls"))


def comparison_settings(seeds: Annotated[int, Field(ge=1)] = 3, budget: str | None = None) -> None:
    """The keys of a comparison alone: trainings of each network, and the budget of each training."""


@dataclass(frozen=True)
class Entry:
    """A network that was named: what it is, what it is called here, sizes that were given."""

    subject: Subject
    name: str
    network: Layer

    @property
    def run(self) -> Path | None:
        """The run that it comes from."""
        return self.subject.run


def best_of(what: str, count: int) -> list[Any]:
    """The best networks among the trials of a search, as entries; anything else stands for itself.

    Raises ValueError for the run of a strategy that evaluates no architectures.
    """
    folder = Path(what)
    if not (folder / CONFIG).is_file() or read_yaml(folder / CONFIG)["command"] != "search":
        return [what]
    config = read_yaml(folder / CONFIG)
    goal = goals_of(config)[0]
    found: dict[str, tuple[tuple[int, float], str]] = {}  # by digest: place, literal
    for event in events(folder):
        if event["kind"] == "trial" and "error" not in event and not stopped(event["metrics"]):
            place = (event.get("epochs") or 0, goal.score(event["metrics"]))
            known = found.get(event["digest"])
            if known is None or place > known[0]:
                found[event["digest"]] = place, event["literal"]
    if not found:
        raise ValueError(f"{what} has no trials, of which several could be the best: leave --best out")
    ranked = sorted(found.values(), key=lambda each: each[0], reverse=True)[:count]
    name = re.sub(r"[^\w.+-]", "-", folder.resolve().name)
    return [
        {
            "what": {"name": f"{name}-{rank}", "space": config["space"]["name"], "literal": literal},
            "name": f"{name}-{rank}",
            "network": {k: v for k, v in config["network"].items() if k not in FROM_DATA},
            "run": str(folder),
        }
        for rank, (_, literal) in enumerate(ranked, 1)
    ]


def resolve_comparison(layers: Sequence[Layer], whats: Sequence[Any] = ()) -> Config:
    """The whole configuration of a comparison of the networks that the layers list, and of `whats`.

    A listed network is a WHAT, or ``{what: WHAT, name: ..., network: {...}}``. Of networks that are the same
    one is compared, with a warning. Raises Errors that lists every mistake.
    """
    given = merge(*layers)
    keys = ("command", "networks", "executor", *parameters(comparison_settings), *SHARED)
    errors = [_unknown_key(key, keys) for key in given if key not in keys]
    asked = _only(given, parameters(comparison_settings))
    own = attempt(errors, bind, comparison_settings, asked, where="compare") or {"budget": None}
    executor = attempt(errors, bound, given.get("executor"), given.get("threads"))
    listed = given.get("networks") or []
    if not isinstance(listed, list):
        errors.append(f"networks must be a list of networks, not {listed!r}")
        listed = []
    listed = [*listed, *whats]
    entries = [entry for item in listed if (entry := attempt(errors, _entry, item))]
    shared = _shared(errors, {**_only(given, SHARED), "executor": executor}, own["budget"], entries)
    resolved = [found for entry in entries if (found := attempt(errors, _training, shared, entry))]
    if errors:
        raise Errors(list(dict.fromkeys(errors)))
    entries, resolved = _distinct(entries, resolved)
    if len(entries) < 2:
        raise ValueError(
            "a comparison needs two different networks at least: name more of them, or train one with "
            "`nas train`"
        )
    first = resolved[0]
    return {
        "command": "compare",
        "networks": [_described(entry, found) for entry, found in zip(entries, resolved, strict=True)],
        "budget": own["budget"] or _budget(first["train"]),
        "seeds": own["seeds"],
        "executor": executor,
        **{key: first[key] for key in SHARED},
    }


def attempt(errors: list[str], function: Any, *arguments: Any, **named: Any) -> Any:
    """What the function returns; None if it raises ValueError, whose lines are kept."""
    try:
        return function(*arguments, **named)
    except ValueError as error:
        errors += error.lines if isinstance(error, Errors) else [str(error)]
        return None


def _unknown_key(key: str, keys: Sequence[str]) -> str:
    if key == "network":
        return (
            "network sizes one network, and here are several: say it in the address "
            "(darts?channels=8:DARTS_V2), or in a file for --config: "
            "networks: [{what: resnet20, network: {widths: [8, 16, 32]}}, ...]"
        )
    return "configuration: " + unknown("key", str(key), keys)


def _only(given: Layer, keys: Iterable[str]) -> dict[str, Any]:
    return {key: given[key] for key in keys if key in given}


def _entry(item: Any) -> Entry:
    """A network as it was named, with a warning if it chose settings of its training. Raises ValueError."""
    entry = _named_entry(item)
    if entry.subject.architecture and (own := entry.subject.architecture.recipe):
        warnings.warn(
            f"{entry.name} chose {told(own)}, but a comparison has one recipe for all: "
            f"`nas train` trains it with its own",
            stacklevel=2,
        )
    return entry


def _named_entry(item: Any) -> Entry:
    if not isinstance(item, Mapping):
        subject = identify(str(item))
        return Entry(subject, subject.name, _own_scale(subject))
    if wrong := [key for key in item if key not in OF_ENTRY]:
        raise ValueError("networks: " + unknown("key", str(wrong[0]), OF_ENTRY))
    what, size = item.get("what"), item.get("network") or {}
    if not isinstance(size, Mapping):
        raise ValueError(f"networks: network must hold keys and values, not {size!r}")
    if isinstance(what, Mapping) and "name" in what:
        origin = Path(item["run"]) if item.get("run") else None
        subject = from_config(what, run=origin)
    elif isinstance(what, str):
        subject = identify(what)
    else:
        raise ValueError(f"networks: what must name a network, not {what!r}")
    name = str(item.get("name") or subject.name)
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"networks: a name is a folder's too: letters, digits and . _ - alone, not {name!r}")
    return Entry(subject, name, {**_own_scale(subject), **size})


def _own_scale(subject: Subject) -> dict[str, Any]:
    """The sizes with which a run's network was built."""
    return {k: v for k, v in subject.scale.items() if k not in FROM_DATA} if subject.run else {}


def _shared(errors: list[str], given: Layer, budget: str | None, entries: Sequence[Entry]) -> Config:
    """What all trainings have in common; what is wrong with it is added to the errors."""
    sound = {key: value for key, value in given.items() if key not in ("data", "train")}
    for key in ("data", "train"):
        if isinstance(given.get(key, {}), Mapping):
            sound[key] = dict(given.get(key, {}))
        else:
            errors.append(f"{key} must hold keys and values, not {given[key]!r}")
            sound[key] = {}
    if "name" not in sound["data"]:
        sound["data"] = {**(attempt(errors, _data_of_runs, entries) or {}), **sound["data"]}
    name = str(sound["data"].get("name", NAMED["data"]))
    facts = attempt(errors, defaults, name) or {}
    sound["recipe"] = given.get("recipe") or facts.get("recipe")  # of the data, not of a family: one for all
    executor = sound.pop("executor", None)
    if executor and apart(executor):
        sound.setdefault("threads", executor["threads"])
    sound["train"] |= attempt(errors, _length, budget, sound["train"]) or {}
    return sound


def _data_of_runs(entries: Sequence[Entry]) -> dict[str, Any]:
    """The data of the runs that are compared, if nothing else is said."""
    sections = {}
    for entry in entries:
        if entry.run is not None and (entry.run / CONFIG).is_file():
            section = read_yaml(entry.run / CONFIG)["data"]
            sections[json.dumps(section, sort_keys=True)] = section
    if len(sections) > 1:
        names = ", ".join(str(section["name"]) for section in sections.values())
        raise ValueError(
            f"these runs had different data or settings of them ({names}): say with --data which are meant"
        )
    return next(iter(sections.values()), {})


def _length(budget: str | None, train: Layer) -> dict[str, Any]:
    """The budget of a training, as settings of it. Raises ValueError for a budget of another kind."""
    if budget is None:
        return {}
    parsed = Budget.parse(budget)
    if "," in budget or parsed.trials or parsed.device_hours:
        raise ValueError(
            "the budget of a comparison is that of each training, in epochs or in time (20epochs, 60s, "
            f"5min), not {budget!r}"
        )
    epochs, seconds = parsed.epochs, round(3600 * (parsed.hours or 0.0), 3)
    for key, value in (("epochs", epochs), ("seconds", seconds)):
        if train.get(key) and value is not None and train[key] != value:
            raise ValueError(
                f"the budget {budget} and train.{key}={train[key]} contradict each other: leave one out"
            )
    return {"epochs": epochs, "seconds": 0.0} if epochs else {"seconds": seconds}


def _budget(train: Layer) -> str:
    """The length of a training as a budget."""
    return f"{train['seconds']:g}s" if train["seconds"] else f"{train['epochs']}epochs"


def _training(shared: Layer, entry: Entry) -> Config:
    """The configuration of a network's training. Raises Errors; what is wrong with its sizes has its name."""
    try:
        layers = [shared, {"network": entry.network}]
        return resolve_training(layers, entry.subject.to_config(), scale=entry.subject.scale)
    except ValueError as error:
        lines = error.lines if isinstance(error, Errors) else [str(error)]
        own = [f"{entry.name}: {line}" if line.startswith("network") else line for line in lines]
        raise Errors(own) from error


def _distinct(entries: list[Entry], resolved: list[Config]) -> tuple[list[Entry], list[Config]]:
    """Each network once, with a name of its own."""
    kept: dict[str, tuple[Entry, Config]] = {}
    names: set[str] = set()
    for entry, found in zip(entries, resolved, strict=True):
        key = _identity(entry.subject, found["network"])
        if key in kept:
            first = kept[key][0].name
            same = "was named twice" if entry.name == first else f"is the same network as {first}"
            warnings.warn(f"{entry.name} {same}: it is compared once", stacklevel=2)
            continue
        name, number = entry.name, 2
        while name in names:
            name, number = f"{entry.name}-{number}", number + 1
        names.add(name)
        kept[key] = replace(entry, name=name), found
    return [entry for entry, _ in kept.values()], [found for _, found in kept.values()]


def _identity(subject: Subject, network: Layer) -> str:
    """Equal for networks that are known to be the same: by the graph's digest, or by family and arguments."""
    if subject.architecture is not None:
        return subject.space(network).fill(subject.architecture).digest()
    build, _ = subject.factory or (None, {})
    return json.dumps([getattr(build, "__qualname__", subject.name), network], sort_keys=True, default=str)


def _described(entry: Entry, found: Config) -> dict[str, Any]:
    origin = {"run": str(entry.run)} if entry.run is not None else {}
    return {"name": entry.name, "what": found["what"], "network": found["network"], **origin}
