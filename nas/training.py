"""train_network(): one network trained in a folder of its own, resumable; evaluate(): a trained one measured
again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.augment import Augment
from nas.counting import Cost, cost
from nas.data import Dataset, load
from nas.documents import read_yaml
from nas.network import Network
from nas.recipe import Recipe
from nas.run import Run, environment, load_tensors
from nas.seeding import derive, randomness
from nas.subject import Subject, from_config
from nas.train import Tick, accuracy, fit

INHERITED = "inherited.pt"  # in a training's folder: the weights that it begins with
Seen = Callable[[Mapping[str, Any]], None]


def load_data(config: Mapping[str, Any], *, root: Path | None = None, download: bool = False) -> Dataset:
    """The data set of a configuration; `root`: another folder of the data files."""
    section = {k: v for k, v in config["data"].items() if k not in ("valid", "augment")}
    name = section.pop("name")
    if name == "arrays":
        raise ValueError(
            "this run's data were given as arrays in Python: go on there, nas.search(run=..., resume=True)"
        )
    found = Path(section.pop("root"))
    return load(name, root=root or found, download=download, **section)


def facts_of(config: Mapping[str, Any], data: Dataset | None) -> dict[str, Any]:
    """What a run writes down of its data: enough to know them again, and to build networks without them."""
    if data is None:
        return {}
    fraction = config["data"]["valid"] if config["command"] == "search" else config["train"]["valid"]
    held = data.split(fraction, seed=derive(config["seed"], "split")) if fraction else None
    return {
        "data": {
            "name": data.name,
            "digest": data.digest,
            "split_digest": held.digest if held else None,
            "train": len(held.train) if held else len(data.train),
            "valid": len(held.valid) if held else 0,
            "test": len(data.test),
            "input": list(data.input),
            "classes": len(data.classes),
        }
    }


def same_data(run: Run, data: Dataset | None) -> None:
    """Raises ValueError if the data are not those with which the run began."""
    began = run.environment.get("data", {}).get("digest")
    if data is not None and began is not None and data.digest != began:
        raise ValueError(
            f"the data are not those with which {run.folder} began "
            f"(digest {data.digest[:12]}, then {began[:12]}): give it the same files"
        )


@contextmanager
def settled(config: Mapping[str, Any]) -> Iterator[None]:
    """Threads and determinism as the configuration says, and afterwards as before."""
    threads, deterministic = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(config["threads"])
    if config["deterministic"]:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Not torch.use_deterministic_algorithms: that imports the whole compiler, for two seconds.
        torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(deterministic)


def build(config: Mapping[str, Any], data: Dataset) -> tuple[Subject, nn.Module]:
    """The network of a training's configuration, with its seeded initial weights."""
    subject = from_config(config["what"])
    scale = {**config["network"], "classes": len(data.classes), "input": data.input}
    with randomness(config["seed"], "network"):
        if "inherits" in config:  # the form in which a supernet has it
            assert subject.architecture is not None
            sized = subject.space(scale)
            return subject, Network(sized.fill(subject.architecture), **sized.supernet)
        return subject, subject.build(**scale)


def train_network(
    folder: Path,
    config: dict[str, Any],
    *,
    data: Dataset | None,
    tick: Tick | None = None,
    seen: Seen = lambda event: None,
) -> dict[str, Any]:
    """Train in `folder`, from the beginning or from where it was cut off; accuracy on the test part as a
    document.
    """
    assert data is not None
    fresh = not (folder / "config.yaml").exists()
    with (
        Run.create(folder, config, environment(**facts_of(config, data)))
        if fresh
        else Run.open(folder) as run
    ):
        return proceed_training(run, data=data, tick=tick, seen=seen)


def proceed_training(
    run: Run, *, data: Dataset, tick: Tick | None = None, seen: Seen = lambda event: None
) -> dict[str, Any]:
    """Train to the end; a finished training gives its result at once."""
    from nas.report.tensorboard import replay

    config = run.config
    done = [event for event in run.events() if event["kind"] == "done"]
    if done:
        return {**done[-1]["result"], "run": str(run.folder)}
    same_data(run, data)
    state = run.load()
    first = _first(run) if "inherits" in config and not state else None
    run.cut_back(state["covers"] if state else 0)
    if state:
        run.log("resume")
    elif first:
        seen(run.log("inherited", metrics={"valid_accuracy": first["accuracy"]}))
    recipe = Recipe(**config["train"])
    board = replay(run.events(), run.folder / "tensorboard", config=config)
    with settled(config), closing(board):
        _, network = build(config, data)
        if first:
            network.load_state_dict(first["network"])
        train, valid = _parts(config, data)
        norms: dict[str, Any] = {"mean": data.mean, "std": data.std, "device": config["device"]}
        epochs = fit(
            network,
            train,
            recipe=recipe,
            valid=valid,
            augment=Augment(**config["data"]["augment"]),
            seed=config["seed"],
            state=state,
            tick=tick,
            **norms,
        )
        for epoch in epochs:
            event = run.log("epoch", step=epoch.step, metrics=epoch.metrics)
            run.save(epoch.state())
            seen(event)
            board.write(event)
        measured = accuracy(network, data.test, **norms)
        if not math.isfinite(measured["loss"]):
            raise FloatingPointError(
                f"the trained network's loss is {measured['loss']}: lower train.lr, or set train.clip"
            )
        figures = cost(network, input=data.input)
        document = _document(measured, "test", len(data.test), figures)
        final = run.log("done", metrics=measured, result=document)
        board.write(final)
    seen(final)
    return {"run": str(run.folder), **final["result"]}


def _first(run: Run) -> dict[str, Any]:
    """The weights that a training inherits. Raises ValueError if they are gone."""
    found = load_tensors(run.folder / INHERITED)
    if found is None:
        raise ValueError(
            f"{run.folder} begins with weights of {run.config['inherits']}, and its {INHERITED} is gone: "
            f"begin anew with `nas train {run.config['inherits']} --inherit`"
        )
    return found


def _document(measured: Mapping[str, float], split: str, examples: int, figures: Cost) -> dict[str, Any]:
    """What `nas train` and `nas evaluate` print with ``--json``, without the run."""
    return {
        "accuracy": measured["accuracy"],
        "loss": measured["loss"],
        "split": split,
        "examples": examples,
        "params": figures.params,
        "macs": figures.macs,
    }


def _parts(config: Mapping[str, Any], data: Dataset) -> tuple[Any, Any]:
    fraction = config["train"]["valid"]
    if not fraction:
        return data.train, None
    held = data.split(fraction, seed=derive(config["seed"], "split"))
    return held.train, held.valid


def trained_network(folder: Path, data: Dataset) -> tuple[Subject, nn.Module]:
    """The network of a training run with its last weights. Raises ValueError if it has none yet."""
    config = read_yaml(folder / "config.yaml")
    state = load_tensors(folder / "checkpoint.pt")
    if state is None:
        raise ValueError(f"{folder} has no weights yet: `nas resume {folder}` goes on with the training")
    subject, network = build(config, data)
    network.load_state_dict(state["averaged"])
    return subject, network


def evaluate(folder: Path, *, data: Dataset, split: str, device: str = "cpu") -> dict[str, Any]:
    """Accuracy and loss of a trained network on the test part, or on the part kept for validation."""
    config = read_yaml(folder / "config.yaml")
    part = data.test
    if split == "valid":
        _, valid = _parts(config, data)
        if valid is None:
            raise ValueError(
                f"{folder} trained on all training images (train.valid=0): there is only --split test"
            )
        part = valid
    with settled(config):
        _, network = trained_network(folder, data)
        network.to(device)
        measured = accuracy(network, part, mean=data.mean, std=data.std, device=device)
    figures = cost(network, input=data.input)
    return {"run": str(folder), **_document(measured, split, len(part), figures)}
