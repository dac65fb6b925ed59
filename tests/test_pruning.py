"""Laws of pruning: a network without channels computes what the whole one computes with them at zero, its
cost falls, single weights stay at zero, and every step can be read again.
"""

from __future__ import annotations

import copy
import inspect as python
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command, sets, slow_if_large
from torch import Tensor, nn
from torch.nn import functional

from nas import hand_designed
from nas.counting import cost
from nas.graph import Builder, Shape
from nas.network import Network
from nas.pruning import PRUNINGS, Plan, Surgery, bundles, read
from nas.pruning.magnitude import weighted
from nas.pruning.steps import recipe
from nas.pruning.structured import families, norms
from nas.search_space import SPACES, space

FAMILIES = list(hand_designed.package().FAMILIES)
TIED = {"bit", "gan"}  # norms over channels, and transposed convolutions, tie all channels
INPUT = (3, 8, 8)


def member(family: str) -> tuple[nn.Module, Shape]:
    """A small member of a family of networks and the shape of its images."""
    build = hand_designed.family(family)
    given = {name: each.default for name, each in python.signature(build).parameters.items()} | build.small
    torch.manual_seed(0)
    return build(**build.small).eval(), tuple(given["input"])


def sampled(name: str) -> tuple[nn.Module, Shape]:
    """A random network of a space."""
    from random import Random

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


def stirred(network: nn.Module) -> nn.Module:
    """With norms that are not the identity, so that channels do not look alike."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0, 0.3, generator=generator)
    return network


# --- whole channels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "name"), NETWORKS)
def test_a_cut_network_computes_what_the_blanked_one_does(make: Any, name: str) -> None:
    network, shape = make(name)
    x = torch.randn(2, *shape)
    stirred(network)
    cut = copy.deepcopy(network)
    if name in TIED:
        with pytest.raises(ValueError, match="--kind magnitude"):
            PRUNINGS["structured"].cut(cut, before=0.0, after=0.5, example=x)
        return
    surgery = PRUNINGS["structured"].cut(cut, before=0.0, after=0.5, example=x)
    before, after = cost(network, input=shape), cost(cut, input=shape)
    assert after.params < before.params
    assert after.macs < before.macs
    blank = copy.deepcopy(network).double()
    surgery.blank(blank)
    with torch.no_grad():
        torch.testing.assert_close(cut.double()(x.double()), blank(x.double()))
    again = copy.deepcopy(network)
    Surgery.from_dict(json.loads(json.dumps(surgery.to_dict()))).operate(again)
    again.load_state_dict(cut.state_dict())


@pytest.mark.parametrize("name", ["resnet_cifar", "mobilenet_v2", "densenet_cifar", "darts_cell_network"])
def test_a_cut_network_can_be_trained(name: str) -> None:
    """Auxiliary classifiers too: they read channels that the output does not."""
    network, shape = member(name)
    x = torch.randn(4, *shape)
    PRUNINGS["structured"].cut(network, before=0.0, after=0.5, example=x)
    network.train()
    loss = sum(each.square().mean() for each in [*getattr(network, "outputs", lambda x: [network(x)])(x)])
    loss.backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_half_the_channels_are_a_quarter_of_the_cost() -> None:
    network, shape = member("resnet_cifar")
    before = cost(network, input=shape)
    PRUNINGS["structured"].cut(network, before=0.0, after=0.5, example=torch.randn(2, *shape))
    after = cost(network, input=shape)
    assert 0.24 < after.params / before.params < 0.27
    assert 0.24 < after.macs / before.macs < 0.28


class Chain(nn.Module):
    """Convolutions one behind the other, then what `tail` makes of 8 channels."""

    def __init__(self, tail: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.second, self.tail = nn.Conv2d(6, 8, 1), tail
        self.classifier = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tail(self.second(functional.relu(self.norm(self.first(x)))))
        return self.classifier(x.mean((2, 3)))


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def tied(network: nn.Module) -> dict[str, int]:
    """Filters of a convolution -> how many of its channels may go."""
    counts: dict[str, int] = {}
    for bundle in bundles(network.eval(), INPUT):
        for name in {name for name, dim, _ in bundle.places if dim == 0 and name.endswith("weight")}:
            counts[name] = counts.get(name, 0) + 1
    return counts


def test_what_a_channel_runs_through() -> None:
    network = Chain(nn.Identity())
    first = {
        ("first.weight", 0),
        ("first.bias", 0),
        ("norm.weight", 0),
        ("norm.bias", 0),
        ("second.weight", 1),
    }
    first |= {("norm.running_mean", 0), ("norm.running_var", 0)}
    second = {("second.weight", 0), ("second.bias", 0), ("classifier.weight", 1)}
    found = families(network.eval(), INPUT)
    assert {frozenset(family) for family in found} == {frozenset(first), frozenset(second)}
    assert sorted(len(members) for members in found.values()) == [6, 8]


def _tokens(m: Any, x: Tensor) -> Tensor:
    return m.l(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8))


def _shifted_tokens(m: Any, x: Tensor) -> Tensor:
    return (
        (x.flatten(2).transpose(1, 2) + torch.ones(8, device=x.device)).transpose(1, 2).unflatten(2, (8, 8))
    )


def _gate(m: Any, x: Tensor) -> Tensor:
    return x * m.g(x.mean((2, 3), keepdim=True)).sigmoid()


def _shuffle(m: Any, x: Tensor) -> Tensor:
    return x.view(-1, 2, 4, 8, 8).transpose(1, 2).reshape(-1, 8, 8, 8)


TAILS: dict[str, tuple[Any, int]] = {  # what follows 8 channels, and how many of them may go
    "identity": (lambda: nn.Identity(), 8),
    "gate": (lambda: Apply(_gate, g=nn.Conv2d(8, 8, 1)), 8),
    "spatial gate": (lambda: Apply(lambda m, x: x * m.g(x).sigmoid(), g=nn.Conv2d(8, 1, 1)), 8),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), 8),
    "two groups": (lambda: nn.Conv2d(8, 8, 1, groups=2), 4),
    "halves": (lambda: Apply(lambda m, x: torch.cat(x.chunk(2, 1), 1)), 0),
    "shuffle": (lambda: Apply(_shuffle), 0),
    "mean over channels": (lambda: Apply(lambda m, x: x - x.mean(1, keepdim=True)), 0),
    "softmax": (lambda: nn.Softmax(dim=1), 0),
    "scale": (lambda: Apply(lambda m, x: x * m.s.weight.view(-1, 1, 1), s=nn.BatchNorm2d(8)), 8),
    "reversed": (lambda: Apply(lambda m, x: x + x.flip(1)), 0),
    "sum with itself": (lambda: Apply(lambda m, x: x + m.c(x), c=nn.Conv2d(8, 8, 1)), 8),
    "constant": (lambda: Apply(lambda m, x: x + torch.ones(8, 1, 1, device=x.device)), 0),
    "constant tokens": (lambda: Apply(_shifted_tokens), 0),
    "border": (lambda: nn.ZeroPad2d(1), 8),
    "tokens": (lambda: Apply(_tokens, l=nn.Linear(8, 8)), 8),
}


@pytest.mark.parametrize("name", TAILS)
def test_what_may_go_behind(name: str) -> None:
    """Sums, gates and depthwise convolutions tie channels; what needs their number or order keeps them."""
    build, free = TAILS[name]
    network = Chain(build())
    assert tied(network).get("second.weight", 0) == free
    assert tied(network)["first.weight"] == 6
    x = torch.randn(2, *INPUT)
    surgery = PRUNINGS["structured"].cut(network, before=0.0, after=0.5, example=x)
    assert network(x).shape == (2, 4)
    assert len(network.first.weight) == 3
    assert len(network.second.weight) == (4 if free else 8)
    assert surgery.cuts["first.weight"][0]


def test_a_sum_ties_two_layers_and_padding_follows() -> None:
    """The first stage's channels go in all stages; those that option A fills with zeros, in the later."""
    network, shape = member("resnet_cifar")
    found = families(network, shape)
    trunk = [members for family, members in found.items() if ("stem.0.weight", 0) in family]
    assert len(trunk) == 1
    assert len(trunk[0]) == len(network.stem[0].weight)
    names = {name for name, dim in trunk[0][0].family if dim == 0 and name.endswith("branch.3.weight")}
    assert len(names) == len(network.blocks)


def test_the_filters_of_least_norm_go() -> None:
    network = Chain(nn.Identity())
    sizes = network.first.weight.detach().abs().sum((1, 2, 3))
    found = {
        ("first.weight", 0) in family: members for family, members in families(network.eval(), INPUT).items()
    }
    torch.testing.assert_close(torch.tensor(norms(network, found[True])), sizes)
    surgery = PRUNINGS["structured"].cut(network, before=0.0, after=1 / 3, example=torch.randn(2, *INPUT))
    assert surgery.cuts["first.weight"][0] == tuple(sorted(sizes.argsort()[:2].tolist()))


def test_a_layer_keeps_its_last_channel() -> None:
    network, x = Chain(nn.Identity()), torch.randn(2, *INPUT)
    PRUNINGS["structured"].cut(network, before=0.0, after=0.99, example=x)
    assert network.first.weight.shape == (1, 3, 3, 3)
    assert network(x).shape == (2, 4)


def test_zeros_of_a_searched_network_are_counted() -> None:
    """Where a space fills an edge with zeros, there are as many as the channels that they meet."""
    b = Builder((3, 8, 8))
    x = b("stem", "conv_bn_3x3", "input", out=8)
    nothing = b("nothing", "none", x, out=8)
    x = b("sum", "sum", b("conv", "nor_conv_3x3", x, out=8), nothing)
    b("classifier", "linear", b("pool", "global_avg_pool", x), out=4)
    network = Network(b.graph(keep_dead=True)).eval()
    x = torch.randn(2, *INPUT)
    PRUNINGS["structured"].cut(network, before=0.0, after=0.5, example=x)
    assert network(x).shape == (2, 4)
    assert sum(p.numel() for p in network.parameters()) < 500


# --- single weights ----------------------------------------------------------------------------------------


def test_the_smallest_weights_of_all_layers_go() -> None:
    network, shape = member("resnet_cifar")
    before = torch.cat([layer.weight.detach().flatten() for layer in weighted(network).values()])
    method, example = PRUNINGS["magnitude"], torch.randn(2, *shape)
    dense = cost(network, input=shape)
    assert method.size(network, shape) == dense
    assert method.cut(network, before=0.0, after=0.75, example=example) is None
    with torch.no_grad():
        for parameter in network.parameters():  # whatever training does to them
            parameter += 0.01
    method.release(network)
    after = torch.cat([layer.weight.detach().flatten() for layer in weighted(network).values()])
    gone = before.abs().argsort(stable=True)[: round(0.75 * len(before))]
    assert not after[gone].any()
    assert int((after == 0).sum()) == len(gone)
    left = method.size(network, shape)
    assert left.params == dense.params - len(gone)
    assert left.macs < dense.macs
    names = set(member("resnet_cifar")[0].state_dict())
    assert set(network.state_dict()) == names


@pytest.mark.parametrize("name", ["densenet_cifar", "swin", "gan", "squeezenet"])
def test_sizes_of_any_network_are_its_costs(name: str) -> None:
    network, shape = member(name)
    found, expected = PRUNINGS["magnitude"].size(network, shape), cost(network, input=shape)
    assert (found.params, found.macs) == (expected.params, expected.macs)


# --- steps -------------------------------------------------------------------------------------------------


def test_steps_remove_equal_parts_of_what_is_left() -> None:
    plan = Plan(amount=0.875, steps=3)
    assert [plan.gone(step) for step in range(4)] == pytest.approx([0, 0.5, 0.75, 0.875])
    for wrong in ({"amount": 0.0}, {"amount": 1.0}, {"steps": 0}, {"epochs": -1}, {"kind": "magnitud"}):
        with pytest.raises(ValueError, match=r"between 0 and 1|or more|did you mean 'magnitude'"):
            Plan(**wrong)


def test_fine_tuning_is_the_training_at_a_tenth_of_the_rate() -> None:
    train = {"lr": 0.1, "warmup": 2.0, "epochs": 30, "batch": 32}
    tuned = recipe(Plan(epochs=4), train, {})
    assert (tuned.lr, tuned.warmup, tuned.epochs, tuned.batch) == (pytest.approx(0.01), 0.0, 4, 32)
    assert recipe(Plan(), train, {"lr": 0.5}).lr == 0.5
    with pytest.raises(ValueError, match="did you mean 'lr'"):
        recipe(Plan(), train, {"lrr": 0.5})


@pytest.fixture
def trained(nas: Command) -> Path:
    tiny = sets(["data.limit=80", "train.epochs=2"])
    assert nas("train", "resnet8", *tiny, "--run", "run", "--device", "cpu", "--quiet").status == 0
    return Path("run")


@pytest.mark.parametrize("kind", PRUNINGS)
def test_the_command(kind: str, nas: Command, trained: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    given = ("--kind", kind, "--steps", 2, "--epochs", 1)
    result = nas("prune", trained, *given, "--json", "--quiet").document
    assert set(result) == {"run", "folder", "kind", "steps"}
    folder = Path(result["folder"])
    assert folder == trained / "prune" / "0"
    names = {
        "prune.yaml",
        "events.jsonl",
        "table.md",
        "curve.png",
        "tensorboard",
        "step-0.pt",
        "step-1.pt",
        "step-2.pt",
    }
    assert {path.name for path in folder.iterdir()} == names
    steps = result["steps"]
    assert [row["step"] for row in steps] == [0, 1, 2]
    assert [row["params"] for row in steps] == sorted((row["params"] for row in steps), reverse=True)
    assert nas("evaluate", trained, "--json").document["accuracy"] == steps[0]["test_accuracy"]
    for row in steps:
        network = read(folder, row["step"])
        found = PRUNINGS[kind].size(network, (1, 8, 8))
        assert (found.params, found.macs) == (row["params"], row["macs"])
    from nas.data import load
    from nas.train import accuracy

    digits = load("digits", root=Path("data"))
    measured = accuracy(read(folder), digits.test, mean=digits.mean, std=digits.std)
    assert measured["accuracy"] == steps[-1]["test_accuracy"]
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    assert len(board.Scalars("prune/test_accuracy")) == 3
    line = nas("prune", trained, *given, "--quiet")
    assert line.status == 0
    assert line.out.startswith("75,002 -> ")
    assert (trained / "prune" / "1").is_dir()
    first, second = ((trained / "prune" / each / "table.md").read_text() for each in "01")
    assert first == second


def test_what_was_done_stays(nas: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.cli.progress import Show

    stages: list[str] = []

    def stage(self: Show, text: str, total: int | None = None, done: int = 0) -> None:
        stages.append(text)
        if len(stages) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Show, "stage", stage)
    ended = nas("prune", trained, "--steps", 3, "--epochs", 1)
    assert ended.status == 130
    folder = trained / "prune" / "0"
    assert len((folder / "events.jsonl").read_text().splitlines()) == 2
    assert (folder / "table.md").read_text().count("\n| ") == 4
    assert sum(p.numel() for p in read(folder).parameters()) < 75_002
    with pytest.raises(ValueError, match="no step 2; it has 0, 1"):
        read(folder, 2)


def test_mistakes(nas: Command, trained: Path) -> None:
    for wrong, words in (
        (("--amount", 1.5), "between 0 and 1"),
        (("--kind", "filters"), "no kind of pruning 'filters'"),
        (("--set", "train.lrr=1"), "did you mean 'lr'"),
        (("--set", "data.limit=1"), "only the section train"),
    ):
        refused = nas("prune", trained, *wrong)
        assert (refused.status, refused.out) == (2, "")
        assert words in refused.err
    assert not (trained / "prune").exists()
    assert "no trained network" not in nas("prune", "nowhere").err
    with pytest.raises(ValueError, match="holds no pruning"):
        read("run")
