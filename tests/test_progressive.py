"""PC-DARTS, DrNAS, P-DARTS, DARTS-PT: what each paper says is special about it."""

from __future__ import annotations

import itertools
import math
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.data import Split
from nas.data.batches import Examples
from nas.graph import Hole
from nas.search_space import SPACES, SearchSpace, space
from nas.strategies import DartsPT, DrNAS, PCDarts, PDarts, Proxyless, Task
from nas.strategies.collapse import is_skip
from nas.strategies.differentiable import Differentiable
from nas.supernet.mixture import Weights
from nas.supernet.partial import Partial

KINDS = [PCDarts, DrNAS, PDarts, Proxyless, DartsPT]


def task(name: str, epochs: int = 6, **scale: object) -> Task:
    """A search on 8 random images of two classes."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, 8, 8), dtype=torch.uint8, generator=drawn).numpy()
    part = Split(images=images, labels=torch.randint(2, (8,), generator=drawn).numpy())
    made = space(name, **{**SPACES.facts(name)["small"], "classes": 2, **scale}, input=(3, 8, 8))
    return Task(made, epochs=epochs, examples=Examples(part, part, (0.5,) * 3, (0.5,) * 3))


def prepared(strategy: Differentiable, on: Task) -> Any:
    """A strategy before its first epoch, in float64."""
    assert on.epochs is not None
    strategy.horizon = on.epochs
    strategy.prepare(on)
    strategy.supernet.double()
    for name, alpha in strategy.alphas.items():
        strategy.alphas[name] = torch.nn.Parameter(alpha.double())
    return strategy


def batch(strategy: Differentiable) -> tuple[Tensor, Tensor]:
    x, y = next(iter(strategy.valid_batches.epoch(0)))
    return x.double(), y


def test_networks_of_options_that_were_given_up_are_not_drawn() -> None:
    """The weights of the options that a stage of P-DARTS gave up are those of its start."""
    strategy = prepared(PDarts(batch=4), task("nasbench201"))
    strategy.begin_epoch(5)
    assert strategy.active is not None
    left = {name: table.tolist() for name, table in strategy.active.items()}
    seen = set()
    for seed in range(30):
        drawn = strategy.random(Random(seed))
        seen.add(drawn.literal)
        for decision in strategy.task.space.decisions:
            for row, option in drawn.choices[decision.name]:
                assert left[decision.name][row][decision.options.index(option)]
    assert len(seen) > 10


@pytest.mark.parametrize("kind", [PCDarts, DrNAS, PDarts])
def test_a_warm_up_leaves_the_alphas_alone(kind: type[Differentiable]) -> None:
    strategy, on = kind(batch=8, guard="off", warmup=0.5), task("nasbench201", 12)
    moved, before = [], None
    for _ in strategy.reports(on):
        now = torch.cat([alpha.detach().flatten() for alpha in strategy.alphas.values()])
        moved.append(before is not None and not torch.equal(now, before))
        before = now.clone()
    half, quarter = [False] * 6 + [True] * 6, [False] * 3 + [True] * 3
    third = [False, False, True, True, True, False, True, True, True, False, True, True]  # anew: 4 and 8
    assert moved == {PCDarts: half, DrNAS: quarter + quarter, PDarts: third}[kind]


# --- PC-DARTS ----------------------------------------------------------------------------------------------


def test_edges_share_one_softmax() -> None:
    """Xu et al., equation 3: all edges into a node weigh one together; layers of a chain do not compete."""
    for name, alone in (("nasbench201", False), ("darts", False), ("nasnet", False), ("chain", True)):
        strategy = prepared(PCDarts(batch=4), task(name))
        for d in strategy.task.space.decisions:
            with torch.no_grad():
                strategy.alphas[d.name].normal_()
            assert strategy.mixing()[d.name].sum().item() == pytest.approx(d.rows if alone else 1.0)


def test_edges_decide_which_inputs_are_kept() -> None:
    strategy = prepared(PCDarts(batch=4), task("darts"))
    with torch.no_grad():
        strategy.alphas["normal.2"][0, 3] += 0.5  # a strong operation on an edge that loses
        strategy.alphas["normal.2"][1, -1] += 1
        strategy.alphas["normal.2"][3, -1] += 2
    assert [row for row, _ in strategy.best().choices["normal.2"]] == [1, 3]


def test_a_quarter_of_the_channels_is_searched() -> None:
    strategy = prepared(PCDarts(batch=4), task("nasbench201"))
    convolutions = [
        tuple(p.shape) for name, p in strategy.supernet.named_parameters() if "nor_conv_3x3" in name
    ]
    assert sorted(set(convolutions)) == [(1, 1, 3, 3), (2, 2, 3, 3), (4, 4, 3, 3)]  # of 4, 8, 16 channels


@pytest.mark.parametrize("stride", [1, 2])
def test_the_other_channels_pass_by_with_the_weight_of_the_edge(stride: int) -> None:
    """Xu et al., equation 2, and section 3.2: pooled where the edge halves, then shuffled among the parts."""
    x, (searched,) = torch.randn(2, 8, 5, 5, dtype=torch.float64), (2,)
    table = torch.tensor([[0.2, 0.3, 0.1], [0.15, 0.05, 0.2]], dtype=torch.float64)
    mixture: Any = lambda part: 7 * part[:, :, ::stride, ::stride]  # noqa: E731
    edge = Partial(mixture, Hole("edges", 1), 4, stride)
    found = edge(x, weights=Weights({"edges": table}))
    rest = 0.4 * x[:, searched:]
    if stride == 2:
        padded = torch.nn.functional.pad(rest, (0, 1, 0, 1), value=-math.inf)
        rest = torch.stack([padded[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
    together = torch.cat([7 * x[:, :searched, ::stride, ::stride], rest], 1)
    assert torch.allclose(found, together[:, [0, 2, 4, 6, 1, 3, 5, 7]])


# --- DrNAS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasbench201", "enas_micro"])
def test_draws_and_their_derivatives_have_the_mean_of_the_dirichlet_distribution(name: str) -> None:
    """Chen et al. 2021: the pathwise derivative is that of the expectation, without bias."""
    strategy = prepared(DrNAS(batch=4), task(name))
    d = strategy.task.space.decisions[-1]
    torch.manual_seed(0)
    with torch.no_grad():
        strategy.alphas[d.name].normal_()
    alpha, worth = strategy.alphas[d.name], torch.randn(d.rows, len(d.options), dtype=torch.float64)
    mean = strategy.mixing()[d.name]
    (exact,) = torch.autograd.grad((mean * worth).sum(), alpha)
    values, gradients = [], []
    strategy.task = Task(SearchSpaceOfOne(strategy.task.space, d))  # type: ignore[arg-type]
    for _ in range(2000):
        table = strategy.drawn(detached=False).tables[d.name]
        values.append(table.detach())
        gradients.append(torch.autograd.grad((table * worth).sum(), alpha)[0])
    for found, wanted in ((values, mean), (gradients, exact)):
        sample = torch.stack(found)
        error = sample.std(0) / math.sqrt(len(found))
        assert ((sample.mean(0) - wanted).abs() <= 4.5 * error + 1e-9).all()


class SearchSpaceOfOne:
    """One decision of a space: what is drawn is drawn for it alone."""

    def __init__(self, whole: SearchSpace, decision: Any) -> None:
        self.decisions = (decision,)
        self.recipe = whole.recipe


@pytest.mark.parametrize("regulariser", ["distance", "kl"])
def test_the_regulariser_leads_to_the_uniform_distribution(regulariser: str) -> None:
    strategy = prepared(DrNAS(batch=4, regulariser=regulariser), task("nasbench201"))
    alphas = list(strategy.alphas.values())
    with torch.no_grad():
        for alpha in alphas:
            alpha.normal_()
    optimizer = torch.optim.Adam(alphas, 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        strategy.penalty().backward()
        optimizer.step()
    assert all(alpha.abs().max() < 1e-2 for alpha in alphas)
    assert strategy.penalty().item() == pytest.approx(0, abs=1e-5)


def test_the_weaker_half_is_given_up_at_half_time() -> None:
    strategy, on = DrNAS(batch=4, guard="off"), task("darts", 4)
    strategy.horizon = 4
    strategy.prepare(on)
    with torch.no_grad():
        for alpha in strategy.alphas.values():
            alpha.copy_(torch.randn_like(alpha))
            alpha[:, 0] = 3.0  # `none`, which no value may have
    before = strategy.mixing(detached=True)
    strategy.begin_epoch(2)
    after = strategy.mixing(detached=True)
    for d in on.space.decisions:
        left = after[d.name] > 0
        assert left.sum(1).tolist() == [4] * d.rows
        assert torch.equal(left, strategy.active[d.name])
        weakest_left = before[d.name].masked_fill(~left, math.inf).amin(1)
        assert (weakest_left >= before[d.name].masked_fill(left, -math.inf).amax(1)).all()
    gone = [
        parameter
        for node in strategy.supernet.graph.nodes
        if isinstance(node.op, Hole)
        for i, option in enumerate(on.space.decision(node.op.decision).options)
        if not strategy.active[node.op.decision][node.op.row, i]
        for key, module in strategy.supernet.nodes[node.name].named_children()
        if key == option
        for parameter in module.parameters()
    ]
    kept = [parameter.clone() for parameter in gone]
    strategy.train_epoch(2)
    assert gone
    assert all(torch.equal(*pair) for pair in zip(gone, kept, strict=True))


# --- P-DARTS -----------------------------------------------------------------------------------------------


def test_stages_are_deeper_and_have_fewer_options() -> None:
    """Chen et al. 2019, section 3.2: 5, 11, 17 cells with 8, 5, 3 options, each among those before."""
    strategy, on = PDarts(batch=4), task("darts", 75, cells=8, channels=1)
    strategy.horizon = 75
    strategy.prepare(on)
    cells, left, rates = [], [], []
    for number in range(75):
        strategy.begin_epoch(number)
        rates.append(strategy.dropped)
        if number % 25 == 0:
            cells.append(strategy.supernet.space.scale["cells"])
            with torch.no_grad():
                left.append(strategy.mixing()["normal.3"] > 0)
                strategy.alphas["normal.3"].normal_()
    assert cells == [5, 11, 17]
    assert [table.sum(1).tolist() for table in left] == [[8] * 5, [5] * 5, [3] * 5]
    assert not (left[1] & ~left[0]).any()
    assert not (left[2] & ~left[1]).any()
    assert (rates[0], rates[25], rates[50]) == (0.0, 0.4, 0.7)
    assert all(a > b for stage in (1, 2) for a, b in itertools.pairwise(rates[25 * stage : 25 * stage + 25]))


def test_skip_connections_are_dropped_out_in_training_alone() -> None:
    strategy = prepared(PDarts(batch=4), task("nasbench201"))
    seen: dict[str, Tensor] = {}
    for name, module in strategy.supernet.named_modules():
        if name.endswith(("skip_connect", "nor_conv_3x3", "avg_pool_3x3")):
            module.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, o))
    strategy.dropped = 0.5
    x, _ = batch(strategy)
    for training in (True, False):
        strategy.supernet.train(training)
        strategy.supernet(x, *strategy.drawn(detached=True))
        for name, output in seen.items():
            zeros = (output == 0).double().mean().item()
            assert (0.3 < zeros < 0.7) == (training and "skip" in name) or "avg_pool" in name, name


@pytest.mark.parametrize(("name", "most"), [("darts", {"normal": 2, "reduce": 2}), ("nasbench201", {"": 2})])
def test_at_most_two_skip_connections_in_a_kind_of_cell(name: str, most: dict[str, int]) -> None:
    strategy = prepared(PDarts(batch=4), task(name))
    with torch.no_grad():
        for d in strategy.task.space.decisions:
            strategy.alphas[d.name].normal_()
            strategy.alphas[d.name][:, d.options.index("skip_connect")] += 5
    strongest = sorted(
        (strategy.mixing()[d.name][:, d.options.index("skip_connect")].max().item(), d.name)
        for d in strategy.task.space.decisions
    )[-1][1]
    found = strategy.best()
    counted = dict.fromkeys(most, 0)
    for decision, value in found.choices.items():
        for _, option in value:
            counted[decision.rpartition(".")[0]] += is_skip(strategy.task.space, option)
    assert counted == most
    assert "skip_connect" in str(found.choices[strongest])


# --- DARTS-PT ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["darts", "nasbench201", pytest.param("enas_micro", marks=pytest.mark.slow)])
def test_what_is_missed_most_is_kept_whatever_the_alphas_say(name: str) -> None:
    """Wang et al. 2021: an accuracy that rests on one secret architecture is found, against the alphas."""
    strategy = prepared(DartsPT(batch=4), task(name, 1000))
    made = strategy.task.space
    secret = made.sample(Random(3))
    wanted = {d.name: torch.tensor(d.mask(secret.choices[d.name])) > 0 for d in made.decisions}
    with torch.no_grad():
        for key, alpha in strategy.alphas.items():
            alpha.copy_(torch.where(wanted[key], -2.0, 1.0))

    def checked(chosen: Any, norm: object = None) -> dict[str, float]:
        present = sum((chosen.active[key] & wanted[key]).sum().item() for key in wanted)
        return {"accuracy": present / 100, "loss": 0.0}

    strategy.checked = checked
    for number in range(1000):
        strategy.begin_epoch(number)
    tables = strategy.mixing(detached=True)
    for d in made.decisions:
        assert torch.equal(tables[d.name].float(), wanted[d.name].float())
    assert strategy.best() == secret


def test_a_search_ends_on_the_path_that_it_selected() -> None:
    strategy, on = DartsPT(batch=4, tune=1), task("nasbench201", 12)
    reports = list(strategy.reports(on))
    best = reports[-1].architecture
    assert best is not None
    for d in on.space.decisions:
        assert reports[-1].tables[d.name] == d.mask(best.choices[d.name])  # type: ignore[index]
    decided = [
        sum(max(row) == 1.0 for table in report.tables.values() for row in table)  # type: ignore[union-attr]
        for report in reports
    ]
    assert decided == [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]
    rates = [report.metrics["lr"] for report in reports]
    assert rates[6] == pytest.approx(0.1 * rates[0])
