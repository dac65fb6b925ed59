"""Subject: the network that a command names: a run, a file, ``SPACE:LITERAL``, a known one or a baseline."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas import hand_designed
from nas.documents import read_yaml
from nas.graph import Shape
from nas.registry import absolute
from nas.registry import label as label_of
from nas.run import BEST, CHECKPOINT, CONFIG, check_run, events, read_environment
from nas.search_space import SPACES, Architecture, SearchSpace, read, space
from nas.search_space.address import split

if TYPE_CHECKING:
    from torch import nn

    from nas.counting import Cost


@dataclass(frozen=True)
class Subject:
    """A network to be built at some scale: an architecture of a space, or a hand-designed one."""

    name: str
    architecture: Architecture | None = None
    arguments: Mapping[str, Any] | None = None  # of a hand-designed network without an entry of its own
    run: Path | None = None
    scale: Mapping[str, Any] = field(
        default_factory=dict
    )  # what the run decided, or what the published network has

    def to_config(self) -> dict[str, Any]:
        """What `from_config` reads; a part of a training run's configuration."""
        if self.architecture is not None:
            return {"name": self.name, "space": self.architecture.space, "literal": self.architecture.literal}
        return {"name": self.name, **({"arguments": dict(self.arguments)} if self.arguments else {})}

    def space(self, scale: Mapping[str, Any]) -> SearchSpace:
        """The architecture's space at a network's scale: the published one, the run's, then `scale`."""
        assert self.architecture is not None
        address = self.architecture.space
        return space(address, **{**SPACES.facts(address).get("network", {}), **self.scale, **scale})

    def build(self, **scale: Any) -> nn.Module:
        """The network, with the weights that the global generator gives.

        `scale`: classes, input, channels ...
        """
        from nas.network import Network

        if self.architecture is not None:
            return Network(self.space(scale).fill(self.architecture))
        return hand_designed.build(self.name, arguments=_dict(self.arguments), **{**self.scale, **scale})

    def cost(self, **scale: Any) -> tuple[Cost, Shape, int]:
        """Cost, input and number of classes."""
        import torch

        from nas.counting import cost

        if self.architecture is not None:
            sized = self.space(scale)
            return cost(sized.fill(self.architecture)), sized.graph.input, sized.scale["classes"]
        _, arguments = hand_designed.factory(self.name, _dict(self.arguments))
        fallback = {} if self.arguments else hand_designed.entry(self.name)
        given = {**fallback, **arguments, **self.scale, **scale}
        shape: Shape = tuple(given.get("input", (3, 32, 32)))
        with torch.device("meta"):
            network = self.build(**scale)
        return cost(network, input=shape), shape, int(given.get("classes", 10))

    @property
    def factory(self) -> tuple[Any, dict[str, Any]] | None:
        """How a hand-designed network is built; None for an architecture."""
        return None if self.architecture else hand_designed.factory(self.name, _dict(self.arguments))


def _dict(arguments: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if arguments is None else dict(arguments)


def from_config(
    content: Mapping[str, Any], *, run: Path | None = None, scale: Mapping[str, Any] | None = None
) -> Subject:
    """The subject that `to_config` wrote."""
    architecture = read(content) if "space" in content else None
    return Subject(content["name"], architecture, content.get("arguments"), run, scale or {})


def identify(what: str) -> Subject:
    """The network that `what` names. Raises ValueError that says what it could have been."""
    path = Path(what)
    if not re.search(r"[|(]", what) and path.is_dir():  # a notation may be longer than a file's name may be
        return _of_run(path)
    if path.suffix in (".yaml", ".yml") and not re.search(r"\.ya?ml(\?[^:|]*)?:", what):
        if not path.is_file():
            raise ValueError(
                f"no file {what}: an architecture's file is written by `nas export` or a run's {BEST}"
            )
        return _named(read(read_yaml(path)), path.stem)
    address = re.match(r"(.*?\.py:\w+(?:\?[^:|]*)?):(.+)$", what) or re.match(r"([^:|]+):(.+)$", what)
    if address:
        made, label = space(absolute(address[1])), address[2].strip()
        scale = {**made.known_scale.get(label, {}), **split(address[1])[1]}
        return replace(_named(made.parse(label), label), scale=scale)
    if what.partition("?")[0] in SPACES:
        raise ValueError(
            f"{what} is a space: name a point of it, {what}:{next(iter(space(what).known), 'LITERAL')}"
        )
    if "/" in what or path.suffix:
        raise ValueError(
            f"no folder or file {what}: name a run, an architecture's YAML file, SPACE:LITERAL or a baseline"
        )
    return _of_entry(what)


def _of_entry(name: str) -> Subject:
    """A published network: of a family, or a known point of a space at the published scale."""
    found = hand_designed.entry(name)
    if "space" not in found:
        return Subject(name)
    address, _, label = found["space"].rpartition(":")
    scale = {**split(address)[1], **found["arguments"], **hand_designed.sizes(found)}
    return Subject(name, space(address).parse(label), scale=scale)


def _named(architecture: Architecture, label: str) -> Subject:
    known = re.fullmatch(r"[\w.-]+", label)
    space_name = label_of(architecture.space)
    return Subject(f"{space_name}-{label if known else architecture.digest[:8]}", architecture)


def _of_run(folder: Path) -> Subject:
    check_run(folder)
    config = read_yaml(folder / CONFIG)
    if config["command"] == "compare":
        raise ValueError(_several(folder))
    if config["command"] == "seeds":
        first = config["search"]["seed"]
        raise ValueError(f"{folder} holds searches with several seeds: name one, {folder}/seed-{first}")
    data = read_environment(folder).get("data", {})
    scale = {**config["network"], **{key: data[key] for key in ("input", "classes") if key in data}}
    if config["command"] == "train":
        return from_config(config["what"], run=folder, scale=scale)
    if not (folder / BEST).exists():
        raise ValueError(
            f"{folder} has no best architecture yet: `nas resume {folder}` goes on with the search"
        )
    architecture = read(read_yaml(folder / BEST))
    return Subject(_named(architecture, "").name, architecture, None, folder, scale)


def _several(folder: Path) -> str:
    """The sentence for a comparison where one network is meant."""
    first = next(iter(sorted((folder / "networks").glob("*"))), folder / "networks" / "NAME-0")
    return f"{folder} is a comparison of several networks: name one of its trainings, as {first}"


def trained(folder: Path) -> Path | None:
    """The training run with the weights of a run's network: itself, its last `nas train`, or the search's
    own.
    """
    check_run(folder)
    command = read_yaml(folder / CONFIG)["command"]
    if command == "compare":
        raise ValueError(_several(folder))
    own = [folder] if command == "train" else []
    later = sorted((folder / "train").glob("[0-9]*"), key=lambda path: int(path.name), reverse=True)
    candidates = [*own, *later, folder / "controls" / "found-0"]
    there = [candidate for candidate in candidates if (candidate / CHECKPOINT).exists()]
    finished = [
        candidate for candidate in there if any(event["kind"] == "done" for event in events(candidate))
    ]
    return next(iter([*finished, *there]), None)
