"""Laws of the zero-cost proxies, of the evaluator and of the strategy that use them."""

from __future__ import annotations

import csv
import gzip
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_SEARCH, Command, over, sets
from data_helpers import tables, unpacked
from scipy.stats import spearmanr
from torch import Tensor, nn

from nas import hand_designed
from nas.data import load
from nas.data.batches import Examples
from nas.data.dataset import Split
from nas.evaluators import PROXIES, ZeroCost
from nas.evaluators.proxies.batch import drawn, noise
from nas.execution import Trial
from nas.network import Network
from nas.recipe import Recipe
from nas.search_space import SPACES, Architecture, SearchSpace, space
from nas.seeding import randomness
from nas.strategies import STRATEGIES, Task

CLASSES = 3


class Tiny(nn.Module):
    """Convolution, batch norm, the same convolution again by a functional ReLU in place, and a classifier."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3) if norm else nn.Identity()
        self.act = nn.Tanh()
        self.head = nn.Linear(3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        x = nn.functional.relu(self.conv(x), inplace=True)
        found: Tensor = self.head(x.mean((2, 3)))
        return found


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    with randomness("batch"):
        return torch.randn(6, 3, 5, 5), torch.tensor([0, 1, 2, 0, 1, 2])


def tiny(*, norm: bool = True, seed: int = 0) -> Tiny:
    with randomness(seed):
        return Tiny(norm=norm)


# --- laws of all proxies ---


@pytest.mark.parametrize("name", PROXIES)
def test_nothing_is_changed_and_equal_seeds_give_equal_scores(
    name: str, batch: tuple[Tensor, Tensor]
) -> None:
    network = tiny().train()
    network(batch[0]).sum().backward()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]
    images, state = batch[0].clone(), torch.get_rng_state()
    scores = [PROXIES[name](network, *batch, seed=seed) for seed in (0, 0, 1)]
    assert scores[0] == scores[1]
    assert scores[0] == scores[2] or name == "zen"
    assert network.training
    assert network.norm.training
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, batch[0])
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(network.parameters(), gradients, strict=True))
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    "family",
    [
        "lenet5",
        "alexnet",
        "resnet_cifar",
        "densenet_cifar",
        "mobilenet_v3",
        "convnext",
        "swin",
        "vit",
        "regnety",
    ],
)
def test_a_member_of_every_kind_of_family_has_all_scores(family: str) -> None:
    function: Any = hand_designed.family(family)
    with randomness(0):
        network = function(**function.small)
        images = torch.randn(6, *function.small["input"])
    classes = network.eval()(images[:2]).shape[-1]
    labels = torch.arange(6) % min(classes, 3)
    for name, proxy in PROXIES.items():
        assert math.isfinite(proxy(network, images, labels)), name


@pytest.mark.parametrize("name", over(sorted(SPACES)))
def test_a_member_of_every_space_has_all_scores(name: str) -> None:
    made = space(name, **{**SPACES.facts(name).get("small", {}), "input": (3, 32, 32), "classes": 4})
    architecture = made.sample(__import__("random").Random(1))
    with randomness(1):
        network = Network(made.fill(architecture))
    images, labels = noise((3, 32, 32), classes=4, batch=8)
    for proxy in PROXIES.values():
        assert not math.isnan(proxy(network, images, labels))


@pytest.mark.parametrize("name", PROXIES)
def test_a_network_that_its_images_do_not_reach_has_no_score_or_a_smaller_one(name: str) -> None:
    made = space("nasbench201", channels=4, cells=1)
    images, labels = noise((3, 32, 32), classes=10, batch=8)
    scores = []
    for literal in ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|", "all-3x3"):
        with randomness(0):
            network = Network(made.fill(made.parse(literal)))
        scores.append(PROXIES[name](network, images, labels))
    # Those of gradients and sizes count the reductions between the cells, which are reached.
    assert scores[0] == -math.inf or abs(scores[0]) < abs(scores[1])


# --- each against its definition ---


def functional(network: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    """The network in double precision as a function of its parameters."""
    return lambda values, x: torch.func.functional_call(network, values, (x,))


def in_double(network: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    network.double().train()
    return {name: p.detach() for name, p in network.named_parameters()}, images.double()


def is_layer_weight(name: str) -> bool:
    return name in ("conv.weight", "head.weight")


@pytest.mark.parametrize("norm", [True, False])
def test_snip_is_the_derivative_by_masks(norm: bool, batch: tuple[Tensor, Tensor]) -> None:
    """A convolution that is used twice has one mask."""
    network = tiny(norm=norm)
    found = {name: PROXIES[name](network, *batch) for name in ("snip", "plain")}
    values, images = in_double(network, batch[0])
    masks = {name: torch.ones_like(value) for name, value in values.items() if is_layer_weight(name)}

    def loss(masks: dict[str, Tensor]) -> Tensor:
        masked = {name: value * masks.get(name, 1) for name, value in values.items()}
        return nn.functional.cross_entropy(functional(network)(masked, images), batch[1])

    for mask in masks.values():
        mask.requires_grad_(True)
    derivative = dict(zip(masks, torch.autograd.grad(loss(masks), list(masks.values())), strict=True))
    assert found["snip"] == pytest.approx(sum(d.abs().sum().item() for d in derivative.values()), rel=1e-3)
    total = sum(d.sum().item() for d in derivative.values())
    assert found["plain"] == pytest.approx(total, rel=1e-3, abs=1e-5)


def test_grad_norm_and_grasp_follow_from_gradient_and_hessian(batch: tuple[Tensor, Tensor]) -> None:
    network = tiny()
    found = {name: PROXIES[name](network, *batch) for name in ("grad_norm", "grasp")}
    values, images = in_double(network, batch[0])
    own = {name: value for name, value in values.items() if is_layer_weight(name)}
    sizes = [value.numel() for value in own.values()]
    flat = torch.cat([value.flatten() for value in own.values()])

    def loss(flat: Tensor) -> Tensor:
        parts = dict(zip(own, flat.split(sizes), strict=True))
        given = {name: parts[name].view_as(value) if name in own else value for name, value in values.items()}
        return nn.functional.cross_entropy(functional(network)(given, images), batch[1])

    (gradient,) = torch.autograd.grad(loss(flat.requires_grad_(True)), flat)
    hessian = torch.autograd.functional.hessian(loss, flat)
    assert found["grad_norm"] == pytest.approx(sum(g.norm().item() for g in gradient.split(sizes)), rel=1e-3)
    assert found["grasp"] == pytest.approx(-(flat @ hessian @ gradient).item(), rel=1e-3)


def test_fisher_is_half_the_squared_derivative_by_masks_of_channels(batch: tuple[Tensor, Tensor]) -> None:
    """Each image with a mask of its own; a convolution's channel has 27 weights, a logit 3."""

    class Masked(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.norm(self.conv(x) * self.masks[0]))
            x = nn.functional.relu(self.conv(x) * self.masks[1])
            found: Tensor = self.head(x.mean((2, 3))) * self.masks[2]
            return found

    network = tiny()
    found = PROXIES["fisher"](network, *batch)
    masked = Masked().double()
    masked.load_state_dict(network.state_dict())
    shapes = [(6, 3, 1, 1), (6, 3, 1, 1), (6, CLASSES)]
    masked.masks = [torch.ones(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    loss = nn.functional.cross_entropy(masked(batch[0].double()), batch[1])
    derivatives = torch.autograd.grad(loss, masked.masks)
    expected = sum(
        weights * (d.square().mean(0) / 2).sum().item()
        for weights, d in zip((27, 27, 3), derivatives, strict=True)
    )
    assert found == pytest.approx(expected, rel=1e-3)


def test_what_batch_norm_follows_adds_nothing_to_plain(batch: tuple[Tensor, Tensor]) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-12), nn.ReLU(), nn.Flatten(), nn.Linear(36, CLASSES)
    )
    whole = PROXIES["plain"](network, *batch)
    logits = network.train()(batch[0])
    nn.functional.cross_entropy(logits, batch[1]).backward()
    head: Any = network[4]
    assert whole == pytest.approx((head.weight * head.weight.grad).sum().item(), rel=1e-3, abs=1e-5)


def test_synflow_of_linear_layers_is_the_sum_over_paths() -> None:
    """Each layer carries the whole flow: the sum over paths of the products of absolute weights."""
    with randomness(0):
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 5), nn.LayerNorm(5), nn.Hardswish(), nn.Linear(5, 4), nn.Tanh(),
            nn.Linear(4, 2),
        )  # fmt: skip
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)
    images, labels = noise((3, 2, 2), classes=2, batch=4)
    product = torch.ones(12, dtype=torch.float64)
    for layer in network:
        if isinstance(layer, nn.Linear):
            product = layer.weight.detach().double().abs() @ product
    expected = math.log(3 * product.sum().item())
    assert PROXIES["synflow"](network, images, labels) == pytest.approx(expected)
    assert PROXIES["synflow"](network, 7 - images[:2], labels[:2]) == pytest.approx(expected)


def test_synflow_of_huge_flows_is_finite() -> None:
    """A factor on every layer's weights and none on the biases shifts the logarithm."""
    images, labels = noise((2, 1, 1), classes=2, batch=2)
    network = nn.Sequential(nn.Flatten(), *(nn.Linear(2, 2, bias=False) for _ in range(12)))
    before = PROXIES["synflow"](network, images, labels)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1e30)
    after = PROXIES["synflow"](network, images, labels)
    assert after == pytest.approx(before + 12 * math.log(1e30), rel=1e-6)


def test_naswot_counts_the_units_on_which_images_agree() -> None:
    """Of 4 units two images agree on 1: the determinant is 4 * 4 - 1."""
    images = torch.tensor([[1.0, 1, 1, 1], [1, -1, -1, -1]]).view(2, 1, 2, 2)
    labels = torch.tensor([0, 1])

    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.clone().relu_().flatten(1)

    for network in (
        nn.Sequential(nn.ReLU(inplace=True), nn.Flatten()),
        Functional(),
        nn.Sequential(nn.GELU()),
    ):
        assert PROXIES["naswot"](network, images, labels) == pytest.approx(math.log(15))
    twice = (
        nn.ReLU()
    )  # what is active stays so: 8 units, agreement on 1 + 4 ... of the second use all but one sign
    assert PROXIES["naswot"](nn.Sequential(twice, twice), images, labels) == pytest.approx(math.log(64 - 4))


@pytest.mark.parametrize("name", ["naswot", "jacov"])
def test_equal_images_cannot_be_told_apart(name: str, batch: tuple[Tensor, Tensor]) -> None:
    same = batch[0][:1].expand(6, -1, -1, -1)
    network = tiny(norm=False)
    degenerate = PROXIES[name](network, same, batch[1])
    assert degenerate < PROXIES[name](network, *batch) - 100 or degenerate == -math.inf


def test_jacov_of_uncorrelated_gradients_is_the_largest() -> None:
    """Eigenvalues of 1 are the best there are: minus the number of images (and k)."""
    weights = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))[0]

    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            centred = weights[1:5] - weights[1:5].mean(1, keepdim=True)
            gradients = torch.linalg.qr(centred.T)[0].T  # orthogonal, each without a mean
            return (x.flatten(1) * gradients).sum(1, keepdim=True)

    images, labels = torch.randn(4, 2, 2, 2), torch.tensor([0, 0, 1, 1])
    assert PROXIES["jacov"](Own(), images, labels) == pytest.approx(-4, abs=1e-3)
    # Of each class two images that correlate with themselves alone: log(k) twice, and log(1 + k) twice.
    assert PROXIES["epe_nas"](Own(), images, labels) == pytest.approx(-4 * math.log(1e-5), rel=0.1)


def test_zen_looks_at_neither_weights_nor_images_and_undoes_batch_norms(batch: tuple[Tensor, Tensor]) -> None:
    one, other = (PROXIES["zen"](tiny(seed=seed), *batch) for seed in (0, 1))
    assert one == other == PROXIES["zen"](tiny(), 5 * batch[0], batch[1])
    larger = torch.randn(6, 3, 16, 16), batch[1]
    plain = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False))
    normed = nn.Sequential(plain[0], nn.BatchNorm2d(8), plain[1], plain[2], nn.BatchNorm2d(8))
    assert PROXIES["zen"](normed, *larger) == pytest.approx(PROXIES["zen"](plain, *larger), abs=0.1)


def test_sizes_are_those_of_the_graph() -> None:
    from nas.counting import cost

    made = space("nasbench201", channels=4, cells=1)
    graph = made.fill(made.parse("best"))
    images, labels = noise((3, 32, 32), classes=10, batch=2)
    found = [PROXIES[name](Network(graph), images, labels) for name in ("params", "macs")]
    assert found == [cost(graph).params, cost(graph).macs]


# --- the evaluator ---


@pytest.fixture
def examples() -> Examples:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    part = Split(images, np.arange(40) % 10)
    return Examples(part, part, (0.5,) * 3, (0.25,) * 3)


def test_the_evaluator_gives_the_same_for_the_same_seed(examples: Examples) -> None:
    made = space("nasbench201", channels=2, cells=1, input=(3, 8, 8))
    evaluate = ZeroCost(made, examples, Recipe(), proxies=("snip", "zen"), batch=8, repeats=2)
    trial = Trial(0, made.parse("best"))
    found = evaluate(trial, seed=3)
    assert set(found) == {"snip", "zen", "params", "macs"}
    assert pickle.loads(pickle.dumps(evaluate))(trial, seed=3) == found
    assert evaluate(trial, seed=4) != found


def test_an_architecture_without_a_score_has_failed(examples: Examples) -> None:
    made = space("nasbench201", channels=2, cells=1, input=(3, 8, 8))
    evaluate = ZeroCost(made, examples, Recipe(), proxies=("naswot",), batch=8)
    with pytest.raises(FloatingPointError, match="naswot is -inf"):
        evaluate(Trial(0, made.parse("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|")), seed=0)


def test_batches_are_drawn_without_repeats_and_from_the_training_part(examples: Examples) -> None:
    images, labels = drawn(examples, batch=64)
    assert images.shape == (40, 3, 8, 8)
    assert sorted(labels.tolist()) == sorted(examples.train.labels.tolist())
    assert not torch.equal(drawn(examples, batch=8, number=1)[0], drawn(examples, batch=8)[0])


def test_a_search_by_a_proxy_measures_it(nas: Command, tmp_path: Path) -> None:
    settings = sets([*TINY_SEARCH, "evaluator=zero_cost", "evaluator.batch=8", "budget=4trials"])
    arguments = ["search", "--data", "digits", "--strategy", "zero_cost", "--objective", "snip", "--json"]
    settings += sets(["strategy.candidates=6", "strategy.proxy=naswot"])
    found = nas(*arguments, *settings, "--run", str(tmp_path / "run"))
    assert found.status == 0, found.err
    assert "snip" in found.document["metrics"]


# --- the strategy ---


def begun(on: SearchSpace, *, replay: bool = True, seed: int = 0, **arguments: Any) -> Any:
    strategy = STRATEGIES["zero_cost"](**arguments)
    strategy.check(on)
    strategy.resume(Task(on, seed, replay=replay), (), None)
    return strategy


def proposals(strategy: Any, number: int) -> list[Architecture]:
    """Its first proposals, each told a result."""
    found = []
    for each in range(len(strategy.told), number):
        trial = strategy.ask(each)
        if trial is None:
            break
        assert strategy.ask(each) == trial
        strategy._asked(trial)
        strategy.tell(strategy.pending.pop(each), {"valid_accuracy": len(trial.architecture.literal) / 1e3})
        found.append(trial.architecture)
    return found


@pytest.mark.parametrize("smallest", [False, True])
def test_proposals_come_in_the_order_of_their_scores(smallest: bool) -> None:
    from nas.counting import cost

    made = space("nasbench201", channels=2, cells=1)
    found = proposals(begun(made, proxy="params", candidates=12, smallest=smallest), 18)
    sizes = [cost(made.fill(each)).params for each in found]
    assert sizes[:12] == sorted(sizes[:12], reverse=not smallest)
    assert sizes[12:] == sorted(sizes[12:], reverse=not smallest)
    assert len({each.digest for each in found}) == 18


def test_known_scores_rank_and_what_has_none_comes_last(tmp_path: Path) -> None:
    made = space("nasbench201", channels=2, cells=1)
    strategy = begun(made, proxy="params", candidates=10)
    literals = [each.literal for each in proposals(strategy, 10)]
    path = tmp_path / "scores.csv"
    rows = [
        f"{literal},{score}" for literal, score in zip(literals[:8], [3, 1, 4, 1.5, 9, 2, 6, 5], strict=True)
    ]
    path.write_text("\n".join(["arch,mine", *rows]) + "\n")
    found = [each.literal for each in proposals(begun(made, scores=path, proxy="mine", candidates=10), 10)]
    assert found[:8] == [literals[i] for i in (4, 6, 7, 2, 0, 5, 3, 1)]
    assert set(found[8:]) == set(literals[8:])


def test_another_strategy_takes_over_having_been_told() -> None:
    made = space("nasbench201", channels=2, cells=1)
    arguments = {"proxy": "params", "candidates": 20, "warm": 6}
    strategy = begun(made, then="regularized_evolution?population=4", **arguments)
    first = proposals(strategy, 6)
    assert first == proposals(begun(made, **arguments), 6)
    assert [trial.architecture for trial, _ in strategy.successor.told] == first
    following = strategy.ask(6).architecture
    near = {each.digest for parent in first for each in made.neighbours(parent)}
    assert following.digest in near


@pytest.mark.parametrize("then", ["asha", "hyperband", "bohb"])
def test_a_strategy_with_rungs_begins_with_the_ranking(then: str) -> None:
    """It decides how long each trial trains, and whom it promotes."""
    made = space("nasbench201", channels=2, cells=1)
    arguments = {"proxy": "params", "candidates": 20}
    trials = []
    strategy = begun(made, then=then, warm=12, **arguments)
    for number in range(30):
        trials.append(strategy.ask(number))
        strategy._asked(trials[-1])
        strategy.tell(strategy.pending.pop(number), {"valid_accuracy": float(number)})
    assert {trial.epochs for trial in trials} == {1, 3, 9}
    new = list(dict.fromkeys(trial.architecture for trial in trials[:12]))
    assert new == proposals(begun(made, **arguments), len(new))


def test_a_space_ends_with_its_last_architecture() -> None:
    made = space("chain", layers=1, channels=2)
    found = proposals(begun(made, proxy="params", candidates=3), 100)
    assert len(found) == len({each.digest for each in found}) < 100


def test_a_wrong_argument_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'synflow'"):
        STRATEGIES["zero_cost"](proxy="sinflow")
    with pytest.raises(ValueError, match="did you mean 'local_search'"):
        STRATEGIES["zero_cost"](then="local_serch")
    with pytest.raises(ValueError, match="trains a supernet"):
        STRATEGIES["zero_cost"](then="darts")


# --- published numbers ---


@pytest.mark.slow
def test_scores_rank_cells_as_the_published_ones_do() -> None:
    """NAS-Bench-Suite-Zero (Krishnakumar et al. 2022), CIFAR-10; its `plain` is noise."""
    with gzip.open(tables() / "nasbench201_zerocost.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))[:: 9445 // 16][:16]
    with gzip.open(tables() / "nasbench201.csv.gz", "rt") as file:
        literals = {row["index"]: row["arch"] for row in csv.DictReader(file)}
    data = load("cifar10", root=unpacked("cifar10"))
    images, labels = drawn(Examples(data.train, data.train, data.mean, data.std), batch=64)
    made = space("nasbench201", channels=16, cells=5, classes=10)
    least = {
        "synflow": 0.95,
        "l2_norm": 0.95,
        "zen": 0.9,
        "nwot": 0.9,
        "jacov": 0.8,
        "snip": 0.8,
        "grad_norm": 0.8,
    }
    found: dict[str, list[float]] = {name: [] for name in least}
    for row in rows:
        with randomness(row["index"]):
            network = Network(made.fill(made.parse(literals[row["index"]])))
        for name, values in found.items():
            values.append(PROXIES["naswot" if name == "nwot" else name](network, images, labels))
    for name, values in found.items():
        published = [float(row[f"cifar10_{name}"]) for row in rows]
        assert spearmanr(values, published).statistic >= least[name], name
