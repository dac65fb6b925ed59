"""convolved(): many small convolutions of channels-last tensors at once, by compiled kernels.

PyTorch's gradients of depthwise convolutions with kernels of 5 or with dilation take several times as long as
they have to on CPUs, lanes that share their input would need a copy of it each, and its grouped convolutions
of 1x1 are made for wider groups.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from nas.kernels import build
from nas.kernels.build import TYPES, compiled

LAST = torch.channels_last
WIDEST = 64  # channels of a pointwise lane: PyTorch is as fast with wider ones
Sizes = dict[str, tuple[int, ...]]


class Form(Protocol):
    """Convolutions of one shape, side by side: what a library computes."""

    @property
    def library(self) -> str: ...

    def sizes(self, x: torch.Size) -> Sizes:
        """Of x, of the weight w and of what comes out, y."""
        ...

    def facts(self, sizes: Sizes) -> tuple[int, ...]:
        """The numbers of the library's `Shape`, in its order."""
        ...

    def fits(self, size: int) -> bool:
        """Whether the library computes with channels as these are, in numbers of `size` bytes."""
        ...


class Depthwise(NamedTuple):
    """`lanes` convolutions of `channels` each, a channel at a time."""

    lanes: int
    channels: int
    shared: bool  # whether they read one tensor of `channels`
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def library(self) -> str:
        return "depthwise"

    def sizes(self, x: torch.Size) -> Sizes:
        wide = self.lanes * self.channels
        sides = [
            (side + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1
            for side in x[2:]
        ]
        read = self.channels if self.shared else wide
        weight = (wide, 1, self.kernel, self.kernel)
        return {"x": (x[0], read, *x[2:]), "w": weight, "y": (x[0], wide, *sides)}

    def facts(self, sizes: Sizes) -> tuple[int, ...]:
        """Batch; height and width of x; of y; channels, lanes, shared; kernel, stride, padding, dilation."""
        shape = (sizes["x"][0], *sizes["x"][2:], *sizes["y"][2:], self.channels, self.lanes, self.shared)
        return (*shape, self.kernel, self.stride, self.padding, self.dilation)

    def fits(self, size: int) -> bool:
        return True


class Pointwise(NamedTuple):
    """`lanes` convolutions of 1x1, of `channels` to `out` channels each; none reads those of another."""

    lanes: int
    channels: int
    out: int

    @property
    def library(self) -> str:
        return "pointwise"

    def sizes(self, x: torch.Size) -> Sizes:
        read, wide = self.lanes * self.channels, self.lanes * self.out
        weight = (wide, self.channels, 1, 1)
        return {"x": (x[0], read, *x[2:]), "w": weight, "y": (x[0], wide, *x[2:])}

    def facts(self, sizes: Sizes) -> tuple[int, ...]:
        """Pixels of all images, lanes, channels read, channels written."""
        batch, _, height, width = sizes["x"]
        return batch * height * width, self.lanes, self.channels, self.out

    def fits(self, size: int) -> bool:
        at_once = 64 // size
        return self.channels % at_once == 0 == self.out % at_once and max(self[1:]) <= WIDEST


def usable(x: Tensor, weight: Tensor, form: Form) -> bool:
    """Whether `convolved` computes with these tensors here."""
    if not build.usable(form.library, x) or weight.dtype != x.dtype or not form.fits(x.element_size()):
        return False
    sizes = form.sizes(x.shape)
    return (sizes["x"], sizes["w"]) == (x.shape, weight.shape) and min(sizes["y"]) > 0


def convolved(x: Tensor, weight: Tensor, form: Form) -> Tensor:
    """Convolutions of x (batch, channels, height, width), which hold the channels of all lanes side by side,
    or of one that they share; sizes are those of `form.sizes`. Differentiable any number of times.
    """
    found: Tensor = _Product.apply("y", form, x.shape, x, weight)  # type: ignore[no-untyped-call]
    return found


TENSORS = ("x", "w", "y")
FUNCTIONS = {"y": "forward", "x": "input_gradient", "w": "weight_gradient"}


class _Product(torch.autograd.Function):
    """One of x, w and y, of the two others in that order: y itself, or what x or w get of a gradient of y.

    The sum of y * (w convolved with x) is linear in each of the three; these are its derivatives, and theirs
    are the same again. `size`: of x.
    """

    @staticmethod
    def forward(ctx: Any, wanted: str, form: Form, size: torch.Size, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        ctx.wanted, ctx.form, ctx.size = wanted, form, size
        known = [name for name in TENSORS if name != wanted]
        one, other = (
            t.contiguous(memory_format=torch.contiguous_format if name == "w" else LAST)
            for name, t in zip(known, given, strict=True)
        )
        sizes = form.sizes(size)
        layout = torch.contiguous_format if wanted == "w" else LAST
        found = torch.empty(sizes[wanted], dtype=given[0].dtype, memory_format=layout)
        _call(FUNCTIONS[wanted], form, (one, other, found), sizes)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        known = [name for name in TENSORS if name != ctx.wanted]
        tensors = {**dict(zip(known, ctx.saved_tensors, strict=True)), ctx.wanted: gradient}
        found = []
        for name, needed in zip(known, ctx.needs_input_grad[3:], strict=True):
            others = [tensors[other] for other in TENSORS if other != name]
            product = _Product.apply(name, ctx.form, ctx.size, *others) if needed else None  # type: ignore[no-untyped-call]
            found.append(product)
        return None, None, None, *found


def _call(name: str, form: Form, tensors: tuple[Tensor, Tensor, Tensor], sizes: Sizes) -> None:
    """A function of the library: it fills the last tensor."""
    library = compiled(form.library)
    assert library is not None
    facts = form.facts(sizes)
    shape = (ctypes.c_int64 * len(facts))(*facts)
    pointers = [ctypes.c_void_p(each.data_ptr()) for each in tensors]
    library[f"{name}_{TYPES[tensors[-1].dtype]}"](*pointers, shape, torch.get_num_threads())
