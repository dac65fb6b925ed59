"""Laws of all strategies with a supernet: how their steps may be computed, and what does not go together."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from strategy_helpers import ONE_SHOT, noise
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from nas.search_space import SPACES, space
from nas.strategies import STRATEGIES, Darts, Task
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import SharedWeights

MIXING = [name for name in ONE_SHOT if issubclass(STRATEGIES[name], Differentiable)]  # type: ignore[arg-type]
REFUSED = {"gdas", "proxyless", "p_darts", "darts_pt"}  # by strategy.compile


def task(name: str = "nasbench201", *, images: int = 16, size: int = 8) -> Task:
    """A small space and random images."""
    made = space(name, **SPACES.facts(name)["small"], input=(3, size, size))
    return Task(made, seed=1, epochs=2, examples=noise(images, size=size))


def begun(name: str, on: Task, **given: Any) -> SharedWeights:
    """A search that is about to train its first epoch."""
    strategy: SharedWeights = STRATEGIES[name](**given)
    strategy.check(on.space)
    strategy.horizon, strategy.epoch = 2, 0
    strategy.prepare(on)
    strategy.supernet.train()
    return strategy


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
        Darts(**{key: value for key, value in given.items() if key != name}).check(task().space)
