"""Exporters: every format computes what the network computes, and the Python file reads well."""

from __future__ import annotations

import ast
import copy
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from conftest import over
from torch import nn

from nas import hand_designed
from nas.exporters import EXPORTERS, ExportError, Facts, Job, Written, checked, export
from nas.exporters.python_file import write_python
from nas.graph import Builder, Shape
from nas.network import Network
from nas.primitives import PRIMITIVES
from nas.registry import load_file
from nas.search_space import SPACES, SearchSpace, read, space

SMALL = {"channels": 4, "cells": 3, "classes": 5}
POINTS = [(name, known) for name in SPACES for known in space(name).known]
FRAMEWORK = Path(__file__).parents[1]


def small(name: str, **scale: Any) -> SearchSpace:
    """A space at a small scale, of the arguments that it has."""
    wanted = {**SMALL, "input": (3, 32, 32), **scale}
    known = inspect.signature(SPACES[name]).parameters
    return space(name, **{key: value for key, value in wanted.items() if key in known})


def facts(name: str, input: Shape, classes: int = 0, **more: Any) -> Facts:
    channels = input[0]
    names = tuple(f"class {i}" for i in range(classes))
    return Facts(name, input, (0.5,) * channels, (0.25,) * channels, names, **more)


def scrambled(network: nn.Module) -> nn.Module:
    """Weights and running statistics that are not the initial ones, so that a lost one shows.

    They move by a part of their own spread: a network of larger weights multiplies rounding by itself.
    """
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            spread = tensor.std().item() if tensor.numel() > 1 else 0.0
            moved = tensor + 0.3 * (spread or 0.3) * (noise - 0.5)
            tensor.copy_(0.5 + noise if name.endswith("running_var") else moved)
    return network


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checked_source(
    network: nn.Module, folder: Path, *, factory: Any = None, input: Shape = (3, 32, 32)
) -> str:
    """The Python file of a network. Asserts that the module in it computes what the network computes."""
    network = scrambled(copy.deepcopy(network)).eval()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *input, generator=generator)
    written = write_python(Job(network, facts("net", input), x, factory), folder=folder)
    with torch.no_grad():
        expected, found = network(x), imported(written.files[0]).load()(x)
    assert (expected - found).abs().max() <= 1e-4 * max(1.0, expected.abs().max())
    assert expected.abs().max() > 0
    return written.files[0].read_text()


def assert_clean(*files: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length=110",
        "--select=E,F",
        *files,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- laws over the registries -----------------------------------------------------------------------------


SHORT = ("darts", "mobile")  # cells, widths
FORMATS = [
    pytest.param(name, input, marks=() if name in SHORT and input[0] == 1 else pytest.mark.slow)
    for name in sorted(SPACES)
    for input in ((1, 8, 8), (3, 32, 32))
]


@pytest.mark.parametrize(("name", "input"), FORMATS, ids=str)
def test_every_format_equals_the_network(name: str, input: Shape, tmp_path: Path) -> None:
    made = small(name, input=input)
    architecture = made.sample(Random(1))
    network = scrambled(Network(made.fill(architecture)))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    about = facts(f"{name}:sample", input, 5, architecture=architecture.to_dict(), card={"seed": 1})
    real = torch.rand(3, *input)
    found = export(network, formats=list(EXPORTERS), out=tmp_path / "out", facts=about, real=real)

    assert set(found.files) == set(EXPORTERS)
    assert set(found.max_abs_diff) == set(EXPORTERS) - {"yaml"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        found.files["python"].with_suffix(".safetensors").name,
        *(path.name for path in found.files.values()),
    }
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert read(yaml.safe_load(found.files["yaml"].read_text())) == architecture
    for path in (tmp_path / "out").iterdir():
        assert str(FRAMEWORK).encode() not in path.read_bytes(), f"{path.name} knows where it was made"
    card = found.card.read_text()
    assert "3 real inputs" in card
    assert all(path.name in card for path in found.files.values())
    assert all(f"{difference:.2e}" in card for difference in found.max_abs_diff.values())


@pytest.mark.parametrize(("name", "known"), POINTS)
def test_known_points_as_python(name: str, known: str, tmp_path: Path) -> None:
    made = small(name)
    checked_source(Network(made.fill(made.parse(known))), tmp_path)
    assert_clean(*tmp_path.glob("*.py"))


@pytest.mark.parametrize("name", over(sorted(SPACES)))
def test_samples_as_python(name: str, tmp_path: Path) -> None:
    rng = Random(0)
    for number in range(4):
        made = small(name, cells=rng.choice((3, 4, 6)))
        network = Network(made.fill(made.sample(rng)), affine=number % 3 > 0, pool_norm=number % 2 > 0)
        (tmp_path / str(number)).mkdir()
        checked_source(network, tmp_path / str(number))
    assert_clean(*tmp_path.glob("*/*.py"))


def test_every_primitive_as_python(tmp_path: Path) -> None:
    b = Builder((3, 16, 16))
    x = b("stem", "conv_3x3", "input", out=8)
    outputs = []
    for name, primitive in PRIMITIVES.items():
        if name.startswith("test_") or primitive.least(1) > 1 or primitive.flat:
            continue
        for stride in primitive.strides:
            out = 8 if primitive.keeps else 12
            tally = primitive.tally(8, 16, 16, out, stride)
            y = b(f"{name}_{stride}", name, x, out=out, stride=stride)
            flat = (tally.h, tally.w) == (1, 1)
            outputs.append(y if flat else b(f"{name}_{stride}_pool", "global_avg_pool", y))
    b("classifier", "linear", b("all", "concat", *outputs), out=5)
    graph = b.graph()
    checked_source(Network(graph), tmp_path, input=graph.input)


# --- the Python file --------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["DARTS_V2", pytest.param("PC_DARTS_cifar", marks=pytest.mark.slow)])
def test_darts_at_full_size_is_short(known: str, tmp_path: Path) -> None:
    made = space("darts", channels=36, cells=20)
    network = scrambled(Network(made.fill(made.parse(known))))
    found = export(network, formats=["python"], out=tmp_path, facts=facts(f"darts:{known}", (3, 32, 32), 10))
    text = found.files["python"].read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 250
    names = [node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import)]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} == {"__future__", "json", "struct", "pathlib", "torch"}
    assert "exec" not in text
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"NormalCell", "ReductionCell", "Network"} <= set(classes)
    assert "for cell in self.cells:\n            s0, s1 = s1, cell(s0, s1)" in text
    assert_clean(found.files["python"])
    done = subprocess.run(
        [sys.executable, "-I", found.files["python"]], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(1, 10)\n"
    module = imported(found.files["python"])
    assert (module.INPUT, module.MEAN, module.CLASSES[3]) == ((3, 32, 32), (0.5, 0.5, 0.5), "class 3")
    moved = tmp_path / "moved.safetensors"
    found.files["python"].with_suffix(".safetensors").rename(moved)
    assert not module.load(moved).training


def test_no_dead_node_and_no_auxiliary_head_is_written(tmp_path: Path) -> None:
    made = space("darts", channels=4, cells=6, auxiliary=True)
    text = checked_source(Network(made.fill(made.parse("DARTS_V1"))), tmp_path)
    assert "aux" not in text.lower()
    made = space("nasbench201", channels=4, cells=2)
    text = checked_source(Network(made.fill(made.parse("all-skip"))), tmp_path)
    assert "zero" not in text.lower()


def wired(rng: Random) -> Network:
    """A random network: blocks of random wiring, some alike, that read some of the last values."""
    b = Builder((2, 8, 8))
    values = [b("stem.conv", "conv_3x3", "input", out=4)]
    recipes = [
        [rng.choice(("conv_1x1", "skip_connect", "sep_conv_3x3", "max_pool_3x3", "zero")) for _ in range(4)]
        for _ in range(2)
    ]
    window = rng.choice((1, 2, 3))
    for index in range(rng.randrange(2, 7)):
        prefix = rng.choice((f"cells.{index}", f"parts.{index % 2}.units.{index}", f"odd{index}"))
        reach = window if rng.random() < 0.8 else len(values)
        reads = [
            values[
                max(
                    0,
                    len(values) - 1 - rng.randrange(reach) if rng.random() < 0.3 else len(values) - reach + i,
                )
            ]
            for i in range(reach)
        ]
        ops = rng.choice(recipes)
        states = [b(f"{prefix}.pre{i}", "conv_1x1", source, out=4) for i, source in enumerate(reads[:3])]
        for i, op in enumerate(ops):
            a, c = rng.choice(states), rng.choice(states)
            edge = b(f"{prefix}.edge{i}", op, a, out=4)
            states.append(b(f"{prefix}.node{i}", rng.choice(("sum", "mean", "sum")), edge, c, *states[:1]))
        joined = b(f"{prefix}.out", "concat", *states[-rng.randrange(1, 4) :])
        values.append(b(f"{prefix}.fit", "conv_1x1", joined, out=4))
        if rng.random() < 0.2:
            values.append(b(f"flat{index}", "conv_3x3", values[-1], out=4))
        if rng.random() < 0.2:
            values.append(states[-1])
    picked = rng.sample(values, min(len(values), rng.choice((1, 1, 2))))
    x = b("last", "sum", values[-1], *picked)
    b("classifier", "linear", b("pool", "global_avg_pool", x), out=3)
    return Network(b.graph(keep_dead=rng.random() < 0.3))


@pytest.mark.parametrize("seed", range(40))
def test_any_wiring_as_python(seed: int, tmp_path: Path) -> None:
    checked_source(wired(Random(seed)), tmp_path, input=(2, 8, 8))
    assert_clean(*tmp_path.glob("*.py"))


def test_a_change_of_window_and_values_read_late(tmp_path: Path) -> None:
    b = Builder((1, 8, 8))
    x = stem = third = b("stem", "conv_3x3", "input", out=4)
    for i in range(6):
        y = b(f"blocks.{i}.conv", "conv_3x3", x, out=4)
        x = b(f"blocks.{i}.sum", "sum", y, x)
        third = x if i == 2 else third
    x = b("late", "sum", x, third, stem, "input")
    b("classifier", "linear", b("pool", "global_avg_pool", x), out=2)
    text = checked_source(Network(b.graph()), tmp_path, input=(1, 8, 8))
    assert text.count("for block in self.") == 2
    assert "self.blocks = nn.ModuleList(Block() for _ in range(3))" in text


OWN = '''
"""Primitives of a user, in a file of their own."""
from __future__ import annotations

import math
import torch.nn.functional as F
from torch import Tensor, nn

from nas.primitives import conv
from nas.primitives.primitive import Tally, primitive

SCALE: float = math.sqrt(2.0)
EVEN, ODD = 2, 3


def relu_conv_bn(c_in: int, c_out: int) -> nn.Module:
    """Not the one of the framework, though it is called the same

    in more words.
    """
    return nn.Sequential(nn.Conv2d(c_in, c_out, ODD, 1, 1), nn.BatchNorm2d(c_out))


class Scaled(nn.Module):
    """Scales: (batch, channels, h, w), of which there are many words here; and it goes on to the end"""

    power = EVEN

    def __init__(self, inner: nn.Module, factor: float, kind: str) -> None:
        super().__init__()
        self.inner, self.factor, self.kind = inner, factor, kind

    def forward(self, x: Tensor) -> Tensor:
        """Not short

        either.
        """
        conv = self.inner(x)  # a local name that is a module elsewhere
        return (F.relu(conv) if self.kind == "relu" else conv) * self.factor**self.power * SCALE


@primitive("test_scaled_{tag}", cost=lambda t, c, s, a, factor=1.0, kind="r": t.conv(c, 3, s).norm(a))
def scaled(c_in, c_out, stride=1, affine=True, factor=1.0, kind="r") -> nn.Module:
    """Scaled"""
    theirs, ours = conv.relu_conv_bn(c_in, c_out, 1, stride), relu_conv_bn(c_out, c_out)
    return Scaled(nn.Sequential(*[layer for layer in (theirs, ours)]), factor, kind)


def tally(t: Tally) -> Tally:
    return t
'''


def own_primitive(folder: Path, tags: count[int] = count()) -> str:  # noqa: B008
    tag = next(tags)
    path = folder / "own_primitives.py"
    path.write_text(OWN.replace("{tag}", str(tag)))
    load_file(path)
    return f"test_scaled_{tag}"


def test_primitives_of_a_user_with_attributes(tmp_path: Path) -> None:
    op = own_primitive(tmp_path)
    b = Builder((2, 8, 8))
    x = "input"
    for i, (factor, width) in enumerate(((1.0, 4), (0.5, 4), (2.0, 6))):
        x = b(f"cells.{i}.lambda", op, x, out=width, factor=factor, kind="plain")
    x = b("torch", op, x, out=4)
    x = b("s0.0.import", "conv_1x1", x, out=4)
    b("CELLS", "linear", b("x", "global_avg_pool", x), out=2)
    text = checked_source(Network(b.graph()), tmp_path, input=(2, 8, 8))
    assert_clean(tmp_path / "net.py")
    assert "def relu_conv_bn2(" in text
    assert "Tally" not in text
    assert "@" not in text
    assert "(2, 4, 1.0)" in text


def test_an_attribute_that_is_no_number_separates_classes(tmp_path: Path) -> None:
    op = own_primitive(tmp_path)
    b = Builder((2, 8, 8))
    x = b("stem", "conv_3x3", "input", out=4)
    for i, kind in enumerate(("relu", "plain", "plain", "relu")):
        x = b(f"cells.{i}.a", op, x, out=4, kind=kind, factor=1.5)
        x = b(f"cells.{i}.b", "conv_1x1", x, out=4)
    b("classifier", "linear", b("pool", "global_avg_pool", x), out=2)
    text = checked_source(Network(b.graph()), tmp_path, input=(2, 8, 8))
    assert "class CellB(nn.Module)" in text
    assert "class CellC(nn.Module)" not in text


# --- modules written by hand ------------------------------------------------------------------------------


def hand_written(*, width: int = 4, names: tuple[str, ...] = ("a",)) -> nn.Module:
    """A module of this file."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, len(names))
    )


def with_numpy(*, classes: int) -> nn.Module:
    """Needs more than torch."""
    return hand_written(names=tuple(yaml.safe_load(str(["a"] * classes))))


def test_a_module_written_by_hand_in_every_format(tmp_path: Path) -> None:
    network = hand_written(width=5, names=("x", "y"))
    factory = (hand_written, {"width": 5, "names": ("x", "y")})
    formats = [name for name in EXPORTERS if name != "yaml"]
    found = export(network, formats=formats, out=tmp_path, facts=facts("1 x-y", (3, 8, 8)), factory=factory)
    assert found.files["python"].name == "network_1_x_y.py"
    assert "def build() -> nn.Module:" in found.files["python"].read_text()
    assert_clean(found.files["python"])


@pytest.mark.parametrize("family", over(sorted(hand_designed.package().FAMILIES)))
def test_every_hand_designed_family_as_python(family: str, tmp_path: Path) -> None:
    factory = hand_designed.family(family)
    torch.manual_seed(0)
    network = factory(**factory.small)
    text = checked_source(network, tmp_path, factory=(factory, factory.small), input=factory.small["input"])
    assert not re.search(r"^\s*(from|import) (baselines|nas)\b", text, re.MULTILINE)
    assert_clean(*tmp_path.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("format", sorted({*EXPORTERS} - {"python", "yaml"}))
@pytest.mark.parametrize("family", sorted(hand_designed.package().FAMILIES))
def test_every_hand_designed_family_as_a_graph(family: str, format: str, tmp_path: Path) -> None:
    factory = hand_designed.family(family)
    torch.manual_seed(0)
    network = scrambled(factory(**factory.small))
    about = facts(family, factory.small["input"])
    found = export(network, formats=[format], out=tmp_path, facts=about, factory=(factory, factory.small))
    assert set(found.max_abs_diff) == {format}


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (None, "as `factory`, or export to onnx or torch"),
        ((with_numpy, {"classes": 1}), "replace that by torch"),
        ((lambda: hand_written(), {}), "top of a module"),
        ((hand_written, {"width": torch.tensor(4)}), "as literals"),
        ((hand_written, {"width": 3}), "does not run by itself"),
    ],
)
def test_what_cannot_be_python_is_refused(
    factory: tuple[Callable[..., nn.Module], Mapping[str, Any]] | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export(hand_written(), formats=["python"], out=tmp_path, facts=facts("n", (3, 8, 8)), factory=factory)
    assert list(tmp_path.iterdir()) == []


# --- failure ----------------------------------------------------------------------------------------------


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'onnx'"):
        export(hand_written(), formats=["torch", "onxn"], out=tmp_path / "new", facts=facts("n", (3, 8, 8)))
    with pytest.raises(ValueError, match="no format"):
        export(hand_written(), formats=[], out=tmp_path / "new", facts=facts("n", (3, 8, 8)))
    assert not (tmp_path / "new").exists()


def test_a_difference_above_the_tolerance_removes_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "n.pt2").write_text("of an earlier export")
    monkeypatch.setattr(checked, "TOLERANCE", -1.0)
    with pytest.raises(
        ExportError, match=r"'torch' does not compute .* largest difference is .* allowed are"
    ):
        export(hand_written(), formats=["torch"], out=tmp_path, facts=facts("n", (3, 8, 8)))
    assert [path.name for path in tmp_path.iterdir()] == ["n.pt2"]
    assert (tmp_path / "n.pt2").read_text() == "of an earlier export"


@pytest.mark.parametrize(("share", "passes"), [(0.9e-4, True), (1.1e-4, False)])
def test_the_tolerance_is_a_share_of_the_largest_output(
    share: float, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = hand_written()
    with torch.no_grad():
        network[-1].weight.zero_()
        network[-1].bias.fill_(50.0)

    def write(job: Job, *, folder: Path) -> Written:
        (folder / "n.bin").write_text("")
        return Written((folder / "n.bin",), lambda inputs: [job.network(x) + 50.0 * share for x in inputs])

    monkeypatch.setitem(EXPORTERS._things, "torch", write)
    if passes:
        found = export(network, formats=["torch"], out=tmp_path, facts=facts("n", (3, 8, 8)))
        assert found.max_abs_diff["torch"] == pytest.approx(50.0 * share, rel=0.01)
    else:
        with pytest.raises(ExportError, match=r"allowed are 0\.005"):
            export(network, formats=["torch"], out=tmp_path, facts=facts("n", (3, 8, 8)))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused(output: float, tmp_path: Path) -> None:
    network = hand_written()
    with torch.no_grad():
        network[-1].bias.fill_(output)
    with pytest.raises(ExportError, match="not finite"):
        export(network, formats=["torch"], out=tmp_path, facts=facts("n", (3, 8, 8)))


class RowByRow(nn.Module):
    """A program of its own for every batch size."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([row.flatten() for row in x])


def test_a_batch_size_that_is_baked_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="'torch' failed"):
        export(RowByRow(), formats=["torch"], out=tmp_path, facts=facts("n", (1, 2, 2)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("about", "real", "message"),
    [
        (facts("n", (3, 8, 8), 4), None, "4 class names for a network of 1"),
        (Facts("n", (3, 8, 8), (0.5,), (0.5,), ()), None, "one number a channel"),
        (facts("n", (3, 8, 8)), torch.zeros(2, 1, 8, 8), "real inputs"),
    ],
)
def test_facts_that_do_not_fit_are_refused(
    about: Facts, real: torch.Tensor | None, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        export(hand_written(), formats=["torch"], out=tmp_path / "new", facts=about, real=real)
    assert not (tmp_path / "new").exists()


def test_yaml_needs_an_architecture(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="point of a space"):
        export(hand_written(), formats=["yaml"], out=tmp_path, facts=facts("n", (3, 8, 8)))


# --- what the artefacts carry -----------------------------------------------------------------------------


def test_facts_are_in_onnx_and_torch_and_the_terminal_stays_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    import onnxruntime

    about = facts("a \"name\" \\ of | odd 'marks' ü", (3, 8, 8), 1)
    found = export(
        hand_written(),
        formats=["onnx", "torch", "python"],
        out=tmp_path,
        facts=about,
        factory=(hand_written, {}),
    )
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    session = onnxruntime.InferenceSession(found.files["onnx"])
    carried = session.get_modelmeta().custom_metadata_map
    assert (carried["name"], json.loads(carried["mean"])) == (about.name, [0.5, 0.5, 0.5])
    extra = {"facts.json": ""}
    torch.export.load(found.files["torch"], extra_files=extra)
    assert json.loads(extra["facts.json"]) == about.metadata()


@pytest.mark.slow
def test_every_format_at_full_size(tmp_path: Path) -> None:
    made = space("darts", channels=36, cells=20)
    architecture = made.parse("DARTS_V2")
    about = facts("DARTS_V2", (3, 32, 32), 10, architecture=architecture.to_dict())
    found = export(Network(made.fill(architecture)), formats=list(EXPORTERS), out=tmp_path, facts=about)
    assert max(found.max_abs_diff.values()) <= 1e-4
