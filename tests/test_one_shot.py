"""Laws of all strategies with a supernet: where they run, that they can be taken up, their gradients, how
their steps may be computed, and what does not go together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from strategy_helpers import ONE_SHOT, noise
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from nas.search_space import SPACES, space
from nas.strategies import STRATEGIES, Darts, Report, Task, shared_weights
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import Mixing, SharedWeights, scopes

MIXING = [name for name in ONE_SHOT if issubclass(STRATEGIES[name], Differentiable)]  # type: ignore[arg-type]
REFUSED = {"gdas", "proxyless", "p_darts", "darts_pt"}  # by strategy.compile


SMALLER = {"nasnet": {"blocks": 2}, "enas_micro": {"blocks": 2}}  # so that they take seconds


def task(name: str = "nasbench201", *, images: int = 16, size: int = 8) -> Task:
    """A small space and random images."""
    scale = {**SPACES.facts(name)["small"], **SMALLER.get(name, {})}
    made = space(name, **{**scale, "classes": 10, "input": (3, size, size)})
    return Task(made, seed=1, epochs=2, examples=noise(images, size=size))


def begun(name: str, on: Task, **given: Any) -> SharedWeights:
    """A search that is about to train its first epoch."""
    strategy: SharedWeights = STRATEGIES[name](**given)
    strategy.check(on.space)
    strategy.horizon, strategy.epoch = 2, 0
    strategy.prepare(on)
    strategy.supernet.train()
    return strategy


# --- where they run, and that they can be taken up ----------------------------------------------------------


FEW = {  # what makes a search short, of what a strategy has
    **{"epochs": 4, "batch": 8, "recalibrated": 1},
    **{"rounds": 2, "candidates": 3, "parents": 2, "steps": 2, "samples": 2},
}
FIRST = {"ofa": "nasbench_sss"}  # where it is tried, if not on `nasbench201`
SHAPES = ("darts", "chain", "nasnet", "enas_micro", "enas_macro", "mobile", "resnet_elastic")


def short(name: str) -> SharedWeights:
    """A strategy with little to do."""
    has = {field.name for field in fields(STRATEGIES[name])}  # type: ignore[arg-type]
    made: SharedWeights = STRATEGIES[name](**{key: value for key, value in FEW.items() if key in has})
    return made


def why_not(name: str, where: str) -> str:
    """Why a strategy cannot search a space, in its own words; empty if it can."""
    try:
        short(name).check(task(where).space)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", ONE_SHOT)
def test_most_spaces_can_be_searched(name: str) -> None:
    told = {where: why_not(name, where) for where in SPACES}
    assert all(where in why for where, why in told.items() if why)
    suited = {where for where, why in told.items() if not why}
    assert len(suited) >= 4
    assert name in FIRST or suited >= {"darts", "nasbench201"}


@pytest.mark.parametrize(
    ("name", "where"),
    [(name, FIRST.get(name, "nasbench201")) for name in ONE_SHOT]
    + [
        pytest.param(name, where, marks=pytest.mark.slow)
        for name in ONE_SHOT
        for where in SHAPES
        if not why_not(name, where)
    ],
)
def test_a_search_that_is_taken_up_gives_the_same_bits(name: str, where: str, tmp_path: Path) -> None:
    """From each epoch on, through a file that holds plain tensors."""
    on, whole = task(where), short(name)
    on = Task(on.space, seed=5, examples=on.examples)
    reports: list[Report] = []
    for report in whole.reports(on):
        reports.append(report)
        torch.save(whole.state(), tmp_path / f"{report.step}.pt")
    assert [report.step for report in reports] == [1, 2, 3, 4]
    for step in (1, 2, 3):
        saved = torch.load(tmp_path / f"{step}.pt", weights_only=True)
        again = short(name)
        again.resume(on, reports[:step], saved)
        assert list(again.reports(on)) == reports[step:]
        ends = [dict(tensors("", each.state())) for each in (again, whole)]
        assert ends[0].keys() == ends[1].keys()
        assert all(torch.equal(tensor, ends[1][key]) for key, tensor in ends[0].items())
        if step == 1:
            first = dict(tensors("", saved))
            moved = {
                key.split("/")[1]
                for key, end in ends[0].items()
                if key not in first or not torch.equal(first[key], end)
            }
            assert moved >= {"supernet"} | ({"alphas"} if name in MIXING else set())
    for report in reports:
        assert report.architecture is None or on.space.why_not(report.architecture) is None


def tensors(path: str, state: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a state, each with the keys that lead to it."""
    if isinstance(state, Tensor):
        return [(path, state)]
    inner = state.items() if isinstance(state, dict) else ()
    inner = enumerate(state) if isinstance(state, list | tuple) else inner
    return [each for key, value in inner for each in tensors(f"{path}/{key}", value)]


# --- alphas, tables and gradients ---------------------------------------------------------------------------


# Forward one-hot, backward something else; or the derivative of a distribution, not of a draw (own tests).
ESTIMATED = {"gdas", "proxyless", "drnas"}


def double(name: str) -> Differentiable:
    """A search in float64, with alphas that differ, where a penalty counts."""
    strategy = begun(name, task(), batch=8)
    assert isinstance(strategy, Differentiable)
    strategy.begin_epoch(1)
    strategy.supernet.double()
    torch.manual_seed(3)
    for key, alpha in strategy.alphas.items():
        strategy.alphas[key] = torch.nn.Parameter(torch.randn(alpha.shape, dtype=torch.float64))
    return strategy


@pytest.mark.parametrize("name", MIXING)
def test_tables_and_penalties_have_the_numerical_derivative(name: str) -> None:
    strategy = double(name)
    decisions = strategy.task.space.decisions
    given = tuple(strategy.alphas[d.name].detach().requires_grad_() for d in decisions)

    def computed(*alphas: Tensor) -> tuple[Tensor, ...]:
        strategy.alphas = dict(zip((d.name for d in decisions), alphas, strict=True))
        found = [strategy.table(d, alpha) for d, alpha in zip(decisions, alphas, strict=True)]
        penalty = strategy.penalty()
        return (*found, *([penalty] if isinstance(penalty, Tensor) else []))

    assert torch.autograd.gradcheck(computed, given)


@pytest.mark.parametrize("name", [name for name in MIXING if name not in ESTIMATED])
def test_alphas_have_the_numerical_gradient(name: str) -> None:
    """Of the validation loss of first order, with its penalty, at fixed noise."""
    strategy, step = double(name), 1e-5
    pair = torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.arange(8)

    def at(compute: Callable[[], Any]) -> Any:
        torch.manual_seed(4)
        return compute()

    def loss() -> float:
        with torch.no_grad():
            logits = strategy.supernet(pair[0], *strategy.drawn(detached=False))
            return float(torch.nn.functional.cross_entropy(logits, pair[1]) + strategy.penalty())

    at(loss)  # mixtures are fused, and draw in another order, from the second pass with the same options on
    found = at(lambda: Differentiable.alpha_gradient(strategy, pair, pair))
    places = [(key, place) for key, alpha in strategy.alphas.items() for place in range(alpha.numel())]
    errors = []
    for key, place in Random(0).sample(places, 10):
        alpha, sides = strategy.alphas[key].detach().view(-1), []
        for moved in (step, -2 * step):
            alpha[place] += moved
            sides.append(at(loss))
        alpha[place] += step
        errors.append(abs((sides[0] - sides[1]) / (2 * step) - found[key].view(-1)[place].item()))
    size = max(gradient.abs().max().item() for gradient in found.values())
    assert size > 0
    assert sorted(errors)[7] <= 1e-6 * size  # a ReLU that turns over spoils some


@pytest.mark.parametrize("name", MIXING)
def test_the_entropy_of_equal_alphas_is_the_logarithm_of_their_number(name: str) -> None:
    strategy = begun(name, task())
    assert isinstance(strategy, Differentiable)
    for alpha in strategy.alphas.values():
        alpha.data.zero_()
    choices = [scopes(d, strategy.mixing()[d.name]).shape[1] for d in strategy.task.space.decisions]
    expected = 2 if name == "fair_darts" else math.prod(choices) ** (1 / len(choices))  # each gate for itself
    assert strategy.measured()["alpha_entropy"] == pytest.approx(math.log(expected), rel=1e-5)


# --- how steps may be computed ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_SHOT)
def test_bfloat16_trains_what_float32_trains(name: str) -> None:
    """A step of one batch goes the same way, to the digits that there are."""
    # A deep network at its start: weights that are changed by 0.2 % have a gradient with a cosine of 0.5.
    where, cosine = ("mobile", 0.3) if name == "ofa" else ("nasbench201", 0.9)
    on, few = task(where, images=32, size=32), {"steps": 1, "samples": 1} if name == "enas" else {}
    steps: list[Tensor] = []
    for precision in ("float32", "bfloat16"):
        strategy = begun(name, on, batch=32, precision=precision, **few)
        before = [weight.detach().clone() for weight in strategy.weights.values()]
        strategy.train_epoch(0)
        after = list(strategy.weights.values())
        steps.append(torch.cat([(a.detach() - b).flatten() for a, b in zip(after, before, strict=True)]))
    assert not torch.equal(*steps)
    assert torch.cosine_similarity(*steps, dim=0) > cosine


@pytest.mark.parametrize("name", MIXING)
def test_recomputing_changes_no_gradient(name: str) -> None:
    found = []
    for recompute in (False, True):
        strategy = begun(name, task(), batch=8, recompute=recompute)
        assert isinstance(strategy, Differentiable)
        strategy.supernet.double()
        for alpha in strategy.alphas.values():
            alpha.data = alpha.data.double()
        strategy.begin_epoch(0)
        torch.manual_seed(2)  # of the images, and of what is drawn
        pair = torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.arange(8)
        found.append(strategy.alpha_gradient(pair, pair))
    for key, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][key], rtol=1e-6, atol=1e-9), key


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "darts")) for n in MIXING])
def test_steps_are_compiled_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One program of weight steps and, where alphas have steps of their own, one of these."""
    if name in REFUSED:
        with pytest.raises(ValueError, match=r"strategy\.compile cannot follow: leave one of them out"):
            begun(name, task(), compile=True)
        return
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter, fullgraph=True))
    found = []
    for compiled in (False, True):
        strategy = begun(name, task(), batch=4, compile=compiled, guard="off", **NO_WARMUP.get(name, {}))
        strategy.train_epoch(0)
        found.append(torch.cat([alpha.detach().flatten() for alpha in strategy.agreed()]))
    assert counter.frame_count == (1 if name == "snas" else 2)
    assert torch.allclose(*found, rtol=1e-3, atol=1e-5)


def test_options_that_are_given_up_are_compiled_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not in each epoch after that, whatever is evaluated between."""
    counter = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    monkeypatch.setattr(shared_weights, "CHECKED", 4)  # so that there are several batches to look at
    strategy = begun("drnas", task(images=8), batch=4, compile=True, warmup=0.0)
    strategy.horizon = 6
    counts = []
    for number in range(6):
        strategy.epoch = number
        strategy.forget()
        strategy.train_epoch(number)
        counts.append(counter.frame_count)
    assert counts == [2, 2, 2, 4, 4, 4]


NO_WARMUP: dict[str, dict[str, Any]] = {"pc_darts": {"warmup": 0.0}, "drnas": {"warmup": 0.0}}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"hessian": 1, "recompute": True}, "takes second derivatives, which strategy.recompute"),
        ({"order": 2, "recompute": True}, "takes gradients at other weights, which strategy.recompute"),
        ({"compile": True, "recompute": True}, "runs parts of a step again, which strategy.compile"),
        (
            {"order": 2, "unrolled": "exact", "compile": True},
            "takes second derivatives, which strategy.compile",
        ),
        ({"order": 2, "precision": "bfloat16"}, "moves weights a little, which strategy.precision"),
    ],
)
def test_what_does_not_go_together_is_refused_and_each_goes_alone(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"{why}.*: leave one of them out"):
        Darts(**given).check(task().space)
    for name in given:
        left = {key: value for key, value in given.items() if key != name}
        if left.get("order", 1) == 1:
            left.pop("unrolled", None)  # of the second order alone
        Darts(**left).check(task().space)


@pytest.mark.parametrize(
    ("name", "where", "given", "why"),
    [
        ("darts", "nasbench201", {"unrolled": "exact"}, "of the second order: set strategy.order=2"),
        (
            "darts",
            "nasbench201",
            {"order": 2, "unrolled": "exact", "epsilon": 0.1},
            "of the finite difference",
        ),
        ("proxyless", "nasbench201", {"cost": "latency"}, "while strategy.strength is 0"),
        ("drnas", "nasbench201", {"regulariser": "kl", "strength": 0.0}, "while strategy.strength is 0"),
        ("r_darts", "nasbench_sss", {"drop_path": 0.2}, "no operations to choose from"),
        ("gdas", "nasbench_sss", {"recompute": True}, "no operations to choose from"),
        ("fair_darts", "nasnet", {}, "'normal.* of 'nasnet.*' one of .* rows is kept"),
    ],
)
def test_what_would_do_nothing_is_refused(name: str, where: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        STRATEGIES[name](**given).check(task(where).space)


@pytest.mark.parametrize("name", ["darts_pt", "darts"])
def test_looking_changes_no_bit_of_training(name: str) -> None:
    """Whichever options were looked at, and however many batches of them a worker had."""
    found = []
    for looks in range(3):
        strategy = begun(name, task(), batch=8)
        assert isinstance(strategy, Differentiable)
        for _ in range(looks):
            strategy.checked(Mixing(strategy.mixing(detached=True), strategy.active))
        strategy.rate = 0.1
        strategy.weight_step(next(iter(strategy.train_batches.epoch(0))))
        found.append(torch.cat([weight.detach().flatten() for weight in strategy.weights.values()]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("name", ["spos", "darts"])
def test_each_half_has_the_batch_that_it_has_images_for(name: str) -> None:
    examples = noise(64)
    few = replace(examples, valid=noise(4).valid)
    strategy = begun(name, replace(task(), examples=few), batch=32)
    assert [len(y) for _, y in strategy.train_batches.epoch(0)] == [32, 32]
    assert [len(y) for _, y in strategy.valid_batches.epoch(0)] == [4]
