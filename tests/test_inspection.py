"""Laws of looking inside networks: maps add up to logits, gradients are gradients, fields are what is seen,
and no network is changed.
"""

from __future__ import annotations

import inspect as python
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Command, sets, slow_if_large
from torch import Tensor, nn
from torch.nn import functional

from nas import hand_designed
from nas.data import Dataset, Split
from nas.graph import JOINS, Shape
from nas.inspection import INSPECTIONS, Case, Finding, inspect, look
from nas.inspection.activations import peaks
from nas.inspection.backward import Rule, signal
from nas.inspection.cam import class_activation, ending
from nas.inspection.geometry import fields
from nas.inspection.gradcam import grad_cam
from nas.inspection.landscape import direction, landscape, loss_at
from nas.inspection.probe import is_map
from nas.inspection.receptive_field import extents
from nas.inspection.saliency import saliency_maps
from nas.inspection.work import examples
from nas.network import Network
from nas.search_space import SPACES, space

FAMILIES = list(hand_designed.package().FAMILIES)
# Without a closed form, and why: generators grow, tokens and windows rearrange places.
OPEN = {"gan", "vit", "swin", "deformable_resnet", "nonlocal_resnet"}
# Size and stride of the last maps: Araujo, Norris, Sim 2019, table; the last of ResNet in its version 1.5.
PUBLISHED_FIELDS: list[tuple[str, dict[str, Any], tuple[int, int]]] = [
    ("resnet", {"depth": 50, "stride_in": "1x1"}, (483, 32)),
    ("resnet", {"depth": 101, "stride_in": "1x1"}, (1027, 32)),
    ("resnet", {"depth": 152, "stride_in": "1x1"}, (1507, 32)),
    ("resnet", {"depth": 50}, (427, 32)),
    ("vgg", {"config": "D"}, (212, 32)),
    ("mobilenet_v1", {}, (315, 32)),
    ("inception_v3", {}, (1311, 32)),
]
QUICK = {"landscape": {"points": 3, "examples": 20}, "activations": {"units": 2, "scan": 30}}


class Small(nn.Module):
    """Two convolutions, max pooling, global average pooling and a linear layer."""

    def __init__(self, channels: int = 3, act: nn.Module | None = None, pool: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.act = act or nn.ReLU()
        self.pool = nn.MaxPool2d(2) if pool else nn.AvgPool2d(2)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.act(self.norm(self.first(x))))
        return self.classifier(self.act(self.second(x)).mean((2, 3)))


def small(**given: Any) -> nn.Module:
    torch.manual_seed(0)
    return Small(**given).eval()


def data(channels: int = 3, size: int = 12, classes: int = 4) -> Dataset:
    rng = np.random.default_rng(0)

    def part(count: int) -> Split:
        images = rng.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
        return Split(images, np.arange(count, dtype=np.int64) % classes)

    return Dataset.measured("noise", train=part(40), test=part(30), classes=tuple("abcd"))


def case(network: nn.Module | None = None, **given: Any) -> Case:
    made = data()
    part = examples(made.test, 4)
    images = next(Case("", nn.Identity(), torch.empty(0), data=made).batches(part).epoch(0))[0].contiguous()
    return Case("small", network or small(), images, tuple(part.labels.tolist()), made, **given)


def member(family: str) -> tuple[nn.Module, Shape]:
    """A small member of a family of networks, in evaluation mode, and the shape of its images."""
    build = hand_designed.family(family)
    given = {name: each.default for name, each in python.signature(build).parameters.items()} | build.small
    torch.manual_seed(0)
    return build(**build.small).eval(), tuple(given["input"])


def sampled(name: str) -> tuple[Network, Shape]:
    """A random network of a space."""
    made = space(name, **SPACES.facts(name).get("small", {}))
    torch.manual_seed(0)
    network = Network(made.fill(made.sample(Random(0)))).eval()
    return network, network.input


def _networks() -> Iterator[Any]:
    for name in FAMILIES:
        yield pytest.param(member, name, id=name, marks=slow_if_large(name))
    for name in SPACES:
        yield pytest.param(sampled, name, id=f"space-{name}", marks=slow_if_large(name))


NETWORKS = list(_networks())
CLASSIFIERS = [each for each in NETWORKS if each.id != "gan"]


# --- the registry ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", INSPECTIONS)
@pytest.mark.parametrize("layer", [None, "second"])
def test_a_kind_writes_its_files_and_changes_nothing(kind: str, layer: str | None, tmp_path: Path) -> None:
    network = small()
    network.train()
    network.pool.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    if layer and not INSPECTIONS.facts(kind)["layer"]:
        with pytest.raises(ValueError, match="--layer goes with"):
            inspect(case(network, layer=layer), [kind], out=tmp_path)
        return
    found = inspect(case(network, layer=layer), [kind], out=tmp_path, settings=QUICK)
    assert [path for path in found.files[kind] if path.suffix == ".png"]
    assert all(path.stat().st_size for path in found.files[kind])
    assert sorted(tmp_path.iterdir()) == sorted(found.files[kind])
    json.dumps(found.to_dict(), allow_nan=False)
    assert layer is None or found.findings[kind].layer == layer
    assert INSPECTIONS.summary(kind)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert network.training
    assert not network.pool.training
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("kind", INSPECTIONS)
def test_a_kind_needs_data_only_if_it_says_so(kind: str, tmp_path: Path) -> None:
    noise = Case("small", small(), torch.randn(4, 3, 12, 12), trained=False)
    if INSPECTIONS.facts(kind)["images"]:
        with pytest.raises(ValueError, match=r"needs images.*--data"):
            inspect(noise, [kind], out=tmp_path)
    else:
        assert inspect(noise, [kind], out=tmp_path).files[kind]


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_of_any_number_of_channels(channels: int, tmp_path: Path) -> None:
    noise = Case("small", small(channels=channels), torch.randn(4, channels, 12, 12))
    kinds = [kind for kind in INSPECTIONS if not INSPECTIONS.facts(kind)["images"]]
    assert inspect(noise, kinds, out=tmp_path).files.keys() == set(kinds)
    assert noise.pictures().shape == (4, 12, 12, 1 if channels < 3 else 3)


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    first, second = (inspect(case(), list(INSPECTIONS), out=tmp_path / name, settings=QUICK) for name in "ab")
    for kind in INSPECTIONS:
        pairs = zip(first.files[kind], second.files[kind], strict=True)
        assert all(one.read_bytes() == other.read_bytes() for one, other in pairs)


def test_mistakes_are_named(tmp_path: Path) -> None:
    for kinds, given, words in (
        (["camm"], {}, "did you mean 'cam'"),
        ([], {}, "name some of"),
        (["landscape"], {"landscape": {"points": 4}}, "odd number"),
        (["landscape"], {"landscape": {"point": 5}}, "did you mean 'points'"),
        (["cam"], {"cam": {"target": 7}}, r"0\.\.3"),
    ):
        with pytest.raises(ValueError, match=words):
            inspect(case(), kinds, out=tmp_path, settings=given)
    with pytest.raises(ValueError, match=r"did you mean 'second'.*there are: first, norm"):
        inspect(case(layer="secund"), ["gradcam"], out=tmp_path)
    with pytest.raises(ValueError, match="no rows and columns; the last that has them is 'act'"):
        inspect(case(layer="classifier"), ["gradcam"], out=tmp_path)
    assert not list(tmp_path.iterdir())


# --- layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_joins_of_a_searched_network_are_layers(name: str) -> None:
    network, shape = sampled(name)
    program = network._program
    x = torch.randn(2, *shape)
    seen = look(network, x)
    joins = {node.name for node in network.graph.nodes if node.op in JOINS}
    assert joins <= set(seen.values)
    assert network._program is program
    assert torch.equal(seen.output, network(x))


@pytest.mark.parametrize(("make", "name"), CLASSIFIERS)
def test_the_last_map_is_no_table_of_attention(make: Any, name: str) -> None:
    network, shape = make(name)
    with torch.no_grad():
        seen = look(network, torch.randn(2, *shape))
    assert seen.last is not None
    assert is_map(seen.last[1], shape[1] / shape[2])
    assert seen.last[1].shape[2] <= shape[1] // 2


# --- evidence ----------------------------------------------------------------------------------------------


@torch.no_grad()
def ends_in_a_mean(network: nn.Module, x: Tensor) -> bool:
    try:
        ending(network, look(network, x))
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("make", "name"), CLASSIFIERS)
def test_class_activation_adds_up_and_equals_grad_cam(make: Any, name: str) -> None:
    """The mean of the map plus the bias is the logit; its ReLU over the number of places is Grad-CAM."""
    network, shape = make(name)
    network.double()
    x = torch.randn(2, *shape, dtype=torch.float64)
    if not ends_in_a_mean(network, x):
        maps, _, _ = grad_cam(network, x)
        assert (maps >= 0).all()
        assert maps.isfinite().all()
        return
    maps, seen = class_activation(network, x)
    chosen = seen.logits.argmax(1)
    bias = ending(network, seen).bias
    torch.testing.assert_close(maps.mean((1, 2)) + bias[chosen], seen.logits.amax(1))
    again, layer, _ = grad_cam(network, x)
    assert layer == seen.last[0]
    torch.testing.assert_close(again, maps.clamp(min=0) / maps[0].numel())


def test_most_networks_have_class_activation_maps() -> None:
    """So that the law above is not an empty one."""
    able = [
        name
        for name in ("resnet_cifar", "densenet_cifar", "nin", "mobilenet_v2", "regnety")
        if name in FAMILIES
    ]
    for name in able:
        network, shape = member(name)
        assert ends_in_a_mean(network, torch.randn(2, *shape)), name
    assert len(able) > 2
    assert ends_in_a_mean(*(lambda net, shape: (net, torch.randn(2, *shape)))(*sampled("darts")))


def test_class_activation_of_a_chosen_class() -> None:
    network, x = small(), torch.randn(3, 3, 12, 12)
    maps, seen = class_activation(network, x, target=2)
    torch.testing.assert_close(maps.mean((1, 2)) + network.classifier.bias[2], seen.logits[:, 2])


def test_a_network_that_ends_otherwise_is_told_the_way_out() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 4))
    with pytest.raises(ValueError, match="--kind gradcam"):
        class_activation(network, torch.randn(2, 3, 12, 12))


def test_grad_cam_weighs_maps_by_their_mean_gradients() -> None:
    network, x = small(), torch.randn(2, 3, 12, 12)
    maps, _, _ = grad_cam(network, x, layer="first", target=1)
    taps = network.first(x).detach().requires_grad_()
    hidden = network.pool(network.act(network.norm(taps)))
    logits = network.classifier(network.act(network.second(hidden)).mean((2, 3)))
    (slope,) = torch.autograd.grad(logits[:, 1].sum(), taps)
    expected = (slope.mean((2, 3))[:, :, None, None] * taps).sum(1).clamp(min=0)
    torch.testing.assert_close(maps, expected.detach())


# --- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [None, "second"])
def test_saliency_is_the_derivative(layer: str | None) -> None:
    network, h = small().double(), 1e-6
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    maps, seen = saliency_maps(network, x, layer=layer)

    def score(images: Tensor) -> Tensor:
        with torch.no_grad():
            found = look(network, images)
        if layer:
            return found.values[layer].flatten(1).amax(1)
        return found.logits.gather(1, seen.logits.argmax(1)[:, None])[:, 0]

    for row, column in ((0, 0), (3, 4), (7, 7)):
        slopes = []
        for channel in range(3):
            step = torch.zeros_like(x)
            step[:, channel, row, column] = h
            slopes.append((score(x + step) - score(x - step)) / (2 * h))
        numerical = torch.stack(slopes).abs().amax(0)
        torch.testing.assert_close(maps[:, row, column].detach(), numerical, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_without_relu_every_rule_is_the_gradient(rule: Rule) -> None:
    network = small(act=nn.Tanh(), pool=False)
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(signal(network, x, rule=rule)[0], signal(network, x)[0])
    assert not torch.equal(signal(small(), x, rule=rule)[0], signal(small(), x)[0])


class Rectified(nn.Module):
    """One linear map, a ReLU in one of its forms, and another linear map."""

    def __init__(self, form: Any, above: float = float("inf")) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.after, self.form, self.above = nn.Linear(12, 30), nn.Linear(30, 4), form, above

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.form(self.before(x.flatten(1))))


FORMS = {
    "module": nn.ReLU(), "in place": nn.ReLU(inplace=True), "function": functional.relu, "torch": torch.relu,
    "method": lambda x: x.relu(), "method in place": lambda x: x.relu_(), "relu6": nn.ReLU6(),
    "hardtanh": lambda x: functional.hardtanh(x, 0.0, 6.0),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_rules_at_a_relu(form: str) -> None:
    network, x = Rectified(FORMS[form]), torch.randn(5, 3, 2, 2)
    inner = network.before(x.flatten(1))
    chosen = network(x).argmax(1)
    arriving = network.after.weight[chosen]
    expected = {
        "plain": arriving * (inner > 0), "deconvnet": arriving.clamp(min=0),
        "guided": arriving.clamp(min=0) * (inner > 0),
    }  # fmt: skip
    for rule, back in expected.items():
        found, seen = signal(network, x, rule=rule)  # type: ignore[arg-type]
        torch.testing.assert_close(found, (back @ network.before.weight).view_as(x))
        torch.testing.assert_close(seen.output, network(x))


def test_the_signal_goes_to_the_switches() -> None:
    """Unpooling puts values only where the maxima were."""
    network = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))
    x = torch.randn(4, 1, 8, 8)
    back, _ = signal(network, x, rule="deconvnet")
    _, switches = functional.max_pool2d(x, 2, return_indices=True)
    at = torch.zeros(4, 64).scatter_(1, switches.flatten(1), 1.0).view_as(x)
    assert torch.equal(back != 0, at == 1)


def test_a_class_and_a_unit_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one of them"):
        inspect(case(layer="second"), ["guided"], out=tmp_path, settings={"guided": {"target": 1}})


# --- receptive fields --------------------------------------------------------------------------------------


def spread(names: list[str], count: int = 12) -> list[str]:
    step = max(1, len(names) // count)
    return names[::-1][::step]


@pytest.mark.parametrize(("make", "name"), NETWORKS)
def test_the_closed_form_is_the_extent_of_the_gradient(make: Any, name: str) -> None:
    """At the border an inner map may end before the image does: there the extent may fall short."""
    network, shape = make(name)
    closed = fields(network, shape)
    with torch.no_grad():
        seen = look(network, torch.randn(1, *shape))
    maps = {
        n: v for n, v in {**seen.values, **dict([seen.last] if seen.last else [])}.items() if v.dim() == 4
    }
    known = [n for n, v in maps.items() if is_map(v, seen.ratio) and n in closed and closed[n].dims == (2, 3)]
    assert known or name == "gan"
    if name.removeprefix("space-") not in OPEN:
        assert len(known) > 0.6 * sum(is_map(v, seen.ratio) for v in maps.values())
    measured = extents(network, torch.randn(1, *shape), spread(known))
    for layer, extent in measured.items():
        middle = (maps[layer].shape[2] // 2, maps[layer].shape[3] // 2)
        box = closed[layer].box(*middle, size=shape[1:], whole=True)
        assert extent is not None, layer
        assert box is not None, layer
        strides = [side.stride for side in closed[layer].sides or ()] * 2
        ends = [
            (0, -1),
            (0, -1),
            (shape[1], 1),
            (shape[2], 1),
        ]  # top, left, bottom, right, and which way is out
        for found, expected, (end, out), stride in zip(extent, box, ends, strides, strict=True):
            short = (expected - found) * out
            assert short == 0 or (expected == end and 0 < short < stride), (layer, extent, box)


@pytest.mark.parametrize(("family", "arguments", "published"), PUBLISHED_FIELDS)
def test_published_fields(family: str, arguments: dict[str, Any], published: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = hand_designed.family(family)(**arguments)
    shape = (3, 299, 299) if family == "inception_v3" else (3, 224, 224)
    found = [each for each in fields(network, shape).values() if each.sides and each.dims == (2, 3)]
    assert (found[-1].sides[0].size, found[-1].sides[0].stride) == published


# --- landscapes, activations, filters ----------------------------------------------------------------------


def test_directions_have_the_filters_norms() -> None:
    network = small()
    drawn = direction(network, seed=3)
    for name, parameter in network.named_parameters():
        if parameter.dim() < 2:
            assert not drawn[name].any()
        else:
            lengths = (each.flatten(1).norm(dim=1) for each in (drawn[name], parameter.detach()))
            torch.testing.assert_close(*lengths)
    assert all(torch.equal(drawn[name], each) for name, each in direction(network, seed=3).items())


def test_the_middle_of_the_landscape_is_the_loss() -> None:
    at = case()
    before = {name: value.clone() for name, value in at.network.state_dict().items()}
    found: Finding = landscape(at, points=3, examples=40)
    x, y = next(at.batches(at.data.train, batch=40).epoch(0))
    loss = functional.cross_entropy(at.network(x), y).item()
    assert found.values["loss"][1][1] == pytest.approx(loss, abs=1e-6)
    assert found.values["middle"] == found.values["loss"][1][1]
    assert all(torch.equal(before[name], value) for name, value in at.network.state_dict().items())
    along = (direction(at.network, seed=0), direction(at.network, seed=1))
    moved = loss_at(at.network, x, y, along=along, at=(0.5, -0.5))
    with torch.no_grad():
        for name, parameter in at.network.named_parameters():
            parameter += 0.5 * along[0][name] - 0.5 * along[1][name]
    assert moved == pytest.approx(functional.cross_entropy(at.network(x), y).item(), abs=1e-6)


def test_what_a_unit_does_not_see_does_not_matter() -> None:
    """Outside of the box the image may be anything."""
    at = case()
    found, layer = peaks(at, at.data.test, "second")
    field, images = fields(at.network, (3, 12, 12))[layer], at.batches(at.data.test)
    x = torch.cat([each for each, _ in images.epoch(0)])
    with torch.no_grad():
        value = look(at.network, x).values[layer]
    torch.testing.assert_close(found.values, value.flatten(2).amax(2))
    for unit in range(3):
        best = int(found.values[:, unit].argmax())
        row, column = int(found.rows[best, unit]), int(found.columns[best, unit])
        box = field.box(row, column, size=(12, 12))
        other = torch.randn_like(x[best : best + 1])
        inside = (..., slice(box.top, box.bottom), slice(box.left, box.right))
        other[inside] = x[best : best + 1][inside]
        with torch.no_grad():
            again = look(at.network, other).values[layer][0, unit, row, column]
        torch.testing.assert_close(again, found.values[best, unit])


def test_images_are_taken_in_turn_of_each_class() -> None:
    part = data().test
    assert examples(part, 6).labels.tolist() == [0, 1, 2, 3, 0, 1]
    skewed = part.take(np.argsort(part.labels, kind="stable"))
    assert examples(skewed, 5).labels.tolist() == [0, 1, 2, 3, 0]


# --- the command -------------------------------------------------------------------------------------------


def test_the_command(nas: Command) -> None:
    tiny = sets(["data.limit=60", "train.epochs=1"])
    assert nas("train", "resnet8", *tiny, "--run", "run", "--device", "cpu", "--quiet").status == 0
    shown = nas("inspect", "run", "--kind", "cam,receptive_field", "--images", "3")
    assert shown.status == 0, shown.err
    paths = [Path(line) for line in shown.out.splitlines()]
    assert [path.name for path in paths] == ["cam.png", "receptive_field.png", "receptive_field.md"]
    assert all(path.parent == Path("run/inspection") and path.exists() for path in paths)
    assert "not trained" not in shown.err
    found = nas("inspect", "run", "--kind", "guided", "--layer", "blocks.1", "--json").document
    assert set(found) == {"folder", "files", "layers", "trained", "values"}
    assert found["files"] == {"guided": ["run/inspection/guided-blocks.1.png"]}
    assert found["layers"] == {"guided": "blocks.1"}
    assert found["trained"] is True
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator("run/tensorboard/inspection")
    board.Reload()
    tags = ["inspection/cam", "inspection/guided-blocks.1", "inspection/receptive_field"]
    assert sorted(board.Tags()["images"]) == tags


def test_the_command_without_a_run(nas: Command) -> None:
    shown = nas("inspect", "nasbench201:best", "--set", "filters.count=4", "--kind", "filters")
    assert shown.status == 0, shown.err
    assert shown.out == "inspection-nasbench201-best/filters.png\n"
    assert "not trained" in shown.err
    assert nas("inspect", "resnet8", "--out", "there").out.startswith("there/receptive_field.png")
    with_data = nas("inspect", "resnet8", "--data", "digits", "--kind", "saliency", "--images", "2", "--json")
    assert len(with_data.document["values"]["saliency"]["images"]) == 2
    assert with_data.document["trained"] is False
    for wrong, words in (
        (("--kind", "cam"), "--data"),
        (("--kind", "cam,gradcam", "--layer", "blocks.1", "--data", "digits"), "--layer goes with"),
        (("--set", "landscape.points=5", "--kind", "filters"), "only the section filters"),
    ):
        refused = nas("inspect", "resnet8", *wrong)
        assert refused.status == 2
        assert words in refused.err, refused.err
        assert refused.err.count("\n") == 1
