"""ProxylessNAS: gates, their gradients, and the expected cost."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from conftest import over
from test_progressive import batch, prepared, task

from nas.counting import Latencies, cost
from nas.graph import Hole
from nas.search_space import space
from nas.strategies import GDAS, Proxyless
from nas.strategies.differentiable import Differentiable
from nas.strategies.expected_cost import expected_cost, probabilities
from nas.supernet.mixture import hard


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


@pytest.mark.parametrize("kind", [Proxyless, GDAS])
@pytest.mark.parametrize(
    "name", over(["nasbench201", "enas_micro", "pnas", "resnet_elastic", "mobile", "chain"])
)
def test_a_step_of_the_weights_trains_what_its_path_uses(kind: type[Differentiable], name: str) -> None:
    """Nothing else has a gradient, or statistics that move: one of several rows, depths, widths. But for what
    may be a loose end, which tells the shape.
    """
    strategy = prepared(kind(batch=4), task(name))
    supernet, (x, y) = strategy.supernet, batch(strategy)
    ends = tuple(f"{end}." for node in supernet.graph.nodes if node.loose for end in node.inputs)
    strategy.begin_epoch(0)
    supernet.train()
    for _ in range(3):
        tables, active = strategy.drawn(detached=True)
        touched = []
        once = (tables, active)
        for weights in (once, once, (hard(strategy.task.space, tables),)):  # the second time fused
            counts = {key: t.clone() for key, t in supernet.state_dict().items() if "batches" in key}
            supernet.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(supernet(x, *weights), y).backward()
            after = supernet.state_dict()
            moved = {key for key, count in counts.items() if after[key] != count}
            touched.append(moved | {key for key, p in supernet.named_parameters() if p.grad is not None})
        for each in touched[:2]:
            assert {key for key in each ^ touched[2] if not key.startswith(ends)} == set()


def test_both_widths_of_a_pair_have_a_gradient() -> None:
    strategy = prepared(Proxyless(batch=4), task("nasbench_sss"))
    tables, active = strategy.drawn(detached=False)
    x, y = batch(strategy)
    loss = torch.nn.functional.cross_entropy(strategy.supernet(x, tables, active), y)
    for name, table in tables.items():
        (gate,) = torch.autograd.grad(loss, [table], retain_graph=True)
        assert (gate[active[name]] != 0).all()


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


def test_the_latency_of_a_network_is_the_sum_of_its_operations() -> None:
    """Each is measured once: equal networks take as long, and options add up exactly."""
    made = space("chain?layers=3", channels=4, input=(3, 8, 8))
    times = Latencies(torch.device("cpu"), repeats=3)
    found = [[times(made.fill(made.at(i))) for i in range(10)] for _ in range(2)]
    assert found[0] == found[1]
    assert min(found[0]) > 0
    assert expected_cost(made, "latency").error < 1e-9


def test_an_auxiliary_classifier_takes_no_time() -> None:
    """Which is there in training alone."""
    times = Latencies(torch.device("cpu"), repeats=1)
    found = set()
    for auxiliary in (True, False):
        made = space("darts", channels=4, cells=3, auxiliary=auxiliary)
        graph = made.fill(made.parse("DARTS_V2"))
        assert bool(graph.auxiliary) == auxiliary
        found.add(times(graph))
    assert len(found) == 1


def test_a_search_that_is_taken_up_keeps_the_latencies_that_it_measured() -> None:
    begun, again = (
        prepared(Proxyless(batch=4, strength=1.0, cost="latency"), task("chain")) for _ in range(2)
    )
    (name,) = begun.expected.options
    assert not torch.equal(again.expected.options[name], begun.expected.options[name])
    again.load(begun.state())
    assert torch.equal(again.expected.options[name], begun.expected.options[name])
    assert again.typical.item() == pytest.approx(begun.typical.item(), rel=1e-6)


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
