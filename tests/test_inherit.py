"""Inheritance: a training begins with the weights that a supernet leaves to the network found in it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_RANDOM, Command, sets
from strategy_helpers import ONE_SHOT, tiny_search

from nas.documents import read_yaml
from nas.inherit import taken_up
from nas.run import events, load_tensors
from nas.seeding import derive
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import SharedWeights
from nas.strategies.strategy import STRATEGIES
from nas.supernet.norms import normalising
from nas.train import accuracy
from nas.training import INHERITED, build, load_data

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


def reached(folder: Path, state: Mapping[str, torch.Tensor]) -> float:
    """The accuracy of the network of a training with these weights, on the validation part of the search, its
    batch norms by the policy of the search.
    """
    config = read_yaml(folder / "config.yaml")
    data = load_data(config)
    _, strategy = taken_up(Path("s"), data, device="cpu")
    assert isinstance(strategy, SharedWeights)
    _, network = build(config, data)
    network.load_state_dict(state)
    shown = (x for x, _ in itertools.islice(strategy.train_batches.epoch(0), strategy.recalibrated))
    valid = data.split(0.5, seed=derive(0, "split")).valid
    with torch.no_grad(), normalising(network, strategy.norm, forward=network, images=shown):
        return accuracy(network, valid, mean=data.mean, std=data.std, forward=network)["accuracy"]


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
    assert reached(folder, first["network"]) == began["metrics"]["valid_accuracy"]
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


def test_the_configuration_repeats_the_training(nas: Command) -> None:
    searched(nas, "rsws")
    first = trained(nas, "train.epochs=1")
    again = nas(
        "train", "s", "--config", Path(first["run"]) / "config.yaml", "--run", "again", "--json"
    ).document
    assert {**again, "run": ""} == {**first, "run": ""}


def test_weights_that_are_gone_are_missed(nas: Command) -> None:
    searched(nas, "rsws")
    folder = Path(trained(nas, "train.epochs=1")["run"])
    for name in (INHERITED, "checkpoint.pt", "events.jsonl"):
        (folder / name).unlink()
    done = nas("resume", folder)
    assert done.status == 2
    assert f"its {INHERITED} is gone" in done.err


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
