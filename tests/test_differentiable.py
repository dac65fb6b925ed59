"""Differentiable strategies: what each paper says is special about it, and when the collapse guard fires."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from itertools import product
from random import Random
from typing import Any

import pytest
import torch
from conftest import TINY_DARTS, Command, sets
from torch import Tensor

from nas.data import Split
from nas.data.batches import Examples
from nas.graph import Hole
from nas.network import Network
from nas.run import Run
from nas.search_space import Architecture, SearchSpace, space
from nas.strategies import (
    GDAS,
    SNAS,
    STRATEGIES,
    BetaDarts,
    Darts,
    FairDarts,
    RobustDarts,
    SmoothDarts,
    Task,
)
from nas.strategies.collapse import (
    CHANCE,
    DOUBTFUL,
    PATIENCE,
    Guard,
    chances,
    is_skip,
    largest_eigenvalue,
    skips,
    tail,
    weighted,
)
from nas.strategies.differentiable import Differentiable

MINE = ("gdas", "snas", "fair_darts", "beta_darts", "sdarts", "r_darts")
SCALES = {
    "nasbench201": {"channels": 4, "cells": 1},
    "darts": {"channels": 4, "cells": 3},
    "chain": {"layers": 2, "channels": 4},
    "nasnet": {"channels": 4, "cells": 3},  # one choice among rows and options
}


def made(name: str = "nasbench201") -> SearchSpace:
    return space(name, **SCALES[name], classes=4, input=(1, 8, 8))


def task(where: SearchSpace, *, images: int = 8, **settings: Any) -> Task:
    """Random data, the same for training and validation."""
    torch.manual_seed(2)
    part = Split(
        images=torch.randint(256, (images, 1, 8, 8), dtype=torch.uint8).numpy(),
        labels=torch.randint(4, (images,)).numpy(),
    )
    return Task(where, examples=Examples(part, part, (0.5,), (0.5,)), **{"seed": 1, "epochs": 3, **settings})


def begun(strategy: Differentiable, name: str = "nasbench201", *, horizon: int = 5) -> Differentiable:
    """A search of `horizon` epochs in float64, with alphas that differ, in its second epoch."""
    strategy.horizon = horizon
    strategy.prepare(task(made(name)))
    strategy.supernet.double()
    for alpha in strategy.alphas.values():
        alpha.data = torch.randn(alpha.shape, dtype=torch.float64)
    strategy.rate, strategy.epoch = 0.01, 1
    strategy.begin_epoch(1)
    return strategy


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=generator)
    return images, torch.tensor([0, 1, 2, 3])


# --- every one of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MINE)
@pytest.mark.parametrize("where", ["nasbench201", pytest.param("darts", marks=pytest.mark.slow)])
def test_an_epoch_runs_and_goes_on_to_the_same_bits(name: str, where: str) -> None:
    shared = task(made(where))
    strategy = STRATEGIES[name](batch=4)
    reports = strategy.reports(shared)
    next(reports)
    saved = io.BytesIO()
    torch.save(strategy.state(), saved)
    before = {name: alpha.detach().clone() for name, alpha in strategy.alphas.items()}
    expected = next(reports)
    assert all(not torch.equal(alpha, before[name]) for name, alpha in strategy.alphas.items())
    again = STRATEGIES[name](batch=4)
    saved.seek(0)
    again.resume(shared, [], torch.load(saved, weights_only=True))
    found = next(again.reports(shared))
    assert (found.metrics, found.tables) == (expected.metrics, expected.tables)
    for key, tensor in strategy.supernet.state_dict().items():
        assert torch.equal(tensor, again.supernet.state_dict()[key]), key


@pytest.mark.parametrize("name", MINE)
@pytest.mark.parametrize("where", ["chain", pytest.param("nasnet", marks=pytest.mark.slow)])
def test_other_spaces_can_be_searched_as_well(name: str, where: str) -> None:
    strategy = begun(STRATEGIES[name](), where)
    before = {name: alpha.detach().clone() for name, alpha in strategy.alphas.items()}
    loss, _ = strategy.step(batch(), batch())
    assert loss.isfinite()
    assert any(not torch.equal(alpha, before[name]) for name, alpha in strategy.alphas.items())
    assert strategy.task.space.why_not(strategy.best()) is None


# --- what each is about ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["nasbench201", "nasnet"])
def test_gdas_draws_one_option_a_row_as_often_as_softmax_says(where: str) -> None:
    """Dong & Yang 2019, equation 3: the argmax of alphas with Gumbel noise is a sample of their softmax."""
    torch.manual_seed(0)
    strategy = begun(GDAS(), where)
    draws = [strategy.drawn(detached=True) for _ in range(600)]
    for decision in strategy.task.space.decisions[:3]:
        tables = torch.stack([drawn.tables[decision.name] for drawn in draws])
        assert set(tables.unique().tolist()) == {0.0, 1.0}
        ones = tables.sum((1, 2)) if decision.keep == 1 else tables.sum(2)
        assert ones.eq(1).all()
        assert all(
            torch.equal(drawn.active[decision.name], drawn.tables[decision.name] > 0) for drawn in draws
        )
        expected = strategy.mixing(detached=True)[decision.name]
        error = (expected * (1 - expected) / len(draws)).sqrt()
        assert ((tables.mean(0) - expected).abs() <= 4.5 * error + 1e-9).all()


def test_gdas_runs_only_what_it_drew() -> None:
    strategy = begun(GDAS())
    ran: list[str] = []
    for node, options in strategy.supernet.nodes.items():
        for key, module in options.named_children():
            module.register_forward_hook(lambda *_, place=(node, key): ran.append(place))
    torch.manual_seed(0)
    drawn = strategy.drawn(detached=False)
    strategy.supernet(batch()[0], *drawn)
    edges = [node for node, options in strategy.supernet.nodes.items() if "skip_connect" in options._modules]
    assert edges
    assert all(sum(node == edge for node, _ in ran) == 1 for edge in edges)


def test_gdas_passes_the_gradient_straight_through_what_ran() -> None:
    """Equation 4: of each drawn option, the gradient is that of its softmax with the same noise."""
    strategy = begun(GDAS())
    torch.manual_seed(7)
    tables, active = strategy.drawn(detached=False)
    torch.manual_seed(7)
    total, expected = torch.zeros(()), torch.zeros(())
    for decision in strategy.task.space.decisions:
        alpha = strategy.alphas[decision.name]
        noise = -torch.empty(alpha.shape).exponential_().log()
        soft = ((alpha + noise) / strategy.temperature).softmax(1)
        upstream = torch.randn(alpha.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        total = total + (tables[decision.name] * upstream).sum()
        expected = expected + (soft * upstream * active[decision.name]).sum()
    alphas = list(strategy.alphas.values())
    for a, b in zip(torch.autograd.grad(total, alphas), torch.autograd.grad(expected, alphas), strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-12)


def test_temperatures_fall_from_end_to_end() -> None:
    gdas, snas = GDAS(), SNAS()
    gdas.horizon = snas.horizon = 5
    for number, share in ((0, 0.0), (2, 0.5), (4, 1.0)):
        gdas.begin_epoch(number)
        snas.begin_epoch(number)
        assert gdas.temperature == pytest.approx(10 + share * (0.1 - 10))
        assert snas.present == pytest.approx(1 + share * (0.03 - 1))


def test_snas_samples_are_soft_and_become_one_hot() -> None:
    """Xie et al.

    2019, section 2.2: at every temperature the largest weight falls on an option as often as its softmax
    says, and in the limit the sample is that choice.
    """
    torch.manual_seed(0)
    strategy = begun(SNAS())
    decision = strategy.task.space.decisions[-1]
    expected = strategy.mixing(detached=True)[decision.name]
    for temperature, hard in ((1.0, False), (1e-4, True)):
        strategy.present = temperature
        with torch.no_grad():
            tables = torch.stack([strategy.drawn(detached=False).tables[decision.name] for _ in range(600)])
        torch.testing.assert_close(tables.sum(2), torch.ones_like(tables.sum(2)))
        often = torch.nn.functional.one_hot(tables.argmax(2), tables.shape[2]).double().mean(0)
        assert ((often - expected).abs() <= 4.5 * (expected * (1 - expected) / 600).sqrt()).all()
        assert (tables.amax(2).mean().item() > 0.999) == hard


def test_snas_has_one_loss_for_weights_and_alphas() -> None:
    """The validation batch may be missing, and one pass forward moves both by the training loss."""
    strategy, same = begun(SNAS()), begun(SNAS())
    x, y = batch()
    torch.manual_seed(3)
    loss = torch.nn.functional.cross_entropy(same.supernet(x, *same.drawn(detached=False)), y)
    expected = torch.autograd.grad(loss, list(same.alphas.values()))
    passes: list[int] = []
    strategy.supernet.register_forward_hook(lambda *_: passes.append(1))
    before = {name: weight.detach().clone() for name, weight in strategy.weights.items()}
    alphas = [alpha.detach().clone() for alpha in strategy.alphas.values()]
    torch.manual_seed(3)
    strategy.step((x, y), None)  # type: ignore[arg-type]
    assert len(passes) == 1
    assert any(not torch.equal(weight, before[name]) for name, weight in strategy.weights.items())
    for alpha, old, gradient in zip(strategy.alphas.values(), alphas, expected, strict=True):
        torch.testing.assert_close(alpha.grad, gradient)
        assert not torch.equal(alpha, old)


def test_fair_darts_options_do_not_compete() -> None:
    """Chu et al.

    2020, section 3.2: raising one alpha leaves the other options' weights alone; with softmax it lowers them.
    """
    for kind, lowered in ((FairDarts, False), (Darts, True)):
        strategy = begun(kind())
        alpha = strategy.alphas["node3"]
        before = strategy.mixing(detached=True)["node3"]
        alpha.data[0, 1] += 1.0
        after = strategy.mixing(detached=True)["node3"]
        assert after[0, 1] > before[0, 1]
        others = [0, 2, 3, 4]
        assert torch.equal(after[0, others], before[0, others]) != lowered


def test_fair_darts_loss_drives_gates_apart() -> None:
    """Equation 6: 0 where all gates are 1/2, least where all are 0 or 1; descent moves each from 1/2."""
    strategy = begun(FairDarts(zero_one=10.0))
    for alpha in strategy.alphas.values():
        alpha.data.zero_()
    assert strategy.penalty().item() == 0.0
    for alpha in strategy.alphas.values():
        alpha.data.fill_(50.0).view(-1)[::2] = -50.0
    assert strategy.penalty().item() == pytest.approx(-10 * 0.25)
    for alpha in strategy.alphas.values():
        alpha.data = torch.randn(alpha.shape, dtype=torch.float64)
    alphas = list(strategy.alphas.values())
    for alpha, gradient in zip(alphas, torch.autograd.grad(strategy.penalty(), alphas), strict=True):
        assert torch.equal(gradient.sign(), -alpha.detach().sign())


def test_fair_darts_keeps_none_where_nothing_is_above_the_threshold() -> None:
    strategy = begun(FairDarts(threshold=0.7))
    place = {o: i for i, o in enumerate(strategy.task.space.decision("node3").options)}
    for alpha in strategy.alphas.values():
        alpha.data.fill_(-2.0)[:, place["nor_conv_3x3"]] = 2.0
    strategy.alphas["node3"].data[1].fill_(0.5)  # a sigmoid of 0.62
    strategy.alphas["node3"].data[1, place["none"]] = -3.0
    assert [option for _, option in strategy.best().choices["node3"]] == [
        "nor_conv_3x3",
        "none",
        "nor_conv_3x3",
    ]
    darts = begun(FairDarts(threshold=1.0), "darts")  # its `none` is never kept, two rows always are
    assert all(len(value) == 2 for value in darts.best().choices.values())


def test_beta_decay_has_the_softmax_as_its_gradient_and_shrinks_the_spread() -> None:
    """Ye et al.

    2022: the gradient of logsumexp(alpha) is beta, so the loss alone draws the alphas of a row together.
    """
    strategy = begun(BetaDarts(decay=25.0), horizon=5)  # in epoch 1 of 5
    assert strategy.strength == pytest.approx(5.0)
    alphas = list(strategy.alphas.values())
    rows = sum(len(alpha) for alpha in alphas)
    gradients = torch.autograd.grad(strategy.penalty(), alphas)
    for alpha, gradient in zip(alphas, gradients, strict=True):
        torch.testing.assert_close(gradient, 5.0 * alpha.detach().softmax(1) / rows)
        stepped = alpha.detach() - 0.1 * gradient
        assert (stepped.std(1) < alpha.detach().std(1)).all()
    strategy.begin_epoch(0)
    assert strategy.penalty().item() == 0.0


def test_smooth_darts_perturbs_the_weights_step_alone() -> None:
    """Chen & Hsieh 2020, equation 3: weights see tables in a box that grows, alphas the present ones."""
    strategy = begun(SmoothDarts())
    assert strategy.reach == pytest.approx(0.03 + 0.27 / 5)
    plain = strategy.mixing(detached=True)
    assert all(torch.equal(t, plain[n]) for n, t in strategy.drawn(detached=False).tables.items())
    draws = [strategy.drawn(detached=True).tables for _ in range(50)]
    for name, table in plain.items():
        apart = torch.stack([drawn[name] for drawn in draws])
        assert apart.min() >= 0
        assert apart.max() <= 1
        distances = (apart - table).abs()
        assert distances.max() <= strategy.reach + 1e-12
        assert distances.max() > 0.9 * strategy.reach
    widths = []
    for number in range(5):
        strategy.begin_epoch(number)
        widths.append(strategy.reach)
    assert widths == sorted(set(widths))
    assert widths[0] == 0.03


def test_robust_darts_decays_weights_more_and_drops_paths_more_and_more() -> None:
    strategy = begun(RobustDarts(drop_path=0.4), horizon=4)
    assert strategy.weight_optimizer.param_groups[0]["weight_decay"] > Darts().weight_decay
    chosen = []
    for number in range(4):
        strategy.begin_epoch(number)
        chosen.append(strategy.supernet.drop_path)
    assert chosen == pytest.approx([0.0, 0.1, 0.2, 0.3])
    strategy.supernet.train()
    one = strategy.supernet(batch()[0], *strategy.drawn(detached=True))
    assert not torch.allclose(one, strategy.supernet(batch()[0], *strategy.drawn(detached=True)))


# --- the guard ---------------------------------------------------------------------------------------------


def test_the_tail_counts_every_outcome() -> None:
    chance = [0.2, 0.5, 1 / 7, 0.0, 1.0]
    for count in range(7):
        summed = sum(
            math.prod(p if hit else 1 - p for p, hit in zip(chance, outcome, strict=True))
            for outcome in product((0, 1), repeat=len(chance))
            if sum(outcome) >= count
        )
        assert tail(chance, count) == pytest.approx(summed)


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_the_tail_is_how_often_samples_have_so_many(name: str) -> None:
    where, rng = made(name), Random(0)
    counts = [skips(where, where.sample(rng)) for _ in range(1000)]
    for least in (1, 2, 3):
        expected = tail(chances(where), least)
        found = sum(count >= least for count in counts) / len(counts)
        assert abs(found - expected) <= 4 * math.sqrt(expected * (1 - expected) / len(counts)) + 0.01


def drifting(where: SearchSpace, towards: bool) -> list[dict[str, list[list[float]]]]:
    """Tables of ten epochs in which skip connections, or else the last options, gain what others lose."""
    rng, tables = Random(4), []
    noise = {d.name: [[rng.random() for _ in d.options] for _ in range(d.rows)] for d in where.decisions}
    for epoch in range(10):
        tables.append(
            {
                d.name: [
                    [
                        n + 0.2 * epoch * (is_skip(where, o) == towards)
                        for n, o in zip(row, d.options, strict=True)
                    ]
                    for row in noise[d.name]
                ]
                for d in where.decisions
            }
        )
    return tables


@pytest.mark.parametrize("name", ["nasbench201", "darts"])
def test_the_guard_fires_on_a_drift_and_is_silent_on_a_healthy_search(name: str) -> None:
    where = made(name)
    guard = Guard(where)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        told = [guard.look(i, where.project(t)) for i, t in enumerate(drifting(where, True), start=1)]
    assert [each["collapsed"] for each in told][::9] == [0.0, 1.0]
    assert len(said) == 1  # once
    assert f"collapsed in epoch {guard.since}" in str(said[0].message)
    assert guard.healthy is not None
    assert guard.since is not None
    assert guard.healthy[0] < guard.since
    assert tail(chances(where), skips(where, where.parse(guard.healthy[1]))) >= DOUBTFUL > CHANCE
    healthy = Guard(where)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i, tables in enumerate(drifting(where, False), start=1):
            assert healthy.look(i, where.project(tables))["collapsed"] == 0.0


def cells(where: SearchSpace, count: int, *, learning: bool) -> list[Architecture]:
    """Random cells with operations that have weights on a way to the output, or without."""
    drawn = (where.sample(Random(seed)) for seed in itertools.count())
    return list(itertools.islice((each for each in drawn if bool(weighted(where, each)) == learning), count))


def test_weighted_operations_are_those_whose_weights_move_the_output() -> None:
    """A gradient reaches the weights of a choice if and only if it is counted."""
    where = made()
    torch.manual_seed(0)
    x = torch.randn(4, 1, 8, 8)
    for seed in range(25):
        architecture = where.sample(Random(seed))
        network = Network(where.fill(architecture))
        network(x).square().sum().backward()
        holes = {node.name: node.op for node in where.graph.nodes if isinstance(node.op, Hole)}
        moved = set()
        for name, parameter in network.named_parameters():
            node = next((each for each in holes if name.startswith(f"{each}.")), None)
            if node is not None and parameter.grad is not None and parameter.grad.any():
                moved.add(holes[node][:2])
        assert weighted(where, architecture) == len(moved), architecture.literal


def test_convolutions_that_are_cut_off_are_a_collapse() -> None:
    where = made()
    alive, barren = cells(where, 4, learning=True), cells(where, 6, learning=False)
    guard = Guard(where)
    with pytest.warns(UserWarning, match="and 0 operations with weights reach the output") as said:
        told = [guard.look(i, each)["collapsed"] for i, each in enumerate([*alive, *barren], start=1)]
    assert told == [0.0] * (3 + PATIENCE) + [1.0] * (7 - PATIENCE)
    assert len(said) == 1
    assert guard.healthy == (4, alive[-1].literal)
    for others in ([*barren], [*alive[:1], *barren[: PATIENCE - 1], *alive[1:], *barren[: PATIENCE - 1]]):
        silent = Guard(where)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not any(silent.look(i, each)["collapsed"] for i, each in enumerate(others, start=1))


def test_a_drift_that_lasts_is_a_collapse_and_one_that_passes_is_none() -> None:
    """Four of six skip connections: random choices have as many in 1.7 of 100 cases."""
    where = made()
    sound, poor = (
        where.parse("|nor_conv_3x3~0|+|%s~0|%s~1|+|%s~0|%s~1|nor_conv_3x3~2|" % ((option,) * 4))
        for option in ("nor_conv_1x1", "skip_connect")
    )
    assert CHANCE < tail(chances(where), skips(where, poor)) < DOUBTFUL
    for course, since in (
        ([sound, *[poor] * PATIENCE], PATIENCE + 1),
        ([sound, *[poor] * (PATIENCE - 1), sound, *[poor] * (PATIENCE - 1)], None),
        ([poor] * (2 * PATIENCE), None),  # so it began
    ):
        guard = Guard(where)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i, each in enumerate(course, start=1):
                guard.look(i, each)
        assert guard.since == since


def test_many_skip_connections_from_the_start_are_no_drift() -> None:
    where = made()
    worst = where.project(drifting(where, True)[-1])
    guard = Guard(where)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [guard.look(i, worst)["collapsed"] for i in (1, 2, 3)] == [0.0, 0.0, 0.0]


class Drifting(Darts):
    """DARTS whose alphas are pushed to skip connections, more in every epoch."""

    def begin_epoch(self, number: int) -> None:
        with torch.no_grad():
            for decision in self.task.space.decisions:
                self.alphas[decision.name].zero_()[:, 3] = 1.0
                for row in range(decision.rows):
                    place = 1 if number >= 2 else 3
                    self.alphas[decision.name][row, place] = 2.0


def test_a_stopped_search_gives_its_last_healthy_network_also_when_resumed() -> None:
    shared = task(made(), epochs=6)
    strategy = Drifting(batch=4, guard="stop")
    with pytest.warns(UserWarning, match="collapsed in epoch 3"):
        reports = list(strategy.reports(shared))
    assert [report.metrics["collapsed"] for report in reports] == [0.0, 0.0, 1.0]
    assert reports[-1].architecture.literal == reports[1].architecture.literal
    assert reports[-1].metrics["healthy_epoch"] == 2
    again = Drifting(batch=4, guard="stop")
    again.resume(shared, reports, strategy.state())
    assert list(again.reports(shared)) == []
    assert again.ended.literal == reports[1].architecture.literal
    with pytest.warns(UserWarning, match="collapsed"):
        warned = list(Drifting(batch=4).reports(shared))
    assert len(warned) == 6
    assert skips(shared.space, warned[-1].architecture) == 6
    silent = next(Drifting(batch=4, guard="off").reports(shared))
    assert not {"collapsed", "derived_accuracy", "gap"} & set(silent.metrics)


def test_a_stopped_search_is_told_on_the_console_and_in_the_report(nas: Command, tmp_path: Any) -> None:
    """The choice, its metrics and the reason of the end are those of the last healthy epoch."""
    (tmp_path / "own.py").write_text(
        "from test_differentiable import Drifting\nclass Own(Drifting):\n    '''Own: drifts'''\n"
    )
    settings = [each for each in TINY_DARTS if "strategy" not in each and "budget" not in each]
    settings += ["strategy=own.py:Own", "budget=5epochs", "strategy.guard=stop"]
    told = nas("search", "--run", "run", *sets(settings))
    assert told.status == 0, told.err
    assert "the search has collapsed in epoch 3" in told.err
    with Run.open(tmp_path / "run") as run:
        events = run.events()
    epochs = [event for event in events if event["kind"] == "epoch"]
    chosen = next(event for event in events if event["kind"] == "selected")
    assert len(epochs) == 3
    assert chosen["literal"] == epochs[1]["literal"]
    assert chosen["metrics"] == epochs[1]["metrics"]
    assert "collapsed" in next(event for event in events if event["kind"] == "done")["reason"]
    nas("report", "run")
    assert "**The search collapsed** in epoch 3: 100 %" in (tmp_path / "run" / "report.md").read_text()


def test_the_power_iteration_finds_the_largest_eigenvalue() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    spectra = (
        [3.0, 1.0, 0.5, 0.1, 0.0, -1.0],
        [1.0, 0.5, 0.0, -0.5, -2.0, -5.0],
        [2.0, 0.0, 0.0, -1.0, -1.0, -2.0],
    )
    for spectrum in (*spectra, [-0.5, -1.0, -2.0, -3.0, -4.0, -5.0], [0.0] * 6):
        matrix = basis @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ basis.T
        x = torch.randn(6, dtype=torch.float64, requires_grad=True)
        found = largest_eigenvalue(0.5 * x @ matrix @ x, [x])
        assert found == pytest.approx(max(spectrum), abs=5e-3)


def test_the_curvature_of_a_search_equals_the_dense_hessian() -> None:
    strategy = begun(Darts(hessian=1, batch=4))
    state = {name: tensor.clone() for name, tensor in strategy.supernet.state_dict().items()}
    x, y = (
        next(iter(strategy.valid_batches.epoch(0)))[0].double(),
        next(iter(strategy.valid_batches.epoch(0)))[1],
    )
    strategy.valid_batches.epoch = lambda number: iter([(x, y)])  # type: ignore[method-assign]
    found = strategy._curvature()["hessian_eigenvalue"]
    for key, tensor in strategy.supernet.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    names = list(strategy.alphas)
    strategy.supernet.train()

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([strategy.alphas[name].numel() for name in names])
        tables = {
            name: part.view_as(strategy.alphas[name]).softmax(1)
            for name, part in zip(names, parts, strict=True)
        }
        return torch.nn.functional.cross_entropy(strategy.supernet(x, tables), y)

    flat = torch.cat([strategy.alphas[name].detach().flatten() for name in names])
    dense = torch.autograd.functional.hessian(loss, flat)
    assert found == pytest.approx(torch.linalg.eigvalsh(dense).max().item(), rel=1e-2)
    assert "hessian_eigenvalue" not in begun(Darts())._curvature()
