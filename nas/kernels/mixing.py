"""mixed() and rectified(): normalised tensors in weighted sums, and before a ReLU, by compiled kernels.

With PyTorch's own operations each norm, each product with a weight and each sum writes a tensor that the next
one reads again; here every value is read twice forward, and nothing is kept for the gradient but the values.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack as _modes

from nas.kernels import build
from nas.kernels.build import TYPES, compiled

LAST = torch.channels_last
NARROW = 32  # channels that CPUs spread faster by a convolution, its gradients above all


class Norm(NamedTuple):
    """A batch norm in training, of all lanes of a term, without scale and shift. The running statistics,
    (lanes x channels), are moved.
    """

    eps: float
    momentum: float = 0.0
    mean: Tensor | None = None
    var: Tensor | None = None


class Term(NamedTuple):
    """One tensor of a sum.

    `value`: (batch, lanes x channels, height, width), or (batch, channels, ...) where the lanes share it.
    `weight`: (lanes x channels). `targets`: to which sum each lane goes.
    """

    value: Tensor
    weight: Tensor
    targets: tuple[int, ...]
    shared: bool
    norm: Norm | None


class _CTerm(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "value", "weight", "targets", "mean", "deviation", "running_mean", "running_var",
            "d_value", "d_weight",
        )),
        *((name, ctypes.c_int64) for name in ("lanes", "shared", "normed")),
        *((name, ctypes.c_double) for name in ("momentum", "eps")),
    )  # fmt: skip


class _CSum(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("pixels", "channels", "targets", "terms")),
        ("term", ctypes.POINTER(_CTerm)),
        ("out", ctypes.c_void_p),
    )


def usable(x: Tensor) -> bool:
    """Whether the kernels compute with such images here: more than one pixel, and a process alone."""
    watched = any(getattr(mode, "of_a_group", False) for mode in _modes())  # type: ignore[no-untyped-call]
    return not watched and build.usable("mixing", x) and x.numel() > x.shape[1]


def mixed(terms: Sequence[Term], targets: int) -> Tensor:
    """The sums, (batch, targets x channels, height, width), by the kernel if it computes with these terms.
    Differentiable any number of times.
    """
    if not _fit(terms):
        return _composed(terms, targets)
    values = [term.value.contiguous(memory_format=LAST) for term in terms]
    tensors = values + [term.weight.contiguous() for term in terms]
    found: Tensor = _Mixed.apply([term[2:] for term in terms], targets, *tensors)  # type: ignore[no-untyped-call]
    return found


def rectified(x: Tensor, norm: Norm) -> Tensor:
    """relu(norm(x)) of (batch, channels, height, width), by the kernel if it computes with these."""
    if not (usable(x) and _moved_as(norm, x)):
        return F.relu(_normed(x, norm))
    found: Tensor = _Rectified.apply(x.contiguous(memory_format=LAST), norm)  # type: ignore[no-untyped-call]
    return found


Form = Sequence[tuple[tuple[int, ...], bool, Norm | None]]


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: Form, targets: int, *tensors: Tensor) -> Tensor:
        first, (lanes, shared, _) = tensors[0], form[0]
        channels = first.shape[1] // (1 if shared else len(lanes))
        size = (first.shape[0], targets * channels, *first.shape[2:])
        out = torch.empty(size, dtype=first.dtype, memory_format=LAST)
        kept = _statistics(form, tensors)
        _call("forward", form, tensors, kept, (None,) * len(tensors), out, channels, targets)
        ctx.save_for_backward(*tensors, *kept)
        ctx.form, ctx.targets, ctx.channels = form, targets, channels
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        form, targets, needed = ctx.form, ctx.targets, ctx.needs_input_grad[2:]
        tensors, kept = ctx.saved_tensors[: len(needed)], ctx.saved_tensors[len(needed) :]
        if torch.is_grad_enabled():  # a second derivative is wanted
            found = _differentiable(lambda *own: _composed(_again(form, own), targets), tensors, needed, g)
        else:
            found = [torch.empty_like(t) if need else None for t, need in zip(tensors, needed, strict=True)]
            g = g.contiguous(memory_format=LAST)
            _call("backward", form, tensors, kept, found, g, ctx.channels, targets)
        return None, None, *found


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Norm) -> Tensor:
        form, y = [((0,), False, norm)], torch.empty_like(x)
        kept = _statistics(form, [x])
        _call("rectified", form, (x, x), kept, (None, None), y, x.shape[1], 1)
        ctx.save_for_backward(x, *kept)
        ctx.norm = norm
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None]:
        x, kept = ctx.saved_tensors
        if torch.is_grad_enabled():
            (found,) = _differentiable(lambda own: F.relu(_normed(own, _at_rest(ctx.norm))), (x,), (True,), g)
            return found, None
        dx, form = torch.empty_like(x), [((0,), False, ctx.norm)]
        g = g.contiguous(memory_format=LAST)
        _call("rectified_backward", form, (x, x), (kept,), (dx, None), g, x.shape[1], 1)
        return dx, None


def _statistics(form: Form, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Room for the mean and 1 / deviation of each channel of each value."""
    return [value.new_empty(2, value.shape[1]) for value, _ in zip(tensors, form, strict=False)]


def _call(
    name: str, form: Form, tensors: Sequence[Tensor], kept: Sequence[Tensor],
    gradients: Sequence[Tensor | None], out: Tensor, channels: int, targets: int,
) -> None:  # fmt: skip
    """A function of the library. `tensors`: the values of all terms, then their weights; gradients alike."""
    library = compiled("mixing")
    assert library is not None
    n, held = len(form), []
    terms = (_CTerm * n)()
    for i, (lanes, shared, norm) in enumerate(form):
        held.append(places := (ctypes.c_int64 * len(lanes))(*lanes))
        moved = norm is not None and norm.momentum and norm.mean is not None
        terms[i] = _CTerm(
            tensors[i].data_ptr(),
            tensors[n + i].data_ptr(),
            ctypes.addressof(places),
            *(row.data_ptr() for row in kept[i]),
            *(_address(each) for each in ((norm.mean, norm.var) if norm and moved else (None, None))),
            _address(gradients[i]),
            _address(gradients[n + i]),
            len(lanes),
            shared,
            norm is not None,
            *((norm.momentum, norm.eps) if norm else (0.0, 0.0)),
        )
    value = tensors[0]
    pixels = value.shape[0] * value.shape[2] * value.shape[3]
    whole = _CSum(pixels, channels, targets, n, terms, out.data_ptr())
    library[f"{name}_{TYPES[value.dtype]}"](ctypes.byref(whole), torch.get_num_threads())


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _differentiable(
    again: Callable[..., Tensor], tensors: Sequence[Tensor], needed: Sequence[bool], g: Tensor
) -> list[Tensor | None]:
    """The gradients by PyTorch's own operations, computed again, so that they have gradients themselves."""
    gradients = torch.func.vjp(again, *tensors)[1]
    return [found if need else None for found, need in zip(gradients(g), needed, strict=True)]


def _again(form: Form, tensors: Sequence[Tensor]) -> list[Term]:
    """The terms of a sum that was computed before: their norms have seen the batch."""
    return [
        Term(value, weight, targets, shared, norm and _at_rest(norm))
        for value, weight, (targets, shared, norm) in zip(
            tensors[: len(form)], tensors[len(form) :], form, strict=True
        )
    ]


def _at_rest(norm: Norm) -> Norm:
    return Norm(norm.eps)


def _fit(terms: Sequence[Term]) -> bool:
    """Whether the kernel computes with these terms: of one size and type, a weight for each channel."""
    first = terms[0].value
    return usable(first) and all(
        (term.value.dtype, term.value.device) == (first.dtype, first.device)
        and (term.value.shape[0], *term.value.shape[2:]) == (first.shape[0], *first.shape[2:])
        and term.value.shape[1] * (len(term.targets) if term.shared else 1) == term.weight.numel()
        and _moved_as(term.norm, first)
        for term in terms
    )


def _moved_as(norm: Norm | None, x: Tensor) -> bool:
    """Whether the running statistics that a kernel would write to are of the type of the values."""
    return norm is None or norm.mean is None or norm.mean.dtype == x.dtype


def _composed(terms: Sequence[Term], targets: int) -> Tensor:
    """By PyTorch's own operations; what is wide first, so that sums have the layout of channels-last."""
    total: Tensor | None = None
    for x, weight, lanes, shared, norm in sorted(terms, key=lambda term: term.shared):
        if shared:
            x = x if norm is None else _normed(x, norm)
            total = _spread(x, to_targets(weight, lanes, targets).view(targets, -1), total)
            continue
        y = x * weight.to(x.dtype)[:, None, None] if norm is None else _normed(x, norm, weight)
        y = to_targets(y, lanes, targets, 1)
        total = y if total is None else total + y
    assert total is not None
    return total


def _spread(x: Tensor, scale: Tensor, total: Tensor | None) -> Tensor:
    """What is shared, times the scale (targets, channels) of each target, added to the sums."""
    targets, scale = len(scale), scale.to(x.dtype)
    here = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if here and targets > 1 and x.shape[1] <= NARROW and not torch.compiler.is_compiling():
        y = F.conv2d(x, torch.diag_embed(scale).view(-1, x.shape[1], 1, 1))
        return y if total is None else total + y
    if total is None:
        total = torch.zeros_like(torch.cat([x] * targets, 1))
    whole = total.unflatten(1, (targets, -1))  # type: ignore[no-untyped-call]
    return torch.addcmul(whole, x.unsqueeze(1), scale[..., None, None]).flatten(1, 2)


def _normed(x: Tensor, norm: Norm, weight: Tensor | None = None) -> Tensor:
    """The norm of (batch, channels, height, width), times a weight a channel."""
    mean, var = norm.mean, norm.var
    if mean is None or var is None:
        return F.batch_norm(x, None, None, weight, None, True, 0.0, norm.eps)
    if mean.numel() == x.shape[1]:
        return F.batch_norm(x, mean.view(-1), var.view(-1), weight, None, True, norm.momentum, norm.eps)
    own = mean.new_zeros(2, x.shape[1])  # what the lanes share moves the statistics of each
    y = F.batch_norm(x, own[0], own[1], weight, None, True, 1.0, norm.eps)
    mean.lerp_(own[0], norm.momentum)
    var.lerp_(own[1], norm.momentum)
    return y


def to_targets(y: Tensor, lanes: Sequence[int], targets: int, dim: int = 0) -> Tensor:
    """The channels of all lanes added up by the target of each: lanes x channels -> targets x channels."""
    if tuple(lanes) == tuple(range(targets)):
        return y
    parts = y.unflatten(dim, (len(lanes), -1))  # type: ignore[no-untyped-call]
    size = list(parts.shape)
    size[dim] = targets
    index = torch.tensor(lanes, device=y.device)
    return y.new_zeros(size).index_add(dim, index, parts).flatten(dim, dim + 1)
