"""The plain DARTS reference: the published size, wiring that can be worked out by hand, exact derivatives."""

from __future__ import annotations

import pytest
import reference_network
import torch
import torch.nn.functional as F
from reference_darts import (
    EDGES,
    OPTIONS,
    Alphas,
    Batch,
    Cell,
    MixedOp,
    Network,
    SearchStep,
    first_order_gradient,
    initial_alphas,
    loss_of,
    operation,
    second_order_gradient,
    weight_optimizer,
    weight_step,
)
from torch import Tensor, nn
from torch.func import functional_call

from nas.network import Network as Graphs
from nas.search_space import space


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(2, classes=4, layers=3, input_channels=1).double()


@pytest.fixture
def alphas() -> Alphas:
    generator = torch.Generator().manual_seed(1)
    normal, reduce = (torch.randn(EDGES, len(OPTIONS), generator=generator).double() for _ in range(2))
    return normal.requires_grad_(), reduce.requires_grad_()


def batch(seed: int, *, size: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images, torch.randint(4, (size,), generator=generator)


def only(option: str) -> Tensor:
    """Weights (14, 8) with one option everywhere."""
    row = torch.tensor([float(name == option) for name in OPTIONS], dtype=torch.float64)
    return row.expand(EDGES, -1)


def test_the_number_of_weights_is_the_published_one() -> None:
    with torch.device("meta"):
        network = Network()
    assert sum(p.numel() for p in network.parameters()) == 1_930_618


def test_a_gradient_reaches_every_weight_and_every_alpha(network: Network, alphas: Alphas) -> None:
    loss_of(network, alphas=alphas, batch=batch(0)).backward()
    for name, parameter in [*network.named_parameters(), ("normal", alphas[0]), ("reduce", alphas[1])]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all((alpha.grad != 0).all() for alpha in alphas)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPTIONS)
def test_operations_keep_channels_and_divide_by_the_stride(name: str, stride: int) -> None:
    assert operation(name, channels=4, stride=stride)(torch.randn(2, 4, 8, 6)).shape == (
        2,
        4,
        8 // stride,
        6 // stride,
    )


def test_average_pooling_does_not_count_the_padding() -> None:
    pool = operation("avg_pool_3x3", channels=1, stride=1)[0]
    torch.testing.assert_close(pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_the_factorised_reduction_sees_even_and_odd_pixels() -> None:
    reduction = operation("skip_connect", channels=2, stride=2).double()
    reduction.norm = nn.Identity()
    x = torch.rand(1, 2, 4, 4, dtype=torch.float64)
    even = torch.einsum("oi,bihw->bohw", reduction.even.weight[:, :, 0, 0], x[:, :, ::2, ::2])
    odd = torch.einsum("oi,bihw->bohw", reduction.odd.weight[:, :, 0, 0], x[:, :, 1::2, 1::2])
    torch.testing.assert_close(reduction(x), torch.cat([even, odd], dim=1))


def test_a_one_hot_mixture_is_its_operation() -> None:
    mixture = MixedOp(2, stride=2).double()
    x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
    for i, name in enumerate(OPTIONS):
        torch.testing.assert_close(mixture(x, only(name)[0]), mixture.ops[i](x), msg=name)


def test_a_cell_of_skips_doubles_from_node_to_node() -> None:
    cell = Cell(2, inputs=(3, 5), reduction=False, after_reduction=False).double()
    a, b = torch.randn(2, 3, 4, 4).double(), torch.randn(2, 5, 4, 4).double()
    first = cell.preprocess0(a) + cell.preprocess1(b)  # node 0; each later node is twice the one before
    torch.testing.assert_close(
        cell(a, b, only("skip_connect")), torch.cat([first, 2 * first, 4 * first, 8 * first], 1)
    )


def test_each_edge_of_a_cell_reads_its_own_row() -> None:
    """Rows 0 and 4 alone connect input 0 to node 0 and node 0 to node 1; the other nodes are zero."""
    cell = Cell(2, inputs=(2, 2), reduction=False, after_reduction=False).double()
    weights = only("none").clone()
    weights[[0, 4]] = only("skip_connect")[:2]
    a, b = torch.randn(2, 2, 4, 4).double(), torch.randn(2, 2, 4, 4).double()
    state = cell.preprocess0(a)
    expected = torch.cat([state, state, 0 * state, 0 * state], dim=1)
    torch.testing.assert_close(cell(a, b, weights), expected)


def test_reductions_at_one_and_two_thirds_double_the_channels() -> None:
    shapes: list[tuple[int, ...]] = []
    network = Network(4)
    for cell in network.cells:
        cell.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape[1:])))
    assert network(torch.randn(2, 3, 32, 32), *initial_alphas()).shape == (2, 10)
    assert shapes == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


def step_of_sgd(network: Network, *, alphas: Alphas, sgd: torch.optim.SGD) -> dict[str, Tensor]:
    """The weights after a step on batch 0, differentiable in the alphas."""
    group, weights = sgd.param_groups[0], dict(network.named_parameters())
    loss = F.cross_entropy(functional_call(network, weights, (batch(0)[0], *alphas)), batch(0)[1])
    gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
    directions = {
        name: gradient + group["weight_decay"] * w + group["momentum"] * sgd.state[w]["momentum_buffer"]
        for (name, w), gradient in zip(weights.items(), gradients, strict=True)
    }
    return {name: w - group["lr"] * directions[name] for name, w in weights.items()}


def test_second_order_gradient_is_the_derivative_through_the_step(network: Network, alphas: Alphas) -> None:
    sgd = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    weight_step(network, alphas=alphas, train=batch(2), optimizer=sgd)  # a momentum to be remembered
    before = [p.detach().clone() for p in network.parameters()]
    ours = second_order_gradient(network, alphas=alphas, train=batch(0), valid=batch(1), sgd=sgd, radius=1e-6)
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))

    moved = step_of_sgd(network, alphas=alphas, sgd=sgd)
    loss = F.cross_entropy(functional_call(network, moved, (batch(1)[0], *alphas)), batch(1)[1])
    exact = torch.autograd.grad(loss, alphas)
    torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-7)
    first = first_order_gradient(network, alphas=alphas, batch=batch(1))
    assert all((o - f).abs().max() > 1e-3 for o, f in zip(ours, first, strict=True))

    weight_step(network, alphas=alphas, train=batch(0), optimizer=sgd, clip=float("inf"))
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter, moved[name], msg=name)


def test_the_weight_step_clips_and_leaves_the_alphas_alone(network: Network, alphas: Alphas) -> None:
    sgd = weight_optimizer(network)
    weight_step(network, alphas=alphas, train=batch(0), optimizer=sgd, clip=1e-3)
    assert torch.nn.utils.get_total_norm([p.grad for p in network.parameters()]) <= 1.001e-3
    assert all(alpha.grad is None for alpha in alphas)


@pytest.mark.parametrize("order", [1, 2])
def test_a_search_learns(network: Network, alphas: Alphas, order: int) -> None:
    start = [alpha.detach().clone() for alpha in alphas]
    step = SearchStep(network, alphas=alphas, order=order)
    losses = [float(step(batch(0), valid=batch(1))) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert all(not torch.equal(a, s) for a, s in zip(alphas, start, strict=True))


def test_wrong_arguments_say_the_rule() -> None:
    with pytest.raises(ValueError, match="layers must be at least 3"):
        Network(layers=2)
    with pytest.raises(ValueError, match="there are: none, max_pool_3x3"):
        operation("conv", channels=2, stride=1)


def test_the_network_by_hand_is_the_spaces() -> None:
    """DARTS_V2, of both kinds of cell: outputs and gradients; and the published number of weights."""
    with torch.device("meta"):
        assert sum(p.numel() for p in reference_network.Network().parameters()) == 3_349_342
    made = space("darts", channels=4, cells=6, input=(3, 8, 8))
    theirs = Graphs(made.fill(made.parse("DARTS_V2"))).double()
    ours = reference_network.Network(4, layers=6).double()
    with torch.no_grad():
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            one.copy_(other.normal_(0.0, 0.3))
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    outputs = [network(x) for network in (ours, theirs)]
    torch.testing.assert_close(*outputs)
    first, second = (
        torch.autograd.grad(y.square().sum(), network.parameters())
        for y, network in zip(outputs, (ours, theirs), strict=True)
    )
    torch.testing.assert_close(first, second)
