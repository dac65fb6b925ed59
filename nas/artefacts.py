"""What `nas export` writes for a named network: its trained weights if it has them, and a card that says what
it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.counting import cost
from nas.data import Dataset
from nas.data.batches import Batches
from nas.documents import read_yaml
from nas.exporters import Exported, Facts, export
from nas.run import CONFIG, events
from nas.seeding import randomness
from nas.subject import Subject, trained
from nas.training import load_data, trained_network

REAL_IMAGES = 32  # of the test part, on which the loaded files are compared


def export_subject(
    subject: Subject,
    *,
    formats: Sequence[str],
    out: Path,
    scale: Mapping[str, Any],
    seed: int = 0,
    root: Path | None = None,
) -> tuple[Exported, bool]:
    """Export a named network to `out`; what was written, and whether the weights are trained ones.

    Raises ValueError if `scale` would change a trained network, ExportError if a file differs from the
    network.
    """
    folder = trained(subject.run) if subject.run else None
    if folder is not None:
        if scale:
            raise ValueError(
                f"{folder} was trained at its own scale: leave out {sorted(scale)}, or name the architecture"
            )
        return _trained(subject, folder, formats=formats, out=out, root=root), True
    with randomness(seed, "network"):
        network = subject.build(**scale)
    figures, shape, classes = subject.cost(**scale)
    card = {
        "weights": f"initial, seed {seed}: not trained",
        "parameters": figures.params,
        "multiply-adds": figures.macs,
    }
    mean, std = (0.0,) * shape[0], (1.0,) * shape[0]
    names = tuple(str(i) for i in range(classes))
    if subject.run is not None and not scale:
        data = load_data(read_yaml(subject.run / CONFIG), root=root)
        mean, std, names = data.mean, data.std, data.classes
    facts = Facts(subject.name, shape, mean, std, names, _identity(subject), card)
    return export(network, formats=formats, out=out, facts=facts, factory=_factory(subject, scale)), False


def _trained(
    subject: Subject, folder: Path, *, formats: Sequence[str], out: Path, root: Path | None
) -> Exported:
    config = read_yaml(folder / "config.yaml")
    data = load_data(config, root=root)
    _, network = trained_network(folder, data)
    figures = cost(network, input=data.input)
    done = [event for event in events(folder) if event["kind"] == "done"]
    card = {
        "weights": f"trained, {sum(event['kind'] == 'epoch' for event in events(folder))} epochs",
        "test accuracy": f"{100 * done[-1]['metrics']['accuracy']:.2f} %"
        if done
        else "training is unfinished",
        "data": f"{data.name} ({len(data.train):,} training and {len(data.test):,} test images)",
        "data digest": data.digest,
        "recipe": config["recipe"],
        "seed": config["seed"],
        "parameters": figures.params,
        "multiply-adds": figures.macs,
    }
    if subject.architecture is not None:
        card["architecture"] = str(subject.architecture)
        card["architecture digest"] = subject.architecture.digest
    facts = Facts(subject.name, data.input, data.mean, data.std, data.classes, _identity(subject), card)
    changed = {**config["network"], "classes": len(data.classes), "input": data.input}
    factory = _factory(subject, changed)
    return export(network, formats=formats, out=out, facts=facts, real=real_images(data), factory=factory)


def real_images(data: Dataset) -> torch.Tensor:
    """Some test images as the network sees them: (n, channels, height, width)."""
    part = data.test.take(range(min(REAL_IMAGES, len(data.test))))  # type: ignore[arg-type]
    batches = Batches(
        part, mean=data.mean, std=data.std, batch=REAL_IMAGES, device="cpu", seed=0, shuffle=False
    )
    x, _ = next(batches.epoch(0))
    return x


def _identity(subject: Subject) -> dict[str, str] | None:
    return subject.architecture.to_dict() if subject.architecture else None


def _factory(subject: Subject, changed: Mapping[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    if subject.factory is None:
        return None
    function, arguments = subject.factory
    return function, {**arguments, **changed}


def export_module(
    network: nn.Module, *, formats: Sequence[str], out: Path, input: tuple[int, int, int]
) -> Exported:
    """Export any module as it is."""
    with torch.no_grad():
        classes = network.eval()(torch.zeros(1, *input)).shape[-1]
    neutral = (0.0,) * input[0], (1.0,) * input[0]
    card = {"weights": "as given", "parameters": cost(network, input=input).params}
    facts = Facts("network", input, *neutral, tuple(str(i) for i in range(classes)), None, card)
    return export(network, formats=formats, out=out, facts=facts)
