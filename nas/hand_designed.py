"""Hand-designed networks by name, found in `baselines/published.yaml`; their modules are imported at use."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

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
    """Name -> module, function, arguments, family, params, macs, input, classes, source."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load((_folder() / "published.yaml").read_text())
    return entries


def entry(name: str) -> dict[str, Any]:
    """The entry of one network. Raises ValueError with the nearest match."""
    entries = published()
    if name not in entries:
        raise ValueError(unknown("baseline", name, entries))
    return entries[name]


def module(name: str) -> Any:
    """The module `name` of the baselines."""
    if PACKAGE not in sys.modules:
        folder = _folder()
        spec = importlib.util.spec_from_file_location(
            PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules[PACKAGE] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{PACKAGE}.{name}")


def build(name: str, *, arguments: dict[str, Any] | None = None, **changed: Any) -> nn.Module:
    """The network of that name, with `classes`, `input` or other arguments changed."""
    function, given = factory(name, arguments)
    network: nn.Module = function(**bind(function, {**given, **changed}, where="network"))
    return network


def factory(name: str, arguments: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """The function that builds the network, and its arguments.

    `arguments` make a member that has no entry.
    """
    if arguments is not None:
        family = dict(arguments)
        return getattr(module(family.pop("module")), family.pop("function")), family
    found = entry(name)
    return getattr(module(found["module"]), found["function"]), dict(found["arguments"])


def like(params: int, *, classes: int, input: Shape) -> tuple[str, dict[str, Any]]:
    """The residual network whose parameters are nearest to `params`: its name and `arguments` for `build`."""
    name, arguments = module("resnet").like(params, classes=classes, input=input)
    return name, {"module": "resnet", "function": "resnet_cifar", **arguments}
