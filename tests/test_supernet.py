"""Laws of supernets, and the plain formulation of DARTS as an oracle."""

from __future__ import annotations

import itertools
from random import Random

import pytest
import reference_darts as reference
import torch
from conftest import over
from strategy_helpers import MIXED

from nas.graph import Builder, Hole
from nas.network import Network
from nas.primitives import PRIMITIVES, primitive
from nas.primitives.layers import ACTS, NORMS
from nas.search_space import SPACES, Decision, SearchSpace, space
from nas.supernet import Supernet
from nas.supernet.mixture import Weights


def small(name: str) -> tuple[SearchSpace, Supernet, torch.Tensor]:
    torch.manual_seed(0)
    made = space(name, **SPACES.facts(name)["small"], input=(3, 8, 8))
    supernet = Supernet(made).double()
    with torch.no_grad():  # as after training: of a fresh norm, zero in would be zero out
        for key, tensor in [*supernet.named_parameters(), *supernet.named_buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "var" in key else tensor.normal_(
                    1.0 if "weight" in key else 0.0, 0.3
                )
    return made, supernet, torch.randn(3, 3, 8, 8, dtype=torch.float64)


def test_darts_supernet_has_the_papers_size() -> None:
    made = space("darts", channels=16, cells=8)
    assert sum(p.numel() for p in Supernet(made).parameters()) == 1_930_618
    assert sum(d.rows * len(d.options) for d in made.decisions) == 224


@pytest.mark.parametrize("name", over(SPACES))
def test_path_equals_one_hot_weights(name: str) -> None:
    made, supernet, x = small(name)
    supernet.eval()
    for i in range(3):
        architecture = made.sample(Random(i))
        masks = {d.name: torch.tensor(d.mask(architecture.choices[d.name])).double() for d in made.decisions}
        active = {name: mask > 0 for name, mask in masks.items()}
        path = supernet(x, architecture)
        for given in ((masks,), (masks, active), (masks, active)):  # the second time fused
            assert torch.allclose(path, supernet(x, *given), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", over(MIXED))
def test_presence_is_a_share(name: str) -> None:
    """Also where weights are no chances that sum to 1."""
    made, supernet, _ = small(name)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        weights = Weights(
            {d.name: torch.rand(d.rows, len(d.options), generator=generator) for d in made.decisions}
        )
        for node in supernet.graph.nodes:
            assert 0 <= float(supernet._presence.of(node.name, weights)) <= 1 + 1e-6


@pytest.mark.parametrize("name", over(SPACES))
def test_path_equals_the_network_with_its_weights(name: str) -> None:
    """The filled network, given the supernet's parameters of that path, computes the same."""
    made, supernet, x = small(name)
    supernet.eval()
    for i in range(3):
        architecture = made.sample(Random(i))
        network = Network(made.fill(architecture), affine=supernet.affine, pool_norm=supernet.pool_norm)
        network.double().load_state_dict(supernet.state_of(architecture))
        network.eval()
        assert torch.allclose(network(x), supernet(x, architecture), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", over(SPACES))
def test_gradient_reaches_weights_and_tables(name: str) -> None:
    made, supernet, x = small(name)
    tables = {d.name: torch.rand(d.rows, len(d.options), dtype=torch.float64) for d in made.decisions}
    for table in tables.values():
        table.requires_grad_()
    if made.finish is not None:
        with pytest.raises(ValueError, match="its options cannot be mixed"):
            supernet(x, tables)
        return
    supernet(x, tables).square().sum().backward()
    assert all(p.grad is not None for p in supernet.parameters())
    for decision in made.decisions:
        gradient = tables[decision.name].grad
        holes = [h for node in made.graph.nodes for h in node.holes() if h.decision == decision.name]
        opening = {hole.option for hole in holes}  # an option that only closes doors adds nothing
        mixed = set(decision.options) - {"none"} if None in opening else opening
        for option, column in zip(decision.options, gradient.T, strict=True):
            assert (column.abs().sum() > 0) == (option in mixed), (decision.name, option)


@pytest.mark.parametrize("name", over(MIXED, but=("mobile", "blocks")))
def test_recomputed_mixtures_are_the_same_and_keep_less(name: str) -> None:
    """To the bit: logits, gradients, running statistics; and fewer bytes wait for the gradient."""
    made, _, x = small(name)
    tables = {d.name: torch.rand(d.rows, len(d.options), dtype=torch.float64) for d in made.decisions}
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        supernet = Supernet(made, recompute=recompute).double()
        supernet.drop_path = 0.3
        kept = [0]

        def pack(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept[0] += tensor.numel()
            return tensor

        own = {key: table.clone().requires_grad_() for key, table in tables.items()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = supernet(x, own)
        logits.square().sum().backward()
        gradients = [p.grad for p in (*supernet.parameters(), *own.values())]
        found.append((logits, gradients, list(supernet.state_dict().values()), kept[0]))
    plain, again = found
    assert torch.equal(plain[0], again[0])
    for a, b in zip(plain[1] + plain[2], again[1] + again[2], strict=True):
        assert torch.equal(a, b)
    widths_alone = name == "nasbench_sss"
    assert again[3] == plain[3] if widths_alone else again[3] < plain[3]


def test_a_missing_table_is_refused() -> None:
    _, supernet, x = small("nasbench201")
    with pytest.raises(ValueError, match="node1"):
        supernet(x, {})


def test_attributes_and_presence_are_mixed() -> None:
    """Holes in attributes and in `when`: the soft output is the weighted sum over all combinations."""
    if "times" not in PRIMITIVES:
        primitive("times", cost=lambda t, c, s, a, factor=1: t, strides=(1,), keeps=True)(times)
    b = Builder((4, 6, 6))
    b("scaled", "times", "input", factor=Hole("factor"))
    b("maybe", "conv_1x1", "input", out=4, when=Hole("skip", option=1))
    b("sum", "sum", "scaled", "maybe")
    b("mean", "global_avg_pool", "sum")
    b("classifier", "linear", "mean", out=2)
    made = SearchSpace((Decision("factor", (2, 5)), Decision("skip", (0, 1))), b.graph(), name="test")
    supernet = Supernet(made).double().eval()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    weights = {"factor": torch.tensor([[0.3, 0.7]]).double(), "skip": torch.tensor([[0.4, 0.6]]).double()}

    def hard(factor: int, skip: int) -> torch.Tensor:
        return supernet(x, made.architecture({"factor": ((0, factor),), "skip": ((0, skip),)})) - bias

    bias = supernet.get_parameter("classifier.bias")
    branch = hard(2, 1) - hard(2, 0)
    assert branch.abs().max() > 1e-6
    mixed = 0.3 * hard(2, 0) + 0.7 * hard(5, 0) + 0.6 * branch
    assert torch.allclose(supernet(x, weights) - bias, mixed, atol=1e-12)


def test_activation_and_norm_are_choices_too() -> None:
    """Every activation and every normalisation as decisions: path == one-hot tables."""
    b = Builder((3, 8, 8))
    x = b("stem", "conv_bn", "input", out=8, act=Hole("act"), norm=Hole("norm"))
    x = b("block", "inverted_residual", x, out=12, stride=2, act=Hole("act"), norm=Hole("norm"))
    b("classifier", "linear", b("pool", "global_avg_pool", x), out=3)
    acts = tuple(act for act in ACTS if act != "none")
    made = SearchSpace((Decision("act", acts), Decision("norm", NORMS)), b.graph())
    assert (len(acts), len(NORMS), made.size) == (8, 4, 32)
    supernet, x = Supernet(made).double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    outputs = []
    for act, norm in itertools.product(acts, NORMS):
        architecture = made.architecture({"act": ((0, act),), "norm": ((0, norm),)})
        masks = {d.name: torch.tensor(d.mask(architecture.choices[d.name])).double() for d in made.decisions}
        outputs.append(supernet(x, architecture))
        assert torch.allclose(outputs[-1], supernet(x, masks), rtol=1e-8, atol=1e-9)
    assert len({round(y.sum().item(), 9) for y in outputs}) == 32


class Times(torch.nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


def times(c_in: int, c_out: int, stride: int = 1, affine: bool = True, factor: int = 1) -> torch.nn.Module:
    """The input times a factor"""
    return Times(factor)


# --- the plain formulation ----------------------------------------------------------------------------------


def copy_weights(plain: torch.nn.Module, supernet: Supernet) -> None:
    """Both register the same tensors in the same order: nodes in order, options in order."""
    ours, theirs = list(supernet.parameters()), list(plain.parameters())
    assert [p.shape for p in ours] == [p.shape for p in theirs]
    with torch.no_grad():
        for a, b in zip(ours, theirs, strict=True):
            a.copy_(b)


def test_equal_to_the_plain_formulation() -> None:
    """Outputs, gradients of weights and of alphas, and running statistics, in float64."""
    torch.manual_seed(0)
    made = space("darts", channels=4, cells=5, input=(3, 8, 8))
    plain = reference.Network(C=4, classes=10, layers=5).double()
    supernet = Supernet(made).double()
    copy_weights(plain, supernet)
    alphas = {
        kind: torch.randn(14, 8, dtype=torch.float64, requires_grad=True) for kind in ("normal", "reduce")
    }
    rows = [(j, sum(range(2, 2 + j))) for j in range(4)]
    tables = {
        f"{kind}.{j}": alpha[start : start + j + 2].softmax(-1)
        for kind, alpha in alphas.items()
        for j, start in rows
    }
    order = [reference.OPTIONS.index(option) for option in made.decisions[0].options]
    tables = {name: table[:, order] for name, table in tables.items()}
    x, y = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(10, (4,))
    results = []
    for network, logits in (
        (plain, plain(x, alphas["normal"], alphas["reduce"])),
        (supernet, supernet(x, tables)),
    ):
        loss = torch.nn.functional.cross_entropy(logits, y)
        inputs = [*network.parameters(), *alphas.values()]
        results.append([logits, *torch.autograd.grad(loss, inputs, retain_graph=True), *_statistics(network)])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def _statistics(network: torch.nn.Module) -> list[torch.Tensor]:
    return [
        buffer for name, buffer in network.named_buffers() if name.endswith(("running_mean", "running_var"))
    ]
