"""Differentiable strategies: what each paper says is special about it, and when the collapse guard fires."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from nas.data import Split
from nas.data.batches import Examples
from nas.search_space import SearchSpace, space
from nas.strategies import (
    GDAS,
    SNAS,
    BetaDarts,
    Darts,
    FairDarts,
    RobustDarts,
    SmoothDarts,
    Task,
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


def test_robust_darts_decays_weights_more() -> None:
    """The first step is that of DARTS, but for the decay: 27e-4 instead of 3e-4 of each weight."""
    before, after = [], []
    for strategy in (begun(Darts()), begun(RobustDarts())):
        strategy.rate = strategy.weight_optimizer.param_groups[0]["lr"]
        strategy.supernet.train()
        before.append({key: weight.detach().clone() for key, weight in strategy.weights.items()})
        strategy.weight_step(batch())
        after.append(strategy.weights)
    assert after
    for key, weight in before[0].items():
        assert torch.equal(weight, before[1][key])
        apart = (after[0][key] - after[1][key]).detach()
        assert torch.allclose(apart, strategy.rate * (27e-4 - 3e-4) * weight, atol=1e-12)


def test_robust_darts_drops_paths_more_and_more() -> None:
    strategy = begun(RobustDarts(drop_path=0.4), horizon=4)
    chosen = []
    for number in range(4):
        strategy.begin_epoch(number)
        chosen.append(strategy.supernet.drop_path)
    assert chosen == pytest.approx([0.0, 0.1, 0.2, 0.3])
    strategy.supernet.train()
    one = strategy.supernet(batch()[0], *strategy.drawn(detached=True))
    assert not torch.allclose(one, strategy.supernet(batch()[0], *strategy.drawn(detached=True)))
