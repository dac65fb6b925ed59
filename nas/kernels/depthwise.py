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
    found: Tensor = _Forward.apply(x, weight, form)  # type: ignore[no-untyped-call]
    return found


# Each of the three is linear in both of its tensors, and its gradients are the other two.


class _Forward(torch.autograd.Function):
    """y of x and w."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.form = form
        return _y(x, w, form)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        (x, w), (need_x, need_w, _) = ctx.saved_tensors, ctx.needs_input_grad
        dx = _Input.apply(g, w, ctx.form, x.shape) if need_x else None  # type: ignore[no-untyped-call]
        dw = _Weight.apply(x, g, ctx.form) if need_w else None  # type: ignore[no-untyped-call]
        return dx, dw, None


class _Input(torch.autograd.Function):
    """The gradient of x, of those of y and of w."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, w: Tensor, form: Form, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.form = form
        return _dx(g, w, form, shape)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        (g, w), (need_g, need_w, *_) = ctx.saved_tensors, ctx.needs_input_grad
        dg = _Forward.apply(u, w, ctx.form) if need_g else None  # type: ignore[no-untyped-call]
        dw = _Weight.apply(u, g, ctx.form) if need_w else None  # type: ignore[no-untyped-call]
        return dg, dw, None, None


class _Weight(torch.autograd.Function):
    """The gradient of w, of x and of that of y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, form: Form) -> Tensor:
        ctx.save_for_backward(x, g)
        ctx.form = form
        return _dw(x, g, form)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        (x, g), (need_x, need_g, _) = ctx.saved_tensors, ctx.needs_input_grad
        dx = _Input.apply(g, u, ctx.form, x.shape) if need_x else None  # type: ignore[no-untyped-call]
        dg = _Forward.apply(x, u, ctx.form) if need_g else None  # type: ignore[no-untyped-call]
        return dx, dg, None


def _y(x: Tensor, w: Tensor, form: Form) -> Tensor:
    size = [_out(side, form) for side in x.shape[2:]]
    y = torch.empty(x.shape[0], form.lanes * form.channels, *size, dtype=x.dtype, memory_format=LAST)
    return _called("forward", _last(x), w.contiguous(), y, form, x.shape, y.shape)


def _dx(g: Tensor, w: Tensor, form: Form, shape: torch.Size) -> Tensor:
    dx = torch.empty(shape, dtype=g.dtype, memory_format=LAST)
    return _called("input_gradient", _last(g), w.contiguous(), dx, form, shape, g.shape)


def _dw(x: Tensor, g: Tensor, form: Form) -> Tensor:
    dw = x.new_empty(form.lanes * form.channels, 1, form.kernel, form.kernel)
    return _called("weight_gradient", _last(x), _last(g), dw, form, x.shape, g.shape)


def _last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=LAST)


def _out(side: int, form: Form) -> int:
    return (side + 2 * form.padding - form.dilation * (form.kernel - 1) - 1) // form.stride + 1


def _called(
    name: str, one: Tensor, other: Tensor, found: Tensor, form: Form, inside: torch.Size, outside: torch.Size
) -> Tensor:
    """`found`, filled by a function of the library. `inside`, `outside`: the shapes of x and y."""
    library = compiled("depthwise")
    assert library is not None
    shape = _Shape(
        inside[0], *inside[2:], *outside[2:], form.channels, form.lanes, form.shared,
        form.kernel, form.stride, form.padding, form.dilation,
    )  # fmt: skip
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (one, other, found)]
    call = library[f"{name}_{TYPES[found.dtype]}"]
    call(*pointers, ctypes.byref(shape), torch.get_num_threads())
    return found
