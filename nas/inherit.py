"""inherited(): the weights that a supernet leaves to the network that a search found in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nas.config import FROM_DATA
from nas.data import Dataset
from nas.loop import Search
from nas.run import CONFIG, Run, save_tensors
from nas.strategies import OneShot
from nas.subject import Subject, identify
from nas.training import INHERITED, same_data, settled


@dataclass(frozen=True)
class Inherited:
    """Weights, the scale of the network that they fit, and its accuracy with them on the validation part of
    the search.
    """

    state: Mapping[str, Tensor]
    scale: Mapping[str, Any]
    accuracy: float


def inherited(subject: Subject, data: Dataset, *, device: str) -> Inherited:
    """What a search leaves to the network that it found. Raises ValueError where it has no supernet."""
    folder, best = subject.run, subject.architecture
    if folder is None or best is None or Run(folder).config["command"] != "search":
        raise ValueError(
            f"{subject.name} does not come from a search, so there are no weights to inherit: name the "
            "folder of a run of `nas search`, or leave --inherit out"
        )
    search, strategy = taken_up(folder, data, device=device)
    with settled(search.config):
        space, state = strategy.inherited(best)
        accuracy = strategy.score(best)
    own = {name: tensor.detach().clone() for name, tensor in state.items()}  # not parts of larger ones
    return Inherited(own, {k: v for k, v in space.scale.items() if k not in FROM_DATA}, accuracy)


def taken_up(folder: Path, data: Dataset, *, device: str) -> tuple[Search, OneShot]:
    """A search with a supernet and its strategy, as they were last, on a device; the run is only read.

    Raises ValueError if there is no supernet.
    """
    run = Run(folder)
    same_data(run, data)
    search = Search(run, {**run.config, "device": device}, data)
    strategy, saved = search.strategy, run.load()
    if not isinstance(strategy, OneShot) or saved is None:
        raise ValueError(
            f"{folder} is a search by {search.config['strategy']['name']}, which trains no supernet: there "
            "are no weights to inherit; leave --inherit out"
        )
    with settled(search.config):
        task = search.task(None)
        strategy.resume(task, (), saved)
        strategy.begin(task)
    return search, strategy


def prepare(
    subject: Subject, config: Mapping[str, Any], folder: Path, *, data: Dataset, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """The configuration of a training that begins with inherited weights, which are laid into its folder.

    `asked`: of the network's scale. Raises ValueError if the weights have another one.
    """
    source = identify(config["inherits"])
    if subject.architecture != source.architecture:
        raise ValueError(f"{subject.name} is not what was found in {config['inherits']}: it inherits nothing")
    found = inherited(source, data, device=config["device"])
    for key, value in asked.items():
        if found.scale.get(key) != value:
            raise ValueError(
                f"network.{key} = {value!r}: the weights that are inherited have the supernet's size, "
                f"{found.scale.get(key)!r}; leave it out"
            )
    if not (folder / CONFIG).exists() and not folder.is_file():  # else it is refused when it is begun
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(folder / INHERITED, {"network": found.state, "accuracy": found.accuracy})
    return {**config, "network": dict(found.scale)}
