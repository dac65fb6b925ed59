"""proceed_comparison(): several networks under one recipe and one budget, as a run.

    nas compare resnet8 resnet20 darts:DARTS_V2 --data digits --budget 8epochs --seeds 3

Each network is trained once a seed, in rounds: all with the first seed, then all with the second; one after
the other, or side by side on the workers of an executor. The trainings are runs themselves
(``networks/<name>-<seed>/``). The comparison's ledger has a line for the cost of each network (kind
``start``, as latency is measured and never the same) and one for each training (kind ``network``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.counting import cost, latency
from nas.data import Dataset
from nas.entries import SHARED, attempt
from nas.execution import Result
from nas.jobs import Jobs, carried_out, here
from nas.loop import Watcher
from nas.report.ledger import record
from nas.report.networks import document, networks
from nas.report.tensorboard import Board, replay
from nas.run import Run, RunFailed, environment
from nas.seeding import derive, randomness
from nas.signature import Errors
from nas.subject import from_config
from nas.training import facts_of, same_data, settled, train_network

Config = dict[str, Any]
Layer = Mapping[str, Any]
LARGEST = 512  # pixels, up to which the least size of an input is looked for


# --- the networks -------------------------------------------------------------------------------------------


def begin_comparison(config: Config, folder: Path, *, data: Dataset) -> Run:
    """Make the run's folder, with the cost of all networks in its ledger.

    Each network sees two images first. Raises Errors that names all that cannot take the data's.
    """
    facts = measured(config, data)
    run = Run.create(folder, config, environment(**facts_of(config, data)))
    for fact in facts:
        run.log("start", **fact)
    return run


def measured(config: Config, data: Dataset, names: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Name, parameters, multiply-adds and latency in milliseconds of each network (or of those named).

    Raises Errors that names all networks that cannot be trained on images of that size.
    """
    errors: list[str] = []
    found = []
    with settled(config):
        for entry in config["networks"]:
            if names is None or entry["name"] in names:
                found.append(attempt(errors, _measured, config, entry, data))
    if errors:
        raise Errors(errors)
    return found


def _measured(config: Config, entry: Layer, data: Dataset) -> dict[str, Any]:
    network = _tried(entry, data, device=config["device"])
    figures = cost(network, input=data.input)
    # What else the machine does only adds time: the least of three medians.
    took = min(latency(network.eval(), input=data.input) for _ in range(3))
    return {
        "name": entry["name"],
        "params": figures.params,
        "macs": figures.macs,
        "latency_ms": round(took, 4),
    }


def _tried(entry: Layer, data: Dataset, *, device: str) -> nn.Module:
    """The network, after a forward pass in training. Raises ValueError if it cannot take such images."""
    try:
        network = _seen(entry, data.input, classes=len(data.classes), device=device)
    except ValueError as error:
        raise ValueError(f"{entry['name']}: {error}") from error
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ZeroDivisionError, AssertionError, IndexError) as error:
        c, height, width = data.input
        reason = str(error).partition("\n")[0] or type(error).__name__
        least = _least(entry, c, above=min(height, width), classes=len(data.classes))
        way = f"it takes {least}x{least} pixels and more" if least else "leave it out"
        raise ValueError(
            f"{entry['name']} cannot be trained on images of {height}x{width} pixels and {c} channels: {way} "
            f"({reason})"
        ) from error
    return network


def _seen(entry: Layer, shape: Sequence[int], *, classes: int, device: str = "cpu") -> nn.Module:
    """The network after two images in training. Raises ValueError if it does not classify them."""
    with randomness("compare", entry["name"]):
        subject = from_config(entry["what"])
        network = subject.build(**entry["network"], classes=classes, input=tuple(shape)).to(device).train()
        with torch.no_grad():
            outputs = getattr(network, "outputs", lambda x: [network(x)])(
                torch.randn(2, *shape, device=device)
            )
    if tuple(outputs[0].shape) != (2, classes):
        raise ValueError(
            f"it gives {tuple(outputs[0].shape[1:])} for an image, not {classes} classes: leave it out"
        )
    return network


def _least(entry: Layer, channels: int, *, above: int, classes: int) -> int | None:
    """The least side in pixels of images that the network takes; None if `LARGEST` is too small too."""

    def works(side: int) -> bool:
        try:
            _seen(entry, (channels, side, side), classes=classes)
        except (RuntimeError, ValueError, ZeroDivisionError, AssertionError, IndexError):
            return False
        return True

    low, high = above, 2 * above
    while high <= LARGEST and not works(high):
        low, high = high, 2 * high
    if high > LARGEST:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


# --- the trainings ------------------------------------------------------------------------------------------


def proceed_comparison(run: Run, *, data: Dataset, watcher: Watcher | None = None) -> dict[str, Any]:
    """Train what is not trained yet; the result as a document. A finished comparison gives it at once."""
    config, watcher = run.config, watcher or Watcher()
    if not any(event["kind"] == "done" for event in run.events()):
        same_data(run, data)
        if (run.folder / "networks").exists():
            run.log("resume")
        _complete(run, config, data)
        board = replay(run.events(), run.folder / "tensorboard", config=config)
        try:
            _train_all(run, config, data, watcher, board)
        finally:
            board.close()
    return document(record(run.folder))


def _complete(run: Run, config: Config, data: Dataset) -> None:
    """The costs that a process that was killed early did not come to write down."""
    known = {event["name"] for event in run.events() if event["kind"] == "start"}
    missing = [entry["name"] for entry in config["networks"] if entry["name"] not in known]
    for fact in measured(config, data, missing):
        run.log("start", **fact)


def _train_all(run: Run, config: Config, data: Dataset, watcher: Watcher, board: Board) -> None:
    planned = list(_plan(config))
    done = {(e["name"], e["seed"]) for e in run.events() if e["kind"] == "network"}
    watcher.stage("networks", len(planned), len(done))
    left = [place for place, (entry, seed) in enumerate(planned) if (entry["name"], seed) not in done]
    trainings = Trainings(run.folder.absolute(), config, data)
    for place, outcome in carried_out(trainings, left, config.get("executor", {}), watcher):
        event = _told(run, *planned[place], outcome)
        watcher.event(event)
        board.write(event)
    groups = {
        row.name: {"mean": row.mean, "std": row.std or 0.0, "n": len(row.scores)}
        for row in networks(record(run.folder))
    }
    final = run.log("done", reason=config["budget"], networks=groups)
    watcher.event(final)
    board.write(final)


def _plan(config: Layer) -> Iterator[tuple[Config, int]]:
    """The trainings in order: in rounds, so that an early look shows something of each network."""
    for seed in range(config["seeds"]):
        for entry in config["networks"]:
            yield entry, seed


def _told(run: Run, entry: Config, seed: int, outcome: Result | Exception) -> dict[str, Any]:
    """A training's line of the ledger."""
    if isinstance(outcome, FloatingPointError):
        return run.log("network", name=entry["name"], seed=seed, error=str(outcome))
    if isinstance(outcome, Exception):
        raise RunFailed(f"{entry['name']}-{seed}: {outcome}") from outcome
    return run.log("network", name=entry["name"], seed=seed, metrics=dict(outcome))


class Trainings(Jobs):
    """The trainings in the order of the plan: `folder`/networks/<name>-<seed>."""

    def do(self, place: int, watcher: Watcher) -> Result:
        name, training = self._planned(place)
        length = training["train"]
        watcher.stage(f"training {name}", None if length["seconds"] else length["epochs"])
        folder = here(self.folder) / "networks" / name
        result = train_network(folder, training, data=self.data, tick=watcher.tick, seen=watcher.event)
        return {"test_accuracy": result["accuracy"], "test_loss": result["loss"]}

    def _planned(self, place: int) -> tuple[str, Config]:
        """Name and configuration."""
        entry, seed = list(_plan(self.config))[place]
        own = {"command": "train", "what": entry["what"], "network": entry["network"]}
        training = {**own, **{key: self.config[key] for key in SHARED}}
        training["seed"] = derive(self.config["seed"], "compare", seed) % 2**31
        return f"{entry['name']}-{seed}", training
