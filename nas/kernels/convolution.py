"""convolved(): many small convolutions of channels-last tensors at once, by compiled kernels where there are
any.

PyTorch's gradients of depthwise convolutions with kernels of 5 or with dilation take several times as long as
they have to on CPUs, lanes that share their input need a copy of it each, and its grouped convolutions of 1x1
are made for wider groups. Without kernels the copies are made again for the gradient instead of being kept,
what a stride leaves out is not read, and on CPUs gradients of dilated convolutions are computed otherwise.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.kernels import build
from nas.kernels.build import TYPES, compiled

LAST = torch.channels_last
WIDEST = 64  # channels of a pointwise lane: PyTorch is as fast with wider ones
TENSORS = ("x", "w", "y")
FUNCTIONS = {"y": "forward", "x": "input_gradient", "w": "weight_gradient"}
Sizes = dict[str, tuple[int, ...]]


class Form(Protocol):
    """Convolutions of one shape, side by side: what a library computes."""

    @property
    def library(self) -> str: ...

    @property
    def lanes(self) -> int: ...

    @property
    def shared(self) -> bool:
        """Whether the lanes read the same channels."""
        ...

    @property
    def stride(self) -> int: ...

    @property
    def padding(self) -> int: ...

    @property
    def dilation(self) -> int: ...

    @property
    def groups(self) -> int:
        """Of the convolution of all lanes."""
        ...

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

    @property
    def groups(self) -> int:
        return self.lanes * self.channels

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


@dataclass(frozen=True)
class Pointwise:
    """`lanes` convolutions of 1x1, of `channels` to `out` channels each; none reads those of another."""

    lanes: int
    channels: int
    out: int
    shared: ClassVar = False
    stride: ClassVar = 1
    padding: ClassVar = 0
    dilation: ClassVar = 1

    @property
    def library(self) -> str:
        return "pointwise"

    @property
    def groups(self) -> int:
        return self.lanes

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
        return self.channels % at_once == 0 == self.out % at_once and max(self.channels, self.out) <= WIDEST


def usable(x: Tensor, weight: Tensor, form: Form) -> bool:
    """Whether a library computes with these tensors here."""
    if not build.usable(form.library, x) or weight.dtype != x.dtype or not form.fits(x.element_size()):
        return False
    sizes = form.sizes(x.shape)
    return (sizes["x"], sizes["w"]) == (x.shape, weight.shape) and min(sizes["y"]) > 0


def convolved(x: Tensor, weight: Tensor, form: Form) -> Tensor:
    """Convolutions of x (batch, channels, height, width), which hold the channels of all lanes side by side,
    or of one that they share; sizes are those of `form.sizes`. Differentiable any number of times.
    """
    device, library = x.device.type, usable(x, weight, form)
    if not library and form.dilation == 1 and (not form.shared or form.lanes == 1):  # nothing to be gained
        return F.conv2d(x, weight, None, form.stride, form.padding, 1, form.groups)
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and not library:
        kind = torch.get_autocast_dtype(device)
        x, weight = (each.to(kind) if each.dtype == torch.float32 else each for each in (x, weight))
    if not library and not (x.requires_grad or weight.requires_grad):  # torch.compile takes no function then
        return _composed("y", form, x.shape, (x, weight))
    found: Tensor = _Product.apply("y", form, x.shape, library, x, weight)  # type: ignore[no-untyped-call]
    return found


class _Product(torch.autograd.Function):
    """One of x, w and y, of the two others in that order: y itself, or what x or w get of a gradient of y.

    The sum of y * (w convolved with x) is linear in each of the three; these are its derivatives, and theirs
    are the same again. `size`: of x. `library`: by one, not by PyTorch's operations.
    """

    @staticmethod
    def forward(ctx: Any, wanted: str, form: Form, size: torch.Size, library: bool, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given)
        ctx.wanted, ctx.form, ctx.size, ctx.library = wanted, form, size, library
        if not library:
            return _composed(wanted, form, size, given)
        known, sizes = [name for name in TENSORS if name != wanted], form.sizes(size)
        one, other = (
            t.contiguous(memory_format=torch.contiguous_format if name == "w" else LAST)
            for name, t in zip(known, given, strict=True)
        )
        layout = torch.contiguous_format if wanted == "w" else LAST
        found = torch.empty(sizes[wanted], dtype=given[0].dtype, memory_format=layout)
        _call(FUNCTIONS[wanted], form, (one, other, found), sizes)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        form, needs, none = ctx.form, ctx.needs_input_grad[4:], (None,) * 4
        if ctx.wanted == "y" and not ctx.library and not torch.is_grad_enabled():
            x, w = ctx.saved_tensors
            return *none, *_gradients(x, w, gradient, form, needs)
        known = [name for name in TENSORS if name != ctx.wanted]
        tensors = {**dict(zip(known, ctx.saved_tensors, strict=True)), ctx.wanted: gradient}
        found = []
        for name, needed in zip(known, needs, strict=True):
            others = [tensors[other] for other in TENSORS if other != name]
            product = _Product.apply(name, form, ctx.size, ctx.library, *others) if needed else None  # type: ignore[no-untyped-call]
            found.append(product)
        return *none, *found


def _call(name: str, form: Form, tensors: tuple[Tensor, Tensor, Tensor], sizes: Sizes) -> None:
    """A function of the library: it fills the last tensor."""
    library = compiled(form.library)
    assert library is not None
    facts = form.facts(sizes)
    shape = (ctypes.c_int64 * len(facts))(*facts)
    pointers = [ctypes.c_void_p(each.data_ptr()) for each in tensors]
    library[f"{name}_{TYPES[tensors[-1].dtype]}"](*pointers, shape, torch.get_num_threads())


def _composed(wanted: str, form: Form, size: torch.Size, given: Sequence[Tensor]) -> Tensor:
    """By PyTorch's own operations."""
    first, second = given
    if wanted == "y":
        _, stride, padding, dilation = _steps(form)
        return F.conv2d(_read(first, form), second, None, stride, padding, dilation, form.groups)
    sizes, needed = form.sizes(size), (wanted == "x", wanted == "w")
    if wanted == "x":
        found = _gradients(second.new_empty(()).expand(sizes["x"]), first, second, form, needed)
    else:
        found = _gradients(first, second.new_empty(sizes["w"]), second, form, needed)
    return cast(Tensor, found[TENSORS.index(wanted)])


def _gradients(
    x: Tensor, w: Tensor, g: Tensor, form: Form, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of x and w; of what is not needed, the shape is read alone."""
    by, stride, padding, dilation = _steps(form)
    read = _read(x, form) if needed[1] else _shape(x, form)
    beyond = dilation * (w.shape[2] - 1) - padding
    if g.device.type == "cpu" and stride == 1 < dilation and beyond >= 0:  # slow in PyTorch
        dx = F.conv2d(g, w.flip(2, 3), None, 1, beyond, dilation, form.groups) if needed[0] else None
        dw = _in_parts(read, w, g, padding, dilation, form.groups) if needed[1] else None
    else:
        dx, dw = _backward(read, w, g, (stride, padding, dilation), form.groups, needed)
    if dx is None:
        return None, dw
    if form.shared:
        first, *others = dx.chunk(form.lanes, 1)
        dx = sum(others, first)  # on CPUs faster than a sum over a dimension
    if by == 1:
        return dx, dw
    whole = torch.zeros_like(x, memory_format=LAST)
    whole[..., ::by, ::by] = dx
    return whole, dw


def _in_parts(x: Tensor, w: Tensor, g: Tensor, padding: int, by: int, groups: int) -> Tensor | None:
    """The gradient of w. Every second row and column, and the others between, are images of their own for a
    dilation of 2, over which the convolution has none; if sides and padding come out even.
    """
    if any(each % by for each in (padding, *x.shape[2:])):
        return _backward(x, w, g, (1, padding, by), groups, (False, True))[1]
    x, g = (torch.cat([each[..., i::by, j::by] for i in range(by) for j in range(by)]) for each in (x, g))
    return _backward(x, w, g, (1, padding // by, 1), groups, (False, True))[1]


def _backward(
    x: Tensor, w: Tensor, g: Tensor, steps: Sequence[int], groups: int, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    pairs, mask = ([each, each] for each in steps), [*needed, False]
    found = torch.ops.aten.convolution_backward(g, x, w, None, *pairs, False, [0, 0], groups, mask)
    return cast(tuple[Tensor | None, Tensor | None], found[:2])


def _steps(form: Form) -> tuple[int, int, int, int]:
    """Which pixels are read: every n-th one; and stride, padding and dilation on these."""
    by = math.gcd(form.stride, form.padding, form.dilation)
    return by, form.stride // by, form.padding // by, form.dilation // by


def _read(x: Tensor, form: Form) -> Tensor:
    """For each lane the pixels that it reads, side by side."""
    by, *_ = _steps(form)
    x = x[..., ::by, ::by]
    if not form.shared or form.lanes == 1:
        return x
    pixels = x.permute(0, 2, 3, 1).unsqueeze(3)
    return pixels.expand(-1, -1, -1, form.lanes, -1).flatten(3).permute(0, 3, 1, 2)


def _shape(x: Tensor, form: Form) -> Tensor:
    """Of the shape of what is read, without its values."""
    by, *_ = _steps(form)
    batch, channels, height, width = x[..., ::by, ::by].shape
    wide = channels * (form.lanes if form.shared else 1)
    size = (batch, wide, height, width)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=LAST)
