"""Laws over the registry of hand-designed networks: what is published, what is built, what runs."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import over
from torch import Tensor, nn

from baselines import FAMILIES
from baselines.resnet import resnet_cifar
from baselines.verify import main, verify
from nas import hand_designed
from nas.counting import cost
from nas.network import Network
from nas.subject import identify

FOLDER = Path(__file__).parents[1] / "baselines"
PUBLISHED = hand_designed.published()
REQUIRED = ("input", "classes", "params", "macs", "source")
FIELDS = (
    "family", "space", "arguments", "input", "classes", "params", "macs", "macs_attention", "printed",
    "error", "source", "note",
)  # fmt: skip
UNIT = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
# A table of exact counts, which lies beside the repository.
TABLE = FOLDER.parents[1] / "shared" / "truth" / "baselines.json"
ROWS = [row for row in json.loads(TABLE.read_text()) if row["kind"] == "network"] if TABLE.exists() else []
PARTS = 16


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


# --- what is published --------------------------------------------------------------------------------------


DEEP = 500  # layers: these take seconds each, and a table of exact counts has them too


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if entry["arguments"].get("depth", 0) > DEEP else [])
        for name, entry in PUBLISHED.items()
    ],
)
def test_an_entry_builds_to_exactly_its_figures(name: str) -> None:
    entry = PUBLISHED[name]
    assert set(REQUIRED) <= set(entry)
    assert [field for field in FIELDS if field in entry] == list(entry)
    assert ("family" in entry) != ("space" in entry)
    with torch.device("meta"):
        network = identify(name).build()
    counted = cost(network.graph if isinstance(network, Network) else network, input=tuple(entry["input"]))
    assert (counted.params, counted.macs) == (entry["params"], entry["macs"])
    assert counted.macs_attention == entry.get("macs_attention", 0)


@pytest.mark.parametrize("name", [name for name, entry in PUBLISHED.items() if "printed" in entry])
def test_printed_figures_are_the_exact_ones_rounded_or_a_note_says_why_not(name: str) -> None:
    entry = PUBLISHED[name]
    printed = entry["printed"]
    assert set(printed) <= {"params", "macs", "where"}
    assert "where" in printed
    for key in {"params", "macs"} & set(printed):
        match = re.fullmatch(r"([\d.,]+)([kMG]?)", str(printed[key]))
        assert match, f"{printed[key]} is no number with k, M or G"
        digits = len(match[1].partition(".")[2])
        rounded = round(entry[key] / UNIT[match[2]], digits)
        same = rounded == float(match[1].replace(",", ""))
        assert same or "note" in entry, f"{key}: {rounded}, printed {printed[key]}"


@pytest.mark.parametrize("name", [name for name, entry in PUBLISHED.items() if "error" in entry])
def test_published_errors_say_on_what(name: str) -> None:
    error = PUBLISHED[name]["error"]
    assert {"data", "where"} <= set(error)
    numbers = [value for key, value in error.items() if key in ("top1", "top5")]
    assert numbers
    assert all(0 < value < 100 for value in numbers)


def test_common_names_are_there() -> None:
    common = {
        "resnet50", "resnet20", "vgg16", "mobilenet_v2", "densenet_bc_100_12", "wrn_28_10", "swin_t",
        "lenet5", "alexnet", "googlenet", "inception_v3", "resnet18", "vit_base_patch16_224",
        "efficientnet_b0", "mobilenet_v1", "mobilenet_v3_large", "convnext_tiny", "squeezenet1_0",
        "densenet121", "xception",
    }  # fmt: skip
    assert not common - set(PUBLISHED)


# --- families -----------------------------------------------------------------------------------------------


def function(family: str) -> Callable[..., nn.Module]:
    return getattr(importlib.import_module(f"baselines.{FAMILIES[family]}"), family)


def test_every_family_is_listed_and_has_an_entry() -> None:
    """A family is marked; it takes keywords, `classes` and `input` among them, and returns a module."""
    found = {}
    for path in FOLDER.glob("[!_]*.py"):
        module = importlib.import_module(f"baselines.{path.stem}")
        for name, each in inspect.getmembers(module, inspect.isfunction):
            if hasattr(each, "small") and each.__module__ == module.__name__:
                found[name] = path.stem
    assert found == FAMILIES
    for name in FAMILIES:
        signature = inspect.signature(function(name))
        assert {"classes", "input"} <= set(signature.parameters), name
        assert {each.kind for each in signature.parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}, name
        assert typing.get_type_hints(function(name))["return"] is nn.Module, name
        assert "input" in function(name).small, name
    searched = {name for name, module in FAMILIES.items() if module == "searched"}
    assert set(FAMILIES) - searched == {e["family"] for e in PUBLISHED.values() if "family" in e}


@pytest.mark.parametrize("family", over(FAMILIES))
def test_a_small_member_trains_and_exports(family: str) -> None:
    """A gradient reaches every parameter, auxiliary heads included; the exported program is equal."""
    torch.manual_seed(0)
    network = function(family)(**function(family).small)
    x = torch.randn(2, *function(family).small["input"])
    outputs = getattr(network, "outputs", lambda x: [network(x)])(x)
    assert all(torch.isfinite(y).all() for y in outputs)
    sum((y - torch.randn_like(y)).square().mean() for y in outputs).backward()
    trained = [(name, p.grad) for name, p in network.named_parameters() if p.requires_grad]
    assert not [name for name, gradient in trained if gradient is None or not gradient.any()]
    network.eval()
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_arguments_are_told_what_there_is(family: str) -> None:
    with pytest.raises(ValueError, match="did you mean 'input'"):
        hand_designed.build("x", arguments={"family": family, "inptu": (3, 32, 32)})
    hints = typing.get_type_hints(function(family))
    words = [name for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal]
    for name in words:
        with pytest.raises(ValueError, match=name):
            hand_designed.build("x", arguments={"family": family, **function(family).small, name: "no such"})


def test_an_unknown_family_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'resnet"):
        hand_designed.build("x", arguments={"family": "resnets"})


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, baselines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parent, check=False).returncode == 0


# --- the table of exact counts ------------------------------------------------------------------------------


@pytest.mark.skipif(not ROWS and os.environ.get("CI") != "true", reason="no table of exact counts")
@pytest.mark.parametrize("part", range(PARTS))
def test_networks_described_as_data_have_the_counts_of_public_code(part: int) -> None:
    rows = ROWS[part::PARTS]
    assert rows
    for row, found in zip(rows, verify(rows), strict=True):
        macs = (row["macs"], *row.get("macs_also", ()))
        assert found["name"] == row["name"]
        assert found.get("params") == row["params"], found
        assert found["macs"] in macs, found


def test_verify_answers_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"input_size": [3, 32, 32], "num_classes": 10}
    rows = [
        {"name": "a", "family": "resnet_cifar", "config": {"depth": 8}, **sizes},
        {"name": "b", "family": "resnet_cifra", "config": {}, **sizes},
        {"name": "c", "kind": "block", "family": "fire", "config": {}, **sizes},
        {"name": "d", "family": "resnet_cifar", "config": {"dept": 8}, **sizes},
        {"name": "e", "family": "mobilenet_v1", "config": {"resolution": 224}, **sizes},
        {"name": "f"},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    assert main([str(path)]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["a"] == {"name": "a", "params": 75_290, "macs": 12_239_488}
    assert set(found) == {"a", "b", "d", "e", "f"}
    assert "did you mean 'resnet_cifar'" in found["b"]["error"]
    assert "did you mean 'depth'" in found["d"]["error"]
    assert "resolution 224" in found["e"]["error"]
    assert "family" in found["f"]["error"]


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]"])
def test_verify_refuses_what_is_no_list_of_entries(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    assert main([str(path)]) == 2
    assert main([str(tmp_path / "none.json")]) == 2
    assert main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


# --- residual networks of CIFAR -----------------------------------------------------------------------------


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
