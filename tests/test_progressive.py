"""PC-DARTS, DrNAS, P-DARTS, ProxylessNAS, DARTS-PT: what each paper says is special about it."""

from __future__ import annotations

import io
import itertools
import math
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from nas.counting import cost
from nas.data import Split
from nas.data.batches import Examples
from nas.graph import Hole
from nas.search_space import SPACES, SearchSpace, space
from nas.strategies import DartsPT, DrNAS, PCDarts, PDarts, Proxyless, Task
from nas.strategies.collapse import is_skip
from nas.strategies.differentiable import Differentiable
from nas.strategies.expected_cost import expected_cost, probabilities

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


# --- all of them -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("nasbench201", 4),
        *(pytest.param(name, 3, marks=pytest.mark.slow) for name in ("darts", "chain", "enas_macro")),
    ],
)
def test_a_search_that_was_killed_goes_on_to_the_same_bits(
    kind: type[Differentiable], name: str, epochs: int
) -> None:
    strategy, on = kind(batch=4), task(name, epochs)
    saved, reports = [], []
    for report in strategy.reports(on):
        reports.append(report)
        file = io.BytesIO()
        torch.save(strategy.state() | {"epoch": strategy.epoch}, file)
        saved.append(file.getvalue())
    begun = prepared(kind(batch=4), on).alphas
    assert any(
        begun[key].shape != alpha.shape or not torch.equal(begun[key].float(), alpha)
        for key, alpha in strategy.alphas.items()
    )
    after = epochs - 2  # pruned, in another stage, in the midst of selection
    again = kind(batch=4)
    again.resume(on, reports[: after + 1], torch.load(io.BytesIO(saved[after]), weights_only=True))
    rest = list(again.reports(on))
    assert [r.metrics for r in rest] == [r.metrics for r in reports[after + 1 :]]
    assert rest[-1].architecture == reports[-1].architecture
    assert rest[-1].tables == reports[-1].tables
    for key, tensor in again.supernet.state_dict().items():
        assert torch.equal(tensor, strategy.supernet.state_dict()[key]), key


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not DartsPT])
def test_an_epoch_on_darts(kind: type[Differentiable]) -> None:
    strategy, on = kind(batch=8), task("darts", 1)
    before = prepared(kind(batch=8), on).alphas
    (report,) = strategy.reports(on)
    assert report.architecture is not None
    assert on.space.why_not(report.architecture) is None
    assert any(not torch.equal(before[name].float(), alpha) for name, alpha in strategy.alphas.items())


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


# --- ProxylessNAS ------------------------------------------------------------------------------------------


def test_alphas_get_the_gradient_of_the_gates() -> None:
    """Cai et al. 2019, equation 4, among the two options drawn: sum over j of dL/dg_j p_j (1[i=j] - p_i)."""
    strategy = prepared(Proxyless(batch=4), task("nasbench201"))
    torch.manual_seed(1)
    with torch.no_grad():
        for alpha in strategy.alphas.values():
            alpha.normal_()
    strategy.supernet.eval()
    x, y = batch(strategy)
    tables, active = strategy.drawn(detached=False)
    loss = torch.nn.functional.cross_entropy(strategy.supernet(x, tables, active), y)
    found = torch.autograd.grad(loss, list(strategy.alphas.values()), retain_graph=True)
    gates = torch.autograd.grad(loss, list(tables.values()))
    for d, gradient, gate in zip(strategy.task.space.decisions, found, gates, strict=True):
        hard, pair = tables[d.name], active[d.name]
        assert ((hard == 0) | (hard == 1)).all()
        assert pair.sum(1).tolist() == [2] * d.rows
        assert hard.sum(1).tolist() == [1] * d.rows
        p = strategy.alphas[d.name].exp() * pair
        p = p / p.sum(1, keepdim=True)
        wanted = p * (gate - (p * gate).sum(1, keepdim=True))
        assert torch.allclose(gradient, wanted, atol=1e-12)
        assert (gradient[~pair] == 0).all()
    assert any(gradient.abs().max() > 0 for gradient in found)


@pytest.mark.parametrize(("name", "strength"), [("nasbench201", 1.0), ("enas_micro", 0.0)])
def test_options_that_were_not_drawn_keep_their_probabilities(name: str, strength: float) -> None:
    strategy = prepared(Proxyless(batch=4, alpha_lr=0.5, strength=strength), task(name))
    strategy.alpha_optimizer = torch.optim.Adam(strategy.alphas.values(), 0.5, betas=(0.0, 0.999))
    moved = 0.0
    for _ in range(3):
        before = strategy.mixing(detached=True)
        strategy.alpha_step(batch(strategy), batch(strategy))
        after = strategy.mixing(detached=True)
        for decision, pair in strategy.pair.items():
            change = after[decision] - before[decision]
            assert (change[~pair].abs() < 1e-12).all()
            moved += change[pair].abs().sum().item()
    assert moved > 0.1


def test_a_step_of_the_weights_runs_one_path() -> None:
    strategy = prepared(Proxyless(batch=4), task("nasbench201"))
    x, y = batch(strategy)
    tables, active = strategy.drawn(detached=True)
    torch.nn.functional.cross_entropy(strategy.supernet(x, tables, active), y).backward()
    for node in strategy.supernet.graph.nodes:
        if isinstance(node.op, Hole):
            d = strategy.task.space.decision(node.op.decision)
            for key, module in strategy.supernet.nodes[node.name].named_children():
                on = tables[d.name][node.op.row, d.options.index(key)] == 1
                assert all((p.grad is not None) == on for p in module.parameters())


@pytest.mark.parametrize("name", ["chain", "enas_micro"])
def test_gates_open_by_their_probabilities(name: str) -> None:
    strategy = prepared(Proxyless(batch=4), task(name))
    d = strategy.task.space.decisions[-1]
    torch.manual_seed(0)
    with torch.no_grad():
        strategy.alphas[d.name].normal_()
    p = strategy.mixing(detached=True)[d.name]
    drawn = torch.stack([strategy.gates(d).detach() for _ in range(3000)]).mean(0)
    assert ((drawn - p).abs() <= 4.5 * (p * (1 - p) / 3000).sqrt() + 1e-9).all()
    scopes = p.view(1, -1) if d.keep == 1 else p
    pairs = torch.stack([strategy.pairs(d) for _ in range(3000)]).double().mean(0).view(scopes.shape)
    ratio = scopes / (1 - scopes)  # the chance to be first, or second after another
    wanted = scopes * (1 + ratio.sum(1, keepdim=True) - ratio)
    assert ((pairs - wanted).abs() <= 4.5 * (wanted * (1 - wanted) / 3000).sqrt() + 1e-9).all()


def test_the_expected_cost_is_the_mean_over_all_networks() -> None:
    made = space("chain?layers=3", channels=4, input=(3, 8, 8))
    for measure in ("macs", "params"):
        expected = expected_cost(made, measure)
        (d,) = made.decisions
        table = torch.rand(d.rows, len(d.options), dtype=torch.float64)
        chances = probabilities(d, table)
        exact = 0.0
        for value in d.values():
            share = math.prod(chances[row, d.options.index(option)].item() for row, option in value)
            filled = made.fill(made.architecture({d.name: value}))
            exact += share * getattr(cost(filled), measure)
        assert expected({d.name: table}).item() == pytest.approx(exact, rel=1e-9)
        assert expected.error < 1e-9


def test_the_expected_cost_is_the_mean_over_draws() -> None:
    """Two of several rows are kept, `none` never: rows uniformly, then options by what is left."""
    made = space("darts", channels=4, cells=3, input=(3, 8, 8))
    expected = expected_cost(made)
    assert expected.error < 1e-9
    torch.manual_seed(0)
    tables = {d.name: torch.rand(d.rows, len(d.options), dtype=torch.float64) for d in made.decisions}
    rng, costs = Random(0), []
    for _ in range(300):
        choices = {}
        for d in made.decisions:
            places = [d.options.index(option) for option in d.legal]
            rows = sorted(rng.sample(range(d.rows), d.keep))
            weights = tables[d.name][:, places].tolist()
            choices[d.name] = tuple((row, rng.choices(d.legal, weights[row])[0]) for row in rows)
        costs.append(float(cost(made.fill(made.architecture(choices))).macs))
    sample = torch.tensor(costs, dtype=torch.float64)
    error = sample.std() / math.sqrt(len(costs))
    assert abs(expected(tables) - sample.mean()) < 4 * error


def test_a_strong_term_of_cost_leads_to_a_cheap_network() -> None:
    strategy = prepared(Proxyless(batch=4, strength=1e4), task("chain"))
    strategy.alpha_optimizer = torch.optim.Adam(strategy.alphas.values(), 0.1, betas=(0.0, 0.999))
    for _ in range(60):
        strategy.alpha_step(batch(strategy), batch(strategy))
    made = strategy.task.space
    cheapest = made.at(0)  # skip connections alone; where one halves the size it costs as much as a conv_1x1
    assert {option for _, option in cheapest.choices["layers"]} == {"skip_connect"}
    assert cost(made.fill(strategy.best())).macs == cost(made.fill(cheapest)).macs


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
