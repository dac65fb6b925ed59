"""DARTS: the gradient of the alphas of second order, against numerical differentiation; derivation."""

from __future__ import annotations

from random import Random

import pytest
import torch
from torch import Tensor

from nas.data import Split
from nas.data.batches import Examples
from nas.search_space import SPACES, space
from nas.strategies import Darts, Task

REFUSED = [name for name in SPACES if space(name).finish is not None]
QUICK = ("chain", "darts", "nasbench201", "nasbench_sss")  # for the others, numbers take minutes
MIXED = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in SPACES
    if name not in REFUSED
]

STEP = 1e-6  # small, so that hardly a ReLU turns over on the way; large enough for float64


def prepared(name: str, **arguments: object) -> tuple[Darts, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A search in float64 with fixed batch statistics, after a step that gives the optimizer a momentum."""
    torch.manual_seed(2)
    made = space(name, **{**SPACES.facts(name)["small"], "classes": 10}, input=(1, 8, 8))
    part = Split(
        images=torch.randint(256, (8, 1, 8, 8), dtype=torch.uint8).numpy(),
        labels=torch.randint(10, (8,)).numpy(),
    )
    strategy = Darts(order=2, batch=4, lr=0.05, momentum=0.9, weight_decay=1e-2, **arguments)
    strategy.horizon = 1
    strategy.prepare(Task(made, examples=Examples(part, part, (0.5,), (0.5,))))
    strategy.supernet.double()
    strategy.weights = dict(strategy.supernet.named_parameters())
    for name_, alpha in strategy.alphas.items():
        strategy.alphas[name_] = torch.nn.Parameter(torch.randn_like(alpha, dtype=torch.float64))
    strategy.rate = 0.05
    for weight in strategy.weights.values():
        strategy.weight_optimizer.state[weight]["momentum_buffer"] = 0.1 * torch.randn_like(weight)
    batches = [(torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.randint(10, (4,))) for _ in range(3)]
    strategy.supernet.train()
    for _ in range(3):
        strategy.supernet(batches[2][0], strategy.mixing())
    strategy.supernet.eval()
    return strategy, batches[0], batches[1]


def unrolled_loss(strategy: Darts, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]) -> float:
    """L_val(w', alpha) written out: one step of SGD with momentum and weight decay, then that loss."""

    def loss(weights: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        logits = torch.func.functional_call(strategy.supernet, weights, (batch[0], strategy.mixing()))
        return torch.nn.functional.cross_entropy(logits, batch[1])

    weights = {name: weight.detach().clone().requires_grad_() for name, weight in strategy.weights.items()}
    gradients = torch.autograd.grad(loss(weights, train), list(weights.values()))
    stepped = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        velocity = strategy.weight_optimizer.state[strategy.weights[name]]["momentum_buffer"]
        stepped[name] = weight - 0.05 * (0.9 * velocity + gradient + 1e-2 * weight)
    return loss(stepped, valid).item()


@pytest.mark.parametrize("name", MIXED)
def test_exact_second_order_equals_numerical_differentiation(name: str) -> None:
    strategy, train, valid = prepared(name, unrolled="exact")
    exact = strategy.alpha_gradient(train, valid)
    places = [(name, place) for name, alpha in strategy.alphas.items() for place in range(alpha.numel())]
    errors = []
    for decision, index in Random(0).sample(places, min(12, len(places))):
        alpha = strategy.alphas[decision]
        place = divmod(index, alpha.shape[1])
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                alpha[place] += sign * STEP
            sides.append(unrolled_loss(strategy, train, valid))
            with torch.no_grad():
                alpha[place] -= sign * STEP
        numerical = (sides[0] - sides[1]) / (2 * STEP)
        errors.append(abs(numerical - exact[decision][place].item()))
    size = max(gradient.abs().max().item() for gradient in exact.values())
    assert size > 0
    assert sorted(errors)[len(errors) * 3 // 4] <= 1e-5 * size  # a ReLU that turns over spoils some


@pytest.mark.parametrize("name", MIXED)
def test_finite_difference_approaches_the_exact_gradient(name: str) -> None:
    strategy, train, valid = prepared(name, unrolled="exact")
    exact = torch.cat([g.flatten() for g in strategy.alpha_gradient(train, valid).values()])
    first = torch.cat([g.flatten() for g in _first_order(strategy, train, valid).values()])
    strategy.unrolled, strategy.epsilon = "finite", 1e-6
    finite = torch.cat([g.flatten() for g in strategy.alpha_gradient(train, valid).values()])
    assert (finite - exact).norm() / exact.norm() <= 1e-6
    assert (first - exact).norm() / exact.norm() > 1e-3  # the orders do differ here


def _first_order(
    strategy: Darts, train: tuple[Tensor, Tensor], valid: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    strategy.order = 1
    gradient = strategy.alpha_gradient(train, valid)
    strategy.order = 2
    return gradient


@pytest.mark.parametrize("name", MIXED)
def test_a_gradient_leaves_weights_and_statistics_alone(name: str) -> None:
    for unrolled in ("exact", "finite"):
        strategy, train, valid = prepared(name, unrolled=unrolled)
        strategy.supernet.train()
        before = {name: tensor.clone() for name, tensor in strategy.supernet.state_dict().items()}
        strategy.alpha_gradient(train, valid)
        for key, tensor in strategy.supernet.state_dict().items():
            assert torch.equal(tensor, before[key]), key


@pytest.mark.parametrize("name", REFUSED)
def test_spaces_whose_wiring_decides_widths_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be mixed"):
        Darts().check(space(name))


def test_one_choice_among_inputs_and_operations_is_one_distribution() -> None:
    strategy, _, _ = prepared("nasnet")
    for decision, table in zip(strategy.task.space.decisions, strategy.mixing().values(), strict=True):
        assert decision.keep == 1
        assert table.shape == (decision.rows, len(decision.options))
        assert abs(table.sum().item() - 1) < 1e-12


def test_derivation_ranks_softmax_weights_without_none() -> None:
    """Liu et al.

    2019, section 2.4: a huge `none` lowers its edge's other weights; it is never chosen itself.
    """
    strategy, _, _ = prepared("darts")
    with torch.no_grad():
        for alpha in strategy.alphas.values():
            alpha.zero_()
        alpha = strategy.alphas["normal.2"]  # 4 inputs
        alpha[0, 0], alpha[0, 4] = (
            9.0,
            3.0,
        )  # strongest raw alpha of a convolution, but `none` takes all the weight
        alpha[1, 5], alpha[3, 3] = 1.0, 0.9
    assert strategy.best().choices["normal.2"] == ((1, "sep_conv_5x5"), (3, "skip_connect"))


def test_nasbench201_may_derive_none() -> None:
    strategy, _, _ = prepared("nasbench201")
    with torch.no_grad():
        strategy.alphas["node2"].zero_()[0, 0] = 1.0
    assert strategy.best().choices["node2"][0] == (0, "none")
