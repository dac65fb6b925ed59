"""Laws of fusion for operations that are not ours: fused where they are known, and otherwise left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from test_fuse import assert_close
from torch import Tensor, nn

from nas.graph import Hole
from nas.network import Runner
from nas.search_space import Decision
from nas.supernet.elastic import Sliced
from nas.supernet.fuse import Group
from nas.supernet.mixture import Mixture, Weights
from nas.supernet.wide import Places


class Pool(nn.AvgPool2d):
    """A class of one's own."""


def mixture_of(*options: Runner) -> tuple[Group, Mixture]:
    """A mixture of these options, as it is and in a group."""
    decision = Decision("op", tuple(map(str, range(len(options)))))
    entries = [(((Hole("op"), i),), option) for i, option in enumerate(options)]
    mixture = Mixture(entries)
    return Group([mixture], 4, Places([decision]), lambda pick: True), mixture


MADE = {
    "pools that differ": lambda: (nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
    "in place": lambda: (
        nn.Tanh(), nn.Sequential(nn.Tanh(), nn.ReLU(inplace=True)), nn.Sequential(nn.Tanh(), nn.Sigmoid()),
    ),
    "of one's own": lambda: (Pool(3, 1, 1), nn.MaxPool2d(3, 1, 1)),
    "one pixel": lambda: (nn.AdaptiveAvgPool2d(1), nn.Identity()),
    "features": lambda: (nn.Flatten(), nn.Sequential(nn.Identity(), nn.Flatten())),
    "norms": lambda: (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_operations_of_users_are_fused_or_left_alone(name: str) -> None:
    torch.manual_seed(0)
    group, mixture = mixture_of(*(each.double() for each in MADE[name]()))
    options = len(mixture.entries)
    x, table = torch.randn(2, 4, 6, 6, dtype=torch.float64), torch.rand(1, options, dtype=torch.float64)
    plain = mixture(x, weights=Weights({"op": table}))
    (fused,) = group(x, weights=Weights({"op": table}))
    assert_close(plain, fused, name)


class Norm(nn.BatchNorm2d):
    """A class of one's own, which does something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Weighing(nn.Module):
    """Writes into what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        x *= x.mean((2, 3), keepdim=True).sigmoid()
        return x


def row(kernel: int, *between: nn.Module) -> nn.Module:
    """What differs in its last kernel, behind layers that do not."""
    last = nn.Sequential(nn.Conv2d(4, 4, kernel, padding=kernel // 2), nn.BatchNorm2d(4))
    return nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), *between, last)


def twice(kernel: int) -> nn.Module:
    """The same layer in two places."""
    act = nn.SiLU()
    return row(kernel, act, nn.Conv2d(4, 4, 1), act)


PARTS: dict[str, Callable[[int], nn.Module]] = {
    "alike": lambda kernel: row(kernel, nn.SiLU()),
    "twice": twice,
    "in place": lambda kernel: row(kernel, nn.SiLU(inplace=True)),
    "one's own in place": lambda kernel: row(kernel, Weighing()),
    "one's own norm": lambda kernel: row(kernel, Norm(4)),
    "a norm in the widest alone": lambda kernel: row(kernel, nn.BatchNorm2d(4) if kernel == 7 else nn.Tanh()),
    "a layer in the widest alone": lambda kernel: row(kernel, nn.Tanh() if kernel == 7 else Pool(3, 1, 1)),
    "another epsilon": lambda kernel: row(kernel, nn.BatchNorm2d(4, eps=kernel / 10)),
}


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluated"])
@pytest.mark.parametrize("name", PARTS)
def test_parts_of_operations_of_users_are_fused_or_left_alone(name: str, training: bool) -> None:
    """The widest first, so that it is not the last to move statistics."""
    torch.manual_seed(0)
    found = []
    whole = PARTS[name](7).double()
    x, table = torch.randn(4, 4, 6, 6, dtype=torch.float64), torch.rand(1, 3, dtype=torch.float64)
    for fused in (False, True):
        own = copy.deepcopy(whole).train(training)
        narrower = [Sliced(PARTS[name](kernel).to("meta"), own) for kernel in (3, 5)]
        group, mixture = mixture_of(own, *narrower)
        weights = Weights({"op": table})
        output = group(x.clone(), weights=weights)[0] if fused else mixture(x.clone(), weights=weights)
        found.append([output, *torch.autograd.grad(output.square().sum(), list(own.parameters()))])
        found[-1] += [buffer.double() for buffer in own.buffers()]
    for one, other in zip(*found, strict=True):
        assert_close(one, other, name)


def test_sizes_that_differ_are_told() -> None:
    group, mixture = mixture_of(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3))
    for run in (group, mixture):
        with pytest.raises(RuntimeError, match="size of tensor"):
            run(torch.randn(2, 4, 8, 8), weights=Weights({"op": torch.rand(1, 2)}))


def test_a_hook_is_called() -> None:
    layer = nn.Conv2d(4, 4, 1)
    called = []
    layer.register_forward_hook(lambda *arguments: called.append(1))
    group, _ = mixture_of(nn.Sequential(nn.ReLU(), layer), nn.ReLU())
    group(torch.randn(2, 4, 8, 8), weights=Weights({"op": torch.rand(1, 2)}))
    assert called
