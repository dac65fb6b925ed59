"""The Python interface: the same loop, networks and files as the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from nas.data import as_dataset
from nas.exporters import Exported
from nas.graph import Shape
from nas.registry import label
from nas.run import Run, new_folder
from nas.search_space import Architecture, SearchSpace
from nas.subject import identify
from nas.train import available


def build(what: str, **scale: Any) -> nn.Module:
    """The network that `what` names (as on the command line), untrained.

    `scale`: channels, cells, classes, input ...

    Raises ValueError, with the nearest match, for what does not exist.
    """
    return identify(what).build(**scale)


def search(
    *,
    space: str | SearchSpace = "darts",
    strategy: str | Mapping[str, Any] = "darts",
    data: Any = "digits",
    objective: Callable[[Architecture], float | Mapping[str, float]] | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Search, as `nas search` does; the document that it prints with ``--json``.

    Args:
        space: a name, or what `nas.space` made (its scale is used).
        strategy: a name, or ``{"name": ..., argument: value}``.
        data: a name; or arrays, tensors, a torch Dataset or DataLoader, or a (train, test) pair of them.
        objective: evaluates an architecture in place of training it: a number to maximise, or metrics.
        run: folder of the run (default: a new one under runs/). With `resume`, the run to go on with.
        settings: the other keys of the configuration: budget, controls, seed, device, train={...} ...

    Raises ValueError that lists everything wrong with the configuration.
    """
    from nas.config import resolve_search
    from nas.evaluators.demand import demand
    from nas.loop import begin, proceed
    from nas.strategies import has_supernet
    from nas.training import load_data

    foreign = None if isinstance(data, str) else as_dataset(data)
    if resume:
        if run is None:
            raise ValueError("resume=True needs run=, the folder to go on with")
        with Run.open(Path(run)) as opened:
            examples = foreign or (load_data(opened.config) if objective is None else None)
            return proceed(opened, data=examples, objective=objective)
    named: dict[str, Any] = {"name": data} if isinstance(data, str) else {"name": "arrays"}
    chosen: dict[str, Any] = {"name": space} if isinstance(space, str) else _of_space(space)
    given = {"space": chosen, "strategy": strategy, "data": named}
    config = resolve_search([given, settings], foreign_data=foreign is not None)
    name = config["strategy"]["name"]
    if objective is not None and has_supernet(name):
        raise ValueError(
            f"strategy {name} trains a supernet and evaluates no architecture: an objective needs another"
        )
    if objective is None:
        demand(config)
    elif config["search"]["early_stop"] != "none":
        raise ValueError(
            "search.early_stop goes by the accuracy after each epoch of a training; an objective has none: "
            "leave it out"
        )
    config["device"] = available(config["device"])
    examples = foreign or (load_data(config) if objective is None else None)
    names = (config["strategy"]["name"], config["space"]["name"])
    folder = Path(run) if run else new_folder("-".join(map(label, names)))
    with begin(config, folder, data=examples) as opened:
        return proceed(opened, data=examples, objective=objective)


def _of_space(space: SearchSpace) -> dict[str, Any]:
    if not space.name:
        raise ValueError(
            "a space of one's own is found again by its address: make it with nas.space('file.py:name')"
        )
    if space.limits:
        raise ValueError(
            "limits of a search are part of its configuration: give the space without them, and "
            "space={'name': ..., 'max_params': 3e6} or 'rule': 'file.py:name'"
        )
    return {"name": space.name, **{k: v for k, v in space.scale.items() if k not in ("classes", "input")}}


def export(
    network: nn.Module | str,
    *,
    formats: Sequence[str] = ("onnx",),
    out: str | Path = "export",
    input: Shape | None = None,
) -> Exported:
    """Write a network (a module, or what names one) for use elsewhere; every file is loaded again and
    compared.

    `input`: (channels, height, width), for a module that does not know it. Raises ExportError if a file
    differs.
    """
    from nas.artefacts import export_module, export_subject

    if isinstance(network, str):
        scale = {} if input is None else {"input": input}
        return export_subject(identify(network), formats=formats, out=Path(out), scale=scale)[0]
    shape = input or getattr(network, "input", None)
    if shape is None:
        raise ValueError("exporting a module needs input=(channels, height, width)")
    return export_module(network, formats=formats, out=Path(out), input=shape)
