"""Data sets by name, in memory: ``load("cifar10", root=...)``, ``load("folder:DIR", root=...)``.

Importing this imports neither torch nor numpy; `nas.data.batches`, which needs torch, is imported by itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas.data import cifar, digits, folder, mnist, npz
from nas.data.arrays import as_dataset, from_arrays
from nas.data.dataset import DATA, Dataset, Holdout, Split
from nas.registry import unknown

__all__ = [
    "DATA",
    "Dataset",
    "Holdout",
    "Split",
    "as_dataset",
    "cifar",
    "defaults",
    "digits",
    "folder",
    "from_arrays",
    "load",
    "mnist",
    "npz",
]

WITH_PATH = {"folder": "folder:DIR", "npz": "npz:FILE"}
GENERIC: Mapping[str, Any] = MappingProxyType({"recipe": "quick", "augment": {"crop": 4, "flip": True}})


def load(
    address: str,
    *,
    root: Path,
    download: bool = False,
    limit: int | None = None,
    shrink: int = 1,
    **options: Any,
) -> Dataset:
    """The data set at `address`: a registered name, ``folder:DIR``, ``npz:FILE`` or ``file.py:name``.

    `root` is the folder that holds the published files; `download` fetches those that are missing. `limit`
    keeps the first so many training examples, class-balanced; `shrink` divides the sides of the images, by
    means over squares. `options` go to the source (`size`, `layout`, `seed`, `url` ...). Raises ValueError
    for an unknown name or option (with the nearest match) and for data that are missing or damaged, OSError
    if a download fails.
    """
    name, path = _parse(address)
    source = DATA.resolve(name)
    _check_options(address, tuple(options), source=source, taken=("path",) if path else ())
    if path:
        options["path"] = path
    found = source(root=Path(root).expanduser(), download=download, **options)
    dataset = as_dataset(found, name=name.rpartition(":")[2])
    dataset = dataset if shrink == 1 else dataset.shrunk(shrink)
    return dataset if limit is None else dataset.limited(limit)


def defaults(address: str) -> Mapping[str, Any]:
    """`recipe` (a name) and `augment` (fields of Augment) that go with the data at `address`.

    Data of one's own get the generic ones. Raises ValueError for an unknown name.
    """
    name, _ = _parse(address)
    if name not in DATA and ".py:" not in name:
        DATA.resolve(name)  # an entry point, or the error that names the nearest match
    return MappingProxyType({**GENERIC, **DATA.facts(name)})


def _parse(address: str) -> tuple[str, str]:
    """The name of the source and the path after it, empty for a source without one."""
    name, _, path = address.partition(":")
    if name in WITH_PATH:
        if not path:
            raise ValueError(f"data {name!r} needs a path: {WITH_PATH[name]}")
        return name, path
    if address not in DATA and Path(address).is_dir():
        raise ValueError(
            f"no data {address!r}; for a folder with one sub-folder a class, say folder:{address}"
        )
    if address not in DATA and address.endswith(".npz"):
        raise ValueError(f"no data {address!r}; for a NumPy archive, say npz:{address}")
    return address, ""


def _check_options(address: str, options: tuple[str, ...], *, source: Any, taken: tuple[str, ...]) -> None:
    """Raises ValueError for an option that the source does not have; a mistyped one must not be ignored."""
    parameters = inspect.signature(source).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = [name for name in parameters if name not in ("root", "download", *taken)]
    for option in options:
        if option not in known:
            raise ValueError(unknown(f"option of data {address!r}", option, known))
