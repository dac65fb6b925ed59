"""Laws of compiled kernels: they compute what PyTorch's operations do, derivatives of any order included."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.kernels import build, convolution, mixing
from nas.kernels.convolution import Depthwise, Form, Pointwise
from nas.kernels.mixing import Norm, Term

FORMS: list[Form] = [
    Depthwise(lanes, channels, shared, kernel, stride, dilation * (kernel // 2), dilation)
    for lanes, channels in ((1, 16), (3, 16), (2, 5), (2, 32))
    for shared in (False, True)
    for kernel, stride, dilation in ((3, 1, 1), (5, 1, 2), (3, 2, 1), (5, 2, 2), (7, 1, 1))
]
FORMS += [Pointwise(*each) for each in ((2, 8, 8), (3, 16, 24), (1, 24, 8), (4, 32, 40))]
lacking = build.compiled("mixing") is None and os.environ.get("CI") != "true"
compiler = pytest.mark.skipif(lacking, reason="there is no compiler here")


def images(channels: int, size: int = 9) -> Tensor:
    """Of odd and even sides, or of two even ones."""
    made = torch.randn(3, channels, size, size - 2 + size % 2, dtype=torch.float64)
    return made.to(memory_format=torch.channels_last).requires_grad_()


def assert_same_derivatives(ours: Tensor, theirs: Tensor, of: list[Tensor]) -> None:
    """Values, first derivatives, and the derivatives of a random direction of these."""
    torch.testing.assert_close(ours, theirs)
    along = torch.randn_like(theirs)
    firsts = [torch.autograd.grad(each, of, along, create_graph=True) for each in (ours, theirs)]
    torch.testing.assert_close(*firsts)
    turned = [torch.randn_like(tensor) for tensor in of]
    seconds = [
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(first, turned, strict=True)), of)
        for first in firsts
    ]
    torch.testing.assert_close(*seconds)


def operands(form: Form, size: int = 9) -> tuple[Tensor, Tensor]:
    """x and the weight."""
    read = form.sizes(torch.Size((1, 1, size, size)))["x"][1]
    x = images(read, size)
    return x, torch.randn(form.sizes(x.shape)["w"], dtype=torch.float64, requires_grad=True)


def by_pytorch(x: Tensor, weight: Tensor, form: Form) -> Tensor:
    each = torch.cat([x] * form.lanes, 1) if getattr(form, "shared", False) else x
    steps = {name: getattr(form, name) for name in ("stride", "padding", "dilation") if hasattr(form, name)}
    return F.conv2d(each, weight, groups=each.shape[1] // weight.shape[1], **steps)


either = pytest.mark.parametrize("kernels", [pytest.param(nullcontext, marks=compiler), build.off])


@either
@pytest.mark.parametrize("size", [9, 8])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_convolutions(form: Form, size: int, kernels: Callable[[], AbstractContextManager[None]]) -> None:
    x, weight = operands(form, size)
    with kernels():
        assert convolution.usable(x, weight, form) == (kernels is nullcontext)
        ours = convolution.convolved(x, weight, form)
        theirs = by_pytorch(x, weight, form)
        for of in ([x], [weight], [x, weight]):  # not to be derived again
            found = [torch.autograd.grad(y.square().sum(), of, retain_graph=True) for y in (ours, theirs)]
            torch.testing.assert_close(*found)
        assert_same_derivatives(ours, theirs, [x, weight])


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_convolutions_within_a_compiled_function(backend: str) -> None:
    """Where no library is called."""
    x, weight = operands(form := Depthwise(3, 16, True, 5, 2, 4, 2))
    function = torch.compile(convolution.convolved, backend=backend, fullgraph=True)
    ours, theirs = function(x, weight, form), by_pytorch(x, weight, form)
    found = [torch.autograd.grad(y.square().sum(), [x, weight]) for y in (ours, theirs)]
    torch.testing.assert_close(*found)
    torch.testing.assert_close(function(x.detach(), weight.detach(), form), theirs)


def test_convolutions_without_values() -> None:
    form = Depthwise(3, 16, True, 5, 2, 4, 2)
    x, weight = (each.to("meta") for each in operands(form))
    assert convolution.convolved(x, weight, form).shape == by_pytorch(x, weight, form).shape


@compiler
@pytest.mark.parametrize(
    "form",
    [
        *(Pointwise(*each) for each in ((2, 16, 48), (3, 48, 32), (8, 16, 16))),
        *(Depthwise(*each) for each in ((3, 16, True, 5, 1, 4, 2), (2, 32, False, 3, 2, 1, 1))),
    ],
    ids=str,
)
def test_convolutions_in_single_precision(form: Form) -> None:
    """Of so many pixels that they are summed in parts."""
    exact = operands(form, 33)
    given = [each.detach().float().requires_grad_() for each in exact]
    assert convolution.usable(given[0], given[1], form)
    ours, theirs = convolution.convolved(given[0], given[1], form), by_pytorch(exact[0], exact[1], form)
    along = torch.randn_like(theirs)
    found = [ours, *torch.autograd.grad(ours, given, along.float())]
    for one, other in zip(found, [theirs, *torch.autograd.grad(theirs, exact, along)], strict=True):
        assert (one - other).abs().max() <= 2e-6 * other.abs().max()


@compiler
def test_what_does_not_fit_is_left_to_pytorch() -> None:
    """Other channels, another type, no pixel left, channels that do not come in vectors."""
    form = Pointwise(2, 16, 16)
    x, weight = operands(form)
    assert not convolution.usable(x[:, :16], weight, form)
    assert not convolution.usable(x, weight.float(), form)
    assert not convolution.usable(x, weight[:16], form)
    x, weight = operands(odd := Pointwise(2, 12, 16))
    assert not convolution.usable(x, weight, odd)
    inner = Depthwise(1, 8, False, 5, 1, 0, 1)
    assert not convolution.usable(images(8, 4), torch.ones(8, 1, 5, 5).double(), inner)


@contextmanager
def elsewhere() -> Iterator[None]:
    """By the operations that are taken on GPUs."""
    with build.off(), torch.autocast("cpu"):  # which leaves float64 as it is
        yield


@pytest.mark.parametrize("kernels", [nullcontext, build.off, elsewhere])
def test_sums_of_normalised_values(kernels: Callable[[], AbstractContextManager[None]]) -> None:
    """Wide and shared, normalised or not, several lanes of a term for one target; and without the kernel."""
    channels, targets = 6, 3
    values = [images(4 * channels), images(channels), images(channels), images(channels)]
    lanes = [(0, 1, 2, 0), (2, 1), (0, 1, 2), (1,)]
    norms = [Norm(1e-5), Norm(1e-3), None, None]
    shared = [False, True, True, False]
    weights = [torch.rand(len(each) * channels, dtype=torch.float64, requires_grad=True) for each in lanes]
    terms = [Term(*each) for each in zip(values, weights, lanes, shared, norms, strict=True)]
    total = [torch.zeros_like(values[1]) for _ in range(targets)]
    for x, weight, to, norm, one in zip(values, weights, lanes, norms, shared, strict=True):
        y = x if norm is None else F.batch_norm(x, None, None, None, None, True, 0.0, norm.eps)
        for lane, target in enumerate(to):
            part = y if one else y[:, lane * channels : (lane + 1) * channels]
            total[target] = total[target] + part * weight.view(len(to), channels, 1, 1)[lane]
    with kernels():
        ours = mixing.mixed(terms, targets)
    assert_same_derivatives(ours, torch.cat(total, 1), [*values, *weights])


@either
@pytest.mark.parametrize("momentum", [0.1, 1.0])
def test_statistics_move_as_a_norms(
    momentum: float, kernels: Callable[[], AbstractContextManager[None]]
) -> None:
    x, norm = images(8), torch.nn.BatchNorm2d(8, affine=False, momentum=momentum).double()
    mean, var = (torch.zeros(1, 8).double(), torch.ones(1, 8).double())
    with kernels():
        ours = mixing.rectified(x, Norm(norm.eps, momentum, mean, var))
    assert_same_derivatives(ours, F.relu(norm(x)), [x])
    torch.testing.assert_close(mean[0], norm.running_mean)
    torch.testing.assert_close(var[0], norm.running_var)


def test_statistics_of_another_type_are_refused() -> None:
    """As PyTorch refuses them: a kernel would write beyond their end."""
    x, statistics = images(4).detach(), torch.ones(2, 1, 4)
    norm, weight = Norm(1e-5, 0.1, *statistics), torch.ones(4).double()
    with pytest.raises(RuntimeError):
        mixing.rectified(x, norm)
    with pytest.raises(RuntimeError):
        mixing.mixed([Term(x, weight, (0,), True, norm)], 1)


def test_values_far_from_zero_keep_their_digits() -> None:
    """A mean 10,000 times the deviation, in float32: squares of the values themselves would lose it."""
    x = (images(4).detach() + 1e4).float().contiguous(memory_format=torch.channels_last)
    x[0, :, 0, 0] = 0.0
    norm, zero = Norm(1e-5), torch.ones(4)
    ours = mixing.mixed([Term(x, zero, (0,), True, norm)], 1)
    exact = F.batch_norm(x.double(), None, None, None, None, True, 0.0, norm.eps)
    torch.testing.assert_close(ours.double(), exact, atol=5e-3, rtol=0)


@compiler
def test_threads_do_not_change_bits() -> None:
    form, then = Depthwise(6, 16, True, 5, 1, 4, 2), Pointwise(6, 16, 48)
    (x, first), (_, second) = operands(form, 33), operands(then)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = convolution.convolved(convolution.convolved(x, first, form), second, then)
            z = mixing.mixed([Term(y, torch.ones(288).double(), tuple(range(6)), False, Norm(1e-5))], 6)
            found.append([z, *torch.autograd.grad(z.square().sum(), [x, first, second])])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert torch.equal(one, two)


def test_what_is_no_number_stays_so() -> None:
    for value in (torch.nan, torch.inf):
        x, mean, var = images(4).detach(), torch.zeros(1, 4).double(), torch.ones(1, 4).double()
        x[0, 1, 2, 3] = value
        y = mixing.rectified(x, Norm(1e-5, 0.1, mean, var))
        assert y[:, 1].isnan().all()
        assert not y[:, 0].isnan().any()
        assert var.isnan().tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("name", "setting"), [("NAS_KERNELS", "off"), ("CXX", "no-such-compiler"), ("CXX", "false")]
)
def test_without_a_compiler_there_are_none(name: str, setting: str, tmp_path: Path) -> None:
    """And nobody is troubled with it."""
    code = "from nas.kernels import build; print(build.compiled('mixing'))"
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), name: setting}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("None\n", "", 0)
