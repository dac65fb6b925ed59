"""The spaces in `examples/`: each can be searched from the command line, at its own scale and at another."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from conftest import Command, sets

import nas as package
from nas.documents import read_yaml

FOLDER = Path(__file__).parents[1] / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))
ADDRESSES = [*map(str, FILES), f"{FOLDER / 'my_space.py'}:layers"]
SHORT = ["data.limit=60", "train.epochs=1", "controls=0"]


@pytest.mark.parametrize(
    ("strategy", "budget", "more"),
    [("random", "1trials", ["strategy.epochs=1"]), ("darts", "1epochs", ["ranking.networks=0"])],
)
@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: Path(address).name)
def test_an_example_is_searched(
    nas: Command, address: str, strategy: str, budget: str, more: list[str]
) -> None:
    given = ["--space", address, "--strategy", strategy, "--budget", budget, "--json", "--quiet"]
    found = nas("search", *given, *sets([*SHORT, *more]))
    assert found.status == 0, found.err
    best = found.document["best"].removeprefix(f"{address}:")
    assert package.space(address).parse(best).literal == best


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_network_of_another_scale_costs_another_sum(nas: Command, file: Path) -> None:
    scale = {key: value for key, value in read_yaml(file)["scale"].items() if isinstance(value, int)}
    assert scale
    for key, value in scale.items():
        literal = package.space(str(file)).sample(Random(0)).literal
        costs = [
            nas("cost", f"{file}:{literal}", "--set", f"network.{key}={n}", "--json")
            for n in (value, 2 * value)
        ]
        own, larger = (cost.document["params"] for cost in costs)
        assert own < larger
