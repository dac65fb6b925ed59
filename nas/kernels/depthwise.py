"""convolved(): many depthwise convolutions of channels-last tensors at once, by a compiled kernel.

PyTorch's gradients of depthwise convolutions with kernels of 5 or with dilation take several times as long as
they have to on CPUs, and lanes that share their input would need a copy of it each.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nas.kernels import build
from nas.kernels.build import TYPES, compiled

LAST = torch.channels_last


class Form(NamedTuple):
    """The convolutions: `lanes` of them, of `channels` each."""

    lanes: int
    channels: int
    shared: bool  # whether they read one tensor of `channels`
    kernel: int
    stride: int
    padding: int
    dilation: int


class _Shape(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in (
            "batch", "height", "width", "out_height", "out_width",
            "channels", "lanes", "shared", "kernel", "stride", "padding", "dilation",
        )
    )  # fmt: skip


def usable(x: Tensor) -> bool:
    """Whether `convolved` computes with such tensors here."""
    return build.usable("depthwise", x)


def convolved(x: Tensor, weight: Tensor, form: Form) -> Tensor:
    """Convolutions of x (batch, channels, h, w), all lanes side by side or one that they share.

    `weight`: (lanes x channels, 1, kernel, kernel). Gives (batch, lanes x channels, ...). Differentiable any
    number of times.
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
        one, other = (t.contiguous() if n == "w" else _last(t) for n, t in zip(known, given, strict=True))
        wide, sides = form.lanes * form.channels, [_out(side, form) for side in size[2:]]
        shapes = {"x": size, "w": (wide, 1, form.kernel, form.kernel), "y": (size[0], wide, *sides)}
        layout = torch.contiguous_format if wanted == "w" else LAST
        found = torch.empty(shapes[wanted], dtype=given[0].dtype, memory_format=layout)
        return _called(FUNCTIONS[wanted], one, other, found, form, size, sides)

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


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=LAST)


def _out(side: int, form: Form) -> int:
    return (side + 2 * form.padding - form.dilation * (form.kernel - 1) - 1) // form.stride + 1


def _called(
    name: str, one: Tensor, other: Tensor, found: Tensor, form: Form, size: torch.Size, sides: list[int]
) -> Tensor:
    """`found`, filled by a function of the library. `size`: of x; `sides`: height and width of y."""
    library = compiled("depthwise")
    assert library is not None
    shape = _Shape(
        size[0], *size[2:], *sides, form.channels, form.lanes, form.shared,
        form.kernel, form.stride, form.padding, form.dilation,
    )  # fmt: skip
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (one, other, found)]
    call = library[f"{name}_{TYPES[found.dtype]}"]
    call(*pointers, ctypes.byref(shape), torch.get_num_threads())
    return found
