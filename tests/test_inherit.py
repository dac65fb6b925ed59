"""Inheritance: a training begins with the weights that a supernet leaves to the network found in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_RANDOM, Command, sets
from strategy_helpers import ONE_SHOT, tiny_search

from nas.run import events, load_tensors
from nas.strategies.differentiable import Differentiable
from nas.strategies.strategy import STRATEGIES
from nas.training import INHERITED

STILL = ["train.epochs=1", "train.lr=1e-12", "train.warmup=0", "train.weight_decay=0"]
WITHOUT = ("pc_darts", "drnas")  # a part of the channels passes their operations by


def searched(nas: Command, name: str) -> None:
    settings = sets([*tiny_search(name), "ranking.networks=0"])
    done = nas("search", *settings, "--device", "cpu", "--run", "s", "--quiet")
    assert done.status == 0, done.err


def trained(nas: Command, *settings: str) -> dict[str, Any]:
    done = nas("train", "s", "--inherit", *sets(list(settings)), "--device", "cpu", "--json")
    assert done.status == 0, done.err
    return dict(done.document)


@pytest.mark.parametrize(
    "name",
    [n if n in ("darts", "rsws") else pytest.param(n, marks=pytest.mark.slow) for n in ONE_SHOT],
)
def test_a_training_begins_where_the_search_ended(name: str, nas: Command) -> None:
    searched(nas, name)
    if name in WITHOUT:
        done = nas("train", "s", "--inherit", "--set", "train.epochs=1")
        assert done.status == 2
        assert "has no weights of whole networks" in done.err
        return
    folder = Path(trained(nas, *STILL)["run"])
    began = next(event for event in events(folder) if event["kind"] == "inherited")
    last = [event for event in events(Path("s")) if event["kind"] == "epoch"][-1]["metrics"]
    differentiable = issubclass(STRATEGIES[name], Differentiable)
    assert (
        began["metrics"]["valid_accuracy"] == last["derived_accuracy" if differentiable else "valid_accuracy"]
    )
    first, end = load_tensors(folder / INHERITED), load_tensors(folder / "checkpoint.pt")
    assert first is not None
    assert end is not None
    weights = {key for key in first["network"] if "running" not in key and "num_batches" not in key}
    assert weights
    for key in weights:
        torch.testing.assert_close(first["network"][key], end["network"][key])
    assert set(first["network"]) == set(end["network"])


def test_training_goes_on_from_them_after_a_cut(nas: Command) -> None:
    """Also where nothing but the weights themselves was left."""
    searched(nas, "rsws")
    whole = trained(nas, "train.epochs=2")
    folder = Path(whole["run"])
    expected = load_tensors(folder / "checkpoint.pt")
    (folder / "checkpoint.pt").unlink()
    (folder / "events.jsonl").write_text("")
    nas("resume", folder, "--quiet")
    found = load_tensors(folder / "checkpoint.pt")
    assert expected is not None
    assert found is not None
    for key, tensor in expected["network"].items():
        assert torch.equal(tensor, found["network"][key])


def test_the_trained_network_is_evaluated_and_exported_as_it_is(nas: Command) -> None:
    searched(nas, "darts")
    document = trained(nas, "train.epochs=1")
    assert nas("evaluate", "s", "--json").document["accuracy"] == document["accuracy"]
    done = nas("export", "s", "--format", "onnx", "--json")
    assert done.status == 0, done.err


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["s", "--inherit", "--set", "network.channels=4"], "have the supernet's size"),
        (["s", "--inherit", "--set", "data.limit=50"], "the data are not those"),
        (["resnet8", "--inherit"], "does not come from a search"),
        (["r", "--inherit"], "trains no supernet"),
    ],
)
def test_what_cannot_inherit_is_told_in_a_sentence(command: list[str], sentence: str, nas: Command) -> None:
    if command[0] == "s":
        searched(nas, "rsws")
    if command[0] == "r":
        nas("search", *sets(TINY_RANDOM), "--run", "r", "--quiet")
    done = nas("train", *command, "--run", "t")
    assert done.status == 2
    assert sentence in done.err
    assert not Path("t").exists()
