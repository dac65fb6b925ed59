"""Laws of fusion: over every space, fused and plain mixtures are one function with the same gradients."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from random import Random

import pytest
import torch
from conftest import over
from strategy_helpers import MIXED
from torch import Tensor, nn
from torch.func import functional_call

from nas.search_space import SPACES, SearchSpace, space
from nas.supernet import Supernet
from nas.supernet.norms import still

MOST = {"darts", "nasbench201", "nasnet", "amoebanet", "pnas"}  # nearly all of their operations are known
# All their operations are blocks of classes of their own, or widths alone are decided.
UNFUSED = {"blocks", "resnet_elastic", "shufflenet", "vit", "nasbench_sss"}


def pair(name: str, **settings: int) -> tuple[SearchSpace, Supernet, Supernet]:
    """A space, its plain supernet and the same one fused, after some training."""
    torch.manual_seed(0)
    made = space(name, **(SPACES.facts(name)["small"] if name in SPACES else {}), input=(3, 8, 8))
    plain, fused = (Supernet(made, fuse=fuse, **settings).double() for fuse in (False, True))
    with torch.no_grad():
        for key, tensor in [*plain.named_parameters(), *plain.named_buffers()]:
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "var" in key else tensor.normal_(float("weight" in key), 0.3)
    fused.load_state_dict(plain.state_dict())
    return made, plain, fused


def images() -> Tensor:
    """Channels last: what is dropped out is drawn in the order of memory."""
    return torch.randn(4, 3, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)


def tables_of(made: SearchSpace) -> dict[str, Tensor]:
    torch.manual_seed(1)
    found = {d.name: torch.rand(d.rows, len(d.options), dtype=torch.float64) for d in made.decisions}
    return {name: table.requires_grad_() for name, table in found.items()}


def assert_close(one: Tensor, other: Tensor, what: str, rounding: float = 1e-9) -> None:
    size = max(1.0, float(one.detach().abs().max()))
    assert torch.allclose(one, other, rtol=rounding, atol=rounding * size), what


def assert_same_state(plain: Supernet, fused: Supernet, rounding: float = 1e-9) -> None:
    other = fused.state_dict()
    assert other.keys() == plain.state_dict().keys()
    for key, tensor in plain.state_dict().items():
        assert_close(tensor.double(), other[key].double(), key, rounding)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluated"])
@pytest.mark.parametrize("name", over(MIXED, but=UNFUSED))
def test_fused_equals_plain(
    name: str, training: bool, record_property: Callable[[str, object], None]
) -> None:
    """Outputs, gradients to weights and tables, running statistics; how many operations were fused."""
    made, plain, fused = pair(name)
    tables, x = tables_of(made), images()
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a soft width is no exact sum, fused or not
        for supernet in (plain, fused):
            supernet.train(training)
            torch.manual_seed(2)  # of dropout
            output = supernet(x, tables)
            weights = list(supernet.parameters())
            loss = (output / output.detach().std()).square().mean()
            gradients = torch.autograd.grad(loss, [*weights, *tables.values()], allow_unused=True)
            found.append([output, *gradients])
    named = ["output", *dict(plain.named_parameters()), *tables]
    for what, one, other in zip(named, *found, strict=True):
        assert (one is None) == (other is None), what
        if one is not None and other is not None:
            assert_close(one, other, what)
    assert_same_state(plain, fused)
    fusion = fused.fusion()
    record_property("fused", f"{fusion.fused} of {fusion.operations} operations")
    if name in MOST:
        assert fusion.fused > 0.8 * fusion.operations
    assert (fusion.fused == 0) == (name in UNFUSED)
    fused_of, of = zip((0, 0), *fusion.by_operation(made).values(), strict=True)
    assert (sum(fused_of), sum(of)) == (fusion.fused, fusion.operations)


@pytest.mark.parametrize("partial", [1, 2])
@pytest.mark.parametrize("name", ["nasbench201", "darts", "enas_micro", "mobile"])
def test_fusions_take_turns(name: str, partial: int) -> None:
    """Of all options, of some, of all again: each works on the statistics that the last one left."""
    made, plain, fused = pair(name, partial=partial)
    tables, some = {key: t.detach() for key, t in tables_of(made).items()}, {}
    for d in made.decisions:
        legal = torch.tensor([option not in d.never for option in d.options])
        some[d.name] = torch.rand(d.rows, len(d.options)) < 0.5
        some[d.name][:, legal.int().argmax()] = True
    for given in ((None,), (some,), (some,), (None,), (some,), (some,)):
        x = images()
        outputs = [supernet(x, tables, *given) for supernet in (plain, fused)]
        assert_close(*outputs, "output")
    assert_same_state(plain, fused)


SLICED = """
scale: {channels: 4}
decisions:
  op: [depthwise_separable, conv_bn_relu_3x3]
  kernel: [5, 3, 7]
  expand: [3, 1.5]
  se: [0, 0.5]
nodes:
  - {name: stem, op: conv_bn_relu_3x3, out: channels}
  - {name: first, op: inverted_residual, kernel: $kernel sliced, expand: $expand sliced, se: $se sliced}
  - {name: only, op: depthwise_separable, kernel: $kernel sliced}
  - {op: $op}
  - {op: global_avg_pool}
  - {op: linear, out: classes}
"""


@pytest.fixture(scope="module")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A space of a user's. The options of a node are parts of one operation; those of another begin alike."""
    path = tmp_path_factory.mktemp("spaces") / "sliced.yaml"
    path.write_text(SLICED)
    return str(path)


@pytest.mark.parametrize(
    "name",
    [
        *over(MIXED, but=[*UNFUSED, "mobile"]),
        *(
            pytest.param(f"mobile?skeleton={each}&width=0.1&last=16", marks=pytest.mark.slow)
            for each in ("mobilenet_v3_small", "fbnet_c")
        ),
        "sliced",
    ],
)
def test_fused_trains_as_plain(name: str, sliced: str) -> None:
    """Several steps of the optimizers, of weights and of tables."""
    made, plain, fused = pair(sliced if name == "sliced" else name)
    torch.manual_seed(3)
    classes = made.scale["classes"]
    batches = [(images(), torch.randint(classes, (4,))) for _ in range(3)]
    ends = []
    for supernet in (plain, fused):
        supernet.train()
        torch.manual_seed(2)
        tables = tables_of(made)
        weights = torch.optim.SGD(supernet.parameters(), lr=1e-3, momentum=0.9)
        arch = torch.optim.Adam(tables.values(), lr=1e-3, eps=1e-2)  # of a gradient of 0 the sign is chance
        for x, y in batches:
            for optimizer in (weights, arch):
                optimizer.zero_grad()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    nn.functional.cross_entropy(supernet(x, tables), y).backward()
                optimizer.step()
        ends.append(tables)
    assert_same_state(plain, fused, 1e-7)
    for key, table in ends[0].items():
        assert_close(table, ends[1][key], key, 1e-7)


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_a_part_of_the_channels_is_fused(name: str) -> None:
    made, plain, fused = pair(name, partial=2)
    tables, x = tables_of(made), images()
    assert_close(plain.train()(x, tables), fused.train()(x, tables), "output")
    assert_same_state(plain, fused)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_what_is_not_active_counts_nothing_whatever_its_weight(fused: bool) -> None:
    """Also where `none` alone is active, and another option is run for the shape."""
    made, *both = pair("nasbench201")
    supernet, x = both[fused].eval(), images()
    tables = tables_of(made)
    active = {name: torch.ones_like(table, dtype=torch.bool) for name, table in tables.items()}
    active["node1"][:] = torch.tensor([option == "none" for option in made.decision("node1").options])
    closed = {name: table * active[name] for name, table in tables.items()}
    for _ in range(2):  # fused from the second on
        assert_close(supernet(x, tables, active), supernet(x, closed, active), "output")
    assert_close(supernet(x, tables, active), supernet(x, closed), "output")
    assert not torch.allclose(supernet(x, tables, active), supernet(x, tables))


@pytest.mark.parametrize("name", ["nasbench201", "mobile"])
def test_options_that_are_given_up_are_left_out(name: str) -> None:
    """Also when others are, from one call to the next."""
    made, plain, fused = pair(name)
    tables, x = tables_of(made), images()
    for seed in (0, 0, 0, 1, 0, 0, 2, 2):
        torch.manual_seed(seed)
        active = {name: torch.rand(table.shape) < 0.5 for name, table in tables.items()}
        outputs = [each.train()(x, tables, active) for each in (plain, fused)]
        assert_close(*outputs, "output")
        for each, output in zip((plain, fused), outputs, strict=True):
            each.zero_grad(set_to_none=True)
            output.sum().backward()
        for (key, one), other in zip(plain.named_parameters(), fused.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None), key
    assert_same_state(plain, fused)


def test_statistics_survive_moves_paths_and_checkpoints() -> None:
    made, plain, fused = pair("darts")
    tables, x = tables_of(made), images()
    path = made.sample(Random(0))
    for each in (plain, fused):
        each.train()
        each(x, tables)
        each(x, path)
        each.double().to(memory_format=torch.channels_last)
        each(x, tables)
        each.load_state_dict({key: tensor.clone() for key, tensor in each.state_dict().items()})
        each(x, tables)
    assert_same_state(plain, fused)


def test_options_that_begin_alike_are_computed_together(sliced: str) -> None:
    made, _, fused = pair(sliced)
    counts = fused.fusion().by_operation(made)
    both, alone = ([one for name, one in counts.items() if key in name] for key in ("expand", "separable"))
    assert len(both) == 12
    assert all(together == count > 0 for together, count in both)
    assert all(together == 0 for together, _ in alone)


@pytest.mark.parametrize("name", ["darts", "sliced"])
def test_other_weights_than_the_own_are_the_same(name: str, sliced: str) -> None:
    """Which are no parameters, as those of an unrolled step are not."""
    made, plain, fused = pair(sliced if name == "sliced" else name)
    tables, x = tables_of(made), images()
    found = []
    for supernet in (plain, fused):
        others = {key: 1.1 * weight.detach() for key, weight in supernet.named_parameters()}
        found.append(functional_call(supernet.train(), others, (x, tables)))
    assert_close(*found, "output")
    assert_same_state(plain, fused)


@pytest.mark.parametrize("name", [*over(sorted(MOST)), "sliced"])
def test_second_derivatives_are_the_same(name: str, sliced: str) -> None:
    """Of the tables and of the weights, along a random direction."""
    made, plain, fused = pair(sliced if name == "sliced" else name)
    tables, x = tables_of(made), images()
    found = []
    for supernet in (plain, fused):
        output = supernet.train()(x, tables)
        loss = (output / output.detach().std()).pow(2).mean()
        moved = [*tables.values(), *supernet.parameters()]
        first = torch.autograd.grad(loss, list(tables.values()), create_graph=True)
        torch.manual_seed(4)
        along = sum((gradient * torch.randn_like(gradient)).sum() for gradient in first)
        found.append(torch.autograd.grad(along, moved, allow_unused=True))
    for what, one, other in zip([*tables, *dict(plain.named_parameters())], *found, strict=True):
        assert (one is None) == (other is None), what
        if one is not None and other is not None:
            assert_close(one, other, what, 1e-7)


@pytest.mark.parametrize("name", ["darts", "nasbench201", "mobile"])
def test_looking_moves_no_statistics(name: str) -> None:
    """Neither does the first look, which lays them side by side."""
    made, plain, fused = pair(name)
    for each in (plain, fused):
        with still(each.train()):
            each(images(), tables_of(made))
    before = pair(name)[1]
    assert_same_state(before, plain, 0.0)
    assert_same_state(before, fused, 0.0)


@pytest.mark.parametrize("name", ["nasbench201", "enas_macro", "sliced"])
def test_a_supernet_that_has_run_can_be_pickled(name: str, sliced: str) -> None:
    made, _, fused = pair(sliced if name == "sliced" else name)
    tables, x = tables_of(made), images()
    fused(x, tables)
    expected = fused.eval()(x, tables)
    assert_close(expected, pickle.loads(pickle.dumps(fused))(x, tables), "pickled")
    assert_close(expected, copy.deepcopy(fused)(x, tables), "copied")


@pytest.mark.parametrize("name", ["nasbench201", pytest.param("sliced", marks=pytest.mark.slow)])
def test_a_compiled_step_is_the_same(name: str, sliced: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, gradients to weights and tables, running statistics; with and without inactive options."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    made, plain, _ = pair(sliced if name == "sliced" else name)
    compiled = Supernet(made, compile=True).double()
    compiled.load_state_dict(plain.state_dict())
    tables, x = tables_of(made), images()
    some = {d.name: torch.tensor([[i != 1 for i in range(len(d.options))]] * d.rows) for d in made.decisions}
    for active in (None, some):
        found = []
        for supernet in (plain, compiled):
            for _ in range(2):  # what is active is fused when it was so before
                output = supernet.train()(x, tables, active)
            weights = [*supernet.parameters(), *tables.values()]
            loss = (output / output.detach().std()).square().mean()
            found.append([output, *torch.autograd.grad(loss, weights, allow_unused=True)])
        for what, (one, other) in enumerate(zip(*found, strict=True)):
            absent = torch.zeros(())
            assert_close(absent if one is None else one, absent if other is None else other, str(what))
        assert_same_state(plain, compiled)
    assert_same_state(compiled, pickle.loads(pickle.dumps(compiled)))
