"""Laws over the registry of hand-designed networks, and over the family of CIFAR ResNets."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from baselines.resnet import SHORTCUTS, like, parameters, resnet_cifar

FOLDER = Path(__file__).parents[1] / "baselines"
PUBLISHED: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "published.yaml").read_text())
FIELDS = ("module", "function", "arguments", "family", "params", "macs", "input", "classes", "source")
# A table of exact counts, if one lies beside the repository.
TABLES = [path for path in [FOLDER.parents[1] / "shared" / "truth" / "baselines.json"] if path.exists()]


def factory(entry: dict[str, Any]) -> Callable[..., nn.Module]:
    return getattr(importlib.import_module(f"baselines.{entry['module']}"), entry["function"])


def figures(network: nn.Module, *, input: list[int]) -> tuple[int, int]:
    """Trainable parameters, and multiply-adds of convolutions and linear layers for one image."""
    macs = 0

    def add(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        macs += output.numel() * math.prod(
            module.weight.shape[1:]
        )  # (c_out, c_in / groups, k, k) or (out, in)

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    network.eval()(torch.empty(1, *input, device="meta"))
    return sum(p.numel() for p in network.parameters() if p.requires_grad), macs


def truth() -> Iterator[Any]:
    """Entries of the table whose family is ours; a family has one function."""
    functions = {entry["family"]: entry for entry in PUBLISHED.values()}
    for row in json.loads(TABLES[0].read_text()) if TABLES else []:
        if row["family"] in functions and row["kind"] == "network":
            yield pytest.param(functions[row["family"]], row, id=row["name"])


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_builds_to_exactly_its_figures(name: str) -> None:
    entry = PUBLISHED[name]
    assert tuple(entry) == FIELDS
    with torch.device("meta"):
        network = factory(entry)(**entry["arguments"], classes=entry["classes"], input=tuple(entry["input"]))
    assert figures(network, input=entry["input"]) == (entry["params"], entry["macs"])


def test_every_network_function_has_an_entry() -> None:
    """A network function is public, takes `classes` and `input` and returns a module."""
    found = set()
    for path in FOLDER.glob("[!_]*.py"):
        module = importlib.import_module(f"baselines.{path.stem}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            signature = inspect.signature(function)
            ours = function.__module__ == module.__name__ and not name.startswith("_")
            if ours and {"classes", "input"} <= set(signature.parameters) and name != "like":
                assert signature.return_annotation == "nn.Module", name
                found.add((path.stem, name))
    assert found
    assert found == {(entry["module"], entry["function"]) for entry in PUBLISHED.values()}


@pytest.mark.skipif(
    not TABLES and os.environ.get("CI") != "true", reason="no table of exact counts beside the repository"
)
def test_the_table_of_exact_counts_holds_networks_of_ours() -> None:
    assert list(truth())


@pytest.mark.parametrize(("entry", "row"), list(truth()))
def test_the_figures_are_those_of_public_code(entry: dict[str, Any], row: dict[str, Any]) -> None:
    with torch.device("meta"):
        network = factory(entry)(**row["config"], classes=row["num_classes"], input=tuple(row["input_size"]))
    assert figures(network, input=row["input_size"]) == (row["params"], row["macs"])


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, baselines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, check=False).returncode == 0


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize(("block", "depth"), [("basic", 8), ("bottleneck", 11)])
def test_a_gradient_reaches_every_parameter(block: str, depth: int, shortcut: str) -> None:
    torch.manual_seed(0)
    network = resnet_cifar(
        depth=depth, block=block, shortcut=shortcut, widths=(4, 8, 16), classes=5, input=(1, 8, 8)
    )
    logits = network(torch.randn(4, 1, 8, 8))  # (4, 5)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    assert logits.shape == (4, 5)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_zero_padding_keeps_every_second_pixel_and_adds_zeros() -> None:
    """A block whose residual is nothing is its shortcut."""
    network = resnet_cifar(depth=8, widths=(4, 8, 16))
    block = next(
        m for m in network.modules() if hasattr(m, "shortcut") and not isinstance(m.shortcut, nn.Identity)
    )
    x = torch.rand(2, 4, 7, 7)
    y = block.shortcut(x)
    assert y.shape == (2, 8, 4, 4)
    torch.testing.assert_close(y.sum(dim=1), x[:, :, ::2, ::2].sum(dim=1))
    assert (y.flatten(2).abs().sum(dim=(0, 2)) == 0).sum() == 4


def test_weights_start_with_the_published_variance() -> None:
    """2 / (k * k * c), He et al. 2015, equation 10; square convolutions, where both fans agree."""
    torch.manual_seed(0)
    for module in resnet_cifar(depth=20).modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == module.out_channels:
            product = float(module.weight.detach().var()) * module.weight[0].numel()
            assert product == pytest.approx(2, rel=0.1)  # 2,304 weights at least: 3 % is one standard error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 21}, r"depth must be 6n \+ 2 for basic blocks.*nearest is 20"),
        ({"depth": 2}, r"nearest is 8"),
        ({"depth": 110 + 1, "block": "bottleneck"}, r"depth must be 9n \+ 2.*nearest is 110"),
        ({"block": "wide"}, r"block must be one of \['basic', 'bottleneck'\]"),
        ({"shortcut": "D"}, r"shortcut must be one of \['A', 'B', 'C', 'none'\]"),
        ({"widths": (16, 8, 4)}, r"shortcut A cannot drop channels.*take shortcut B"),
    ],
)
def test_a_wrong_argument_is_told_the_rule_and_the_way_out(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resnet_cifar(**arguments)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_control_is_of_like_size(channels: int, classes: int) -> None:
    for exponent in range(61):  # 5,000 to 5,000,000 in steps of 12 %
        params = round(5000 * 1000 ** (exponent / 60))
        name, arguments = like(params, classes=classes, input=(channels, 8, 8))
        width = arguments["widths"][0]
        assert name == f"resnet{arguments['depth']}-w{width}"
        count = parameters(arguments["depth"], width, classes=classes, channels=channels)
        assert abs(count / params - 1) <= 0.15, (params, name, count)


@pytest.mark.parametrize("params", [6_000, 80_000, 1_000_000])
def test_the_closed_form_is_the_count_of_the_built_control(params: int) -> None:
    _, arguments = like(params, classes=7, input=(1, 8, 8))
    with torch.device("meta"):
        network = resnet_cifar(**arguments, classes=7, input=(1, 8, 8))
    expected = parameters(arguments["depth"], arguments["widths"][0], classes=7, channels=1)
    assert figures(network, input=[1, 8, 8])[0] == expected


def test_the_control_for_a_published_network_is_that_network() -> None:
    assert like(269_722, classes=10, input=(3, 32, 32)) == (
        "resnet20-w16",
        {"depth": 20, "widths": [16, 32, 64]},
    )


def test_a_network_exports() -> None:
    network = resnet_cifar(depth=8, widths=(4, 8, 16), input=(1, 8, 8)).eval()
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), network(x))
