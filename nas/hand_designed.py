"""Hand-designed networks by name, found in `baselines/published.yaml`; their modules are imported at use."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.documents import read_yaml
from nas.graph import Shape
from nas.registry import unknown
from nas.signature import bind

if TYPE_CHECKING:
    from torch import nn

PACKAGE = "nas._baselines"  # its name in a wheel; in a checkout it is the folder `baselines` beside `nas`


def _folder() -> Path:
    here = Path(__file__).parent
    return here / "_baselines" if (here / "_baselines").is_dir() else here.parent / "baselines"


@cache
def published() -> dict[str, dict[str, Any]]:
    """Name -> what `baselines/published.yaml` says of that network.

    Either `family` and `arguments`, or `space` (the address of a known point, ``darts:DARTS_V2``) and
    `arguments` (all of its scale); then `input`, `classes`, and the exact `params` and `macs`.
    """
    return read_yaml(_folder() / "published.yaml")


def entry(name: str) -> dict[str, Any]:
    """The entry of one network. Raises ValueError with the nearest match."""
    entries = published()
    if name in package().FAMILIES and name not in entries:
        member = next((each for each, found in entries.items() if found.get("family") == name), None)
        raise ValueError(
            f"{name} is a family: name a member of it, as {member} (`nas list baselines --family {name}`)"
            if member
            else f"{name} is a family of searched networks: name one as SPACE:KNOWN, as in darts:DARTS_V2"
        )
    if name not in entries:
        raise ValueError(unknown("baseline", name, entries))
    return entries[name]


def package() -> Any:
    """The package of the baselines, without its modules: it has the table FAMILIES."""
    if PACKAGE not in sys.modules:
        folder = _folder()
        spec = importlib.util.spec_from_file_location(
            PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules[PACKAGE] = made
        spec.loader.exec_module(made)
    return sys.modules[PACKAGE]


def family(name: str) -> Callable[..., nn.Module]:
    """The function of that family. Raises ValueError with the nearest match."""
    modules = package().FAMILIES
    if name not in modules:
        raise ValueError(unknown("family of networks", name, modules))
    function: Callable[..., nn.Module] = getattr(importlib.import_module(f"{PACKAGE}.{modules[name]}"), name)
    return function


def build(name: str, *, arguments: Mapping[str, Any] | None = None, **changed: Any) -> nn.Module:
    """The network of that name, with `classes`, `input` or other arguments changed.

    Raises ValueError for a name or an argument that there is not, and for an input that is no shape.
    """
    function, given = factory(name, arguments)
    bound = bind(function, {**given, **changed}, where="network")
    shape = bound["input"]
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"network.input is channels, height and width, each at least 1, not {list(shape)}")
    network: nn.Module = function(**bound)
    return network


def factory(
    name: str, arguments: Mapping[str, Any] | None = None
) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """The function that builds the network, and its arguments: of its entry, with the entry's input and
    classes; or `arguments`, their family among them, for a member that has no entry.
    """
    if arguments is None:
        found = entry(name)
        assert "space" not in found, f"{name} is a point of a space: nas.subject.identify builds it"
        return family(found["family"]), {**found["arguments"], **sizes(found)}
    given = dict(arguments)
    return family(given.pop("family")), given


def sizes(found: Mapping[str, Any]) -> dict[str, Any]:
    """The input and the number of classes of an entry; a generator of pictures has no classes."""
    return {key: found[key] for key in ("input", "classes") if found[key] is not None}


def like(params: int, macs: int, *, classes: int, input: Shape) -> tuple[str, dict[str, Any]]:
    """The hand-designed network of like cost, for images of that size: its name and `arguments` for `build`.

    `baselines/like.py` says the rule.
    """
    choose = importlib.import_module(f"{package().__name__}.like").like
    name, arguments = choose(params, macs, classes=classes, input=input)
    return name, arguments
