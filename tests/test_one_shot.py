"""Laws of all strategies with a supernet: the precision of training, compiled steps."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from strategy_helpers import ONE_SHOT

from nas.data import Split
from nas.data.batches import Examples
from nas.search_space import SPACES, space
from nas.strategies import STRATEGIES, Darts, Task
from nas.strategies.shared_weights import SharedWeights


def task(name: str = "nasbench201", **scale: Any) -> Task:
    """Random images, another half for each part."""
    torch.manual_seed(1)
    halves = [
        Split(
            images=torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8).numpy(),
            labels=torch.randint(10, (16,)).numpy(),
        )
        for _ in range(2)
    ]
    made = space(name, **{**SPACES.facts(name)["small"], **scale, "input": (3, 8, 8)})
    return Task(made, seed=1, epochs=2, examples=Examples(*halves, (0.5,) * 3, (0.25,) * 3))


@pytest.mark.parametrize("name", ONE_SHOT)
def test_bfloat16_trains_what_float32_trains(name: str) -> None:
    """To the digits that it has, in the steps alone: weights stay as they are."""
    found = {}
    for precision in ("float32", "bfloat16"):
        strategy = STRATEGIES[name](batch=8, precision=precision)
        (report, *_) = strategy.reports(task("resnet_elastic" if name == "ofa" else "nasbench201"))
        found[precision] = report.metrics["train_loss"]
        assert {weight.dtype for weight in strategy.weights.values()} == {torch.float32}
    assert found["bfloat16"] != found["float32"]
    assert found["bfloat16"] == pytest.approx(found["float32"], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_a_compiled_search_goes_the_same_way(order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    found = []
    for compiled in (False, True):
        strategy = Darts(batch=8, order=order, compile=compiled, guard="off")
        report = next(iter(strategy.reports(task())))
        found.append([report.metrics["train_loss"], *strategy.alphas.values()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "given"),
    [("darts", {"recompute": True}), ("gdas", {}), ("proxyless", {}), ("r_darts", {"drop_path": 0.2})],
)
def test_what_would_not_be_compiled_is_refused(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"do not go together: leave strategy\.compile out"):
        STRATEGIES[name](compile=True, **given).check(task().space)


@pytest.mark.parametrize("given", [{"hessian": 1}, {"order": 2, "unrolled": "exact"}])
def test_second_derivatives_cannot_be_compiled(given: dict[str, Any]) -> None:
    strategy: SharedWeights = Darts(compile=True, **given)
    with pytest.raises(ValueError, match=r"takes second derivatives, which strategy\.compile does not give"):
        strategy.check(task().space)
