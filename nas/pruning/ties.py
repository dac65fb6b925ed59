"""bundles(): which numbers of a network belong to one channel, and must be removed together.

The network is run once on the meta device. Beside every tensor goes one of whole numbers, of the same shape:
the channel that each of its elements belongs to. A convolution makes new channels; a sum makes two channels
one; a concatenation, a transposition or a flattening is done to the numbers too, and so is exact. What ties
channels by their count (a split, attention heads, a norm over channels) fixes them. DepGraph (Fang et al.,
CVPR 2023) finds such groups from a table of layers and their gradients; here they follow from the operations
alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from nas.graph import Shape
from nas.primitives.pool import Zero
from nas.primitives.residual import PaddedShortcut
from nas.pruning.book import FIXED, Book, Bundle, thin

aten = torch.ops.aten
OWNER, NAME = "_channels_of", "_name_of"  # attributes of tensors: whose elements they are; a parameter's name
MOST = 100_000  # elements of a parameter that are followed one by one
COUNTS = {PaddedShortcut: "more", Zero: "c_out"}  # modules that make channels of zeros, as many as they say
SPATIAL = (
    aten.max_pool2d_with_indices.default, aten.avg_pool2d.default, aten._adaptive_avg_pool2d.default,
    aten.reflection_pad2d.default, aten.replication_pad2d.default, aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.vec,
)  # fmt: skip
NORMS = (
    aten.native_batch_norm.default, aten._native_batch_norm_legit.default, aten.cudnn_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
)  # fmt: skip
MEANS = ("mean", "sum", "amax", "amin")
CALM = ("hardswish", "hardsigmoid", "native_dropout", "_to_copy")  # pointwise, though not marked so
MOVES = (
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "clone",
    "alias", "detach", "contiguous", "select", "slice", "split", "split_with_sizes", "unbind", "cat", "stack",
    "repeat", "roll",
)  # fmt: skip
CUTS = ("select", "slice", "split", "split_with_sizes", "unbind", "roll", "repeat")
BLANK = ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_empty", "new_ones")


def _owner(value: Any) -> Tensor | None:
    return getattr(value, OWNER, None)


@torch.no_grad()
def bundles(network: nn.Module, input: Shape) -> list[Bundle]:
    """The removable channels of a network for images (channels, height, width), in the layers' order."""
    shadow = copy.deepcopy(network).to("meta").eval()
    book = Book()
    for name, tensor in [*shadow.named_parameters(), *shadow.named_buffers()]:
        setattr(tensor, NAME, name)
    image = torch.empty(2, *input, device="meta")
    setattr(image, OWNER, torch.zeros((), dtype=torch.int64).expand(image.shape))
    follower = _Follower(book)
    with _counting(shadow, follower), follower, _Linear(follower):
        made = outputs(shadow, image)
    for each in tree_leaves(made):
        if isinstance(each, Tensor) and (owner := _owner(each)) is not None:
            book.fix(owner)
    return book.bundles()


def outputs(network: nn.Module, images: Tensor) -> Any:
    """All that a training needs of a network: its output, and those of auxiliary classifiers."""
    return getattr(network, "outputs", network)(images)


@contextmanager
def _counting(network: nn.Module, follower: _Follower) -> Iterator[None]:
    """Modules that make channels of zeros are followed as a whole."""
    hooks = []
    for name, module in network.named_modules():
        if type(module) in COUNTS:
            hooks.append(module.register_forward_pre_hook(lambda *_: follower.pause(True)))
            hooks.append(
                module.register_forward_hook(lambda m, x, y, name=name: follower.zeros(name, m, x[0], y))
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Linear(TorchFunctionMode):
    """Linear layers, before they are taken apart into products."""

    def __init__(self, follower: _Follower) -> None:
        super().__init__()
        self.follower = follower

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is not nn.functional.linear:
            return func(*args, **given)
        x, weight, bias = (*args, *given.values(), None)[:3]
        self.follower.pause(True)
        result = func(x, weight, bias)
        self.follower.pause(False)
        self.follower.product(x, weight, bias, result, dim=-1)
        return result


class _Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Does to the channels' numbers what each operation does to the tensors."""

    def __init__(self, book: Book) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.book = book
        self.busy = False
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}  # filters' numbers: outputs, inputs
        self.held: set[str] = set()  # parameters that are used in ways that are not known

    def pause(self, busy: bool) -> None:
        self.busy = busy

    def zeros(self, name: str, module: nn.Module, x: Tensor, result: Tensor) -> None:
        """Behind a module that makes channels of zeros, for a PaddedShortcut beside those of x."""
        self.busy = False
        own = self._channels(x, 1) if isinstance(module, PaddedShortcut) else self.book.new(0)
        made = self.book.new(result.shape[1] - len(own))
        self.book.counted.append((name, COUNTS[type(module)], made))
        self._spread(torch.cat([own, made]), result, 1)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        name = func.overloadpacket.__name__
        tensors = [each for each in tree_leaves((args, given)) if isinstance(each, Tensor)]
        if not self.busy and name not in BLANK and any(self._has(each) for each in tensors):
            self._follow(func, name, args, given, tensors, result)
        return result

    def _has(self, value: Any) -> bool:
        return _owner(value) is not None or hasattr(value, NAME)

    def numbers(self, value: Tensor) -> Tensor:
        """The channel of each element; a parameter that is used as it is gets numbers of its own."""
        owner = _owner(value)
        if owner is not None:
            return owner
        name = getattr(value, NAME, None)
        if name is None or name in self.held or name in self.weights or value.numel() > MOST:
            self._hold(value)
            return torch.zeros((), dtype=torch.int64).expand(value.shape)
        if name not in self.book.spread:
            self.book.spread[name] = self.book.new(value.numel()).view(value.shape)
        return self.book.spread[name]

    def _hold(self, value: Tensor) -> None:
        """Whatever belongs to this tensor must stay."""
        name = getattr(value, NAME, None)
        known = [_owner(value), self.book.spread.get(name or "")]
        for numbers in (*known, *self.weights.get(name or "", ())):
            if numbers is not None:
                self.book.fix(numbers)
        if name is not None:
            self.held.add(name)

    def _follow(
        self, func: Any, name: str, args: Any, given: Any, tensors: Sequence[Tensor], result: Any
    ) -> None:
        if func is aten.convolution.default and not args[6]:
            return self.product(args[0], args[1], args[2], result, dim=1, groups=args[8])
        if func in NORMS:
            return self._normed(args, result)
        if func in SPATIAL:
            return self._by_channel(args[0], result)
        if func is aten.constant_pad_nd.default:
            return self._padded(args[0], args[1], result)
        if name in MEANS:
            return self._averaged(args[0], args, result)
        if name in MOVES:
            return self._moved(func, name, args, given, tensors, result)
        if torch.Tag.pointwise in func.tags or name in CALM:
            return self._pointwise(tensors, result)
        for each in tensors:  # an operation that is not known: what went in and what comes out must stay
            self._hold(each)
        return self._give(result, None)

    def _give(self, result: Any, numbers: Tensor | None) -> None:
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                fits = numbers is not None and numbers.shape == each.shape
                blank = torch.zeros((), dtype=torch.int64).expand(each.shape)
                setattr(each, OWNER, numbers if fits else blank)

    def _channels(self, value: Tensor, dim: int) -> Tensor:
        """One number an index of `dim`; fixed where elements of one index belong to several channels."""
        numbers = self.numbers(value)
        lines = thin(numbers, numbers).movedim(dim, 0).flatten(1)
        lines = lines.expand(value.shape[dim], -1) if lines.shape[0] == 1 else lines
        mixed = (lines != lines[:, :1]).any(1)
        if bool(mixed.any()):
            self.book.fix(lines[mixed])
        return torch.where(mixed, FIXED, lines[:, 0])

    def _spread(self, numbers: Tensor, result: Tensor, dim: int) -> None:
        shape = [1] * result.dim()
        shape[dim] = len(numbers)
        self._give(result, numbers.view(shape).expand(result.shape))

    def product(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, result: Tensor, *, dim: int, groups: int = 1
    ) -> None:
        """A convolution or a linear layer: its inputs are those of x, its outputs are new channels."""
        name, book = getattr(weight, NAME, None), self.book
        dim %= x.dim()
        arriving = self._channels(x, dim)
        if (
            name is None or name in self.held or name in book.spread
        ):  # a computed weight, or one used otherwise
            book.fix(arriving)
            for each in (weight, bias):
                if each is not None:
                    self._hold(each)
            return self._give(result, None)
        if name not in self.weights:
            made = book.new(weight.shape[0]), book.new(weight.shape[1])
            self.weights[name] = made
            book.places += [(name, 0, made[0]), (name, 1, made[1])]
        leaving, inward = self.weights[name]
        if groups == 1:
            book.tie(inward, arriving)
        elif weight.shape[1] == 1:  # depthwise: an output belongs to its input
            book.fix(inward)
            book.tie(leaving.view(groups, -1), arriving[:, None])
        else:  # every group loses as many channels as the others: those of one place are one
            book.tie(inward.expand(groups, -1), arriving.view(groups, -1))
            book.tie(leaving.view(groups, -1), leaving.view(groups, -1)[:1])
        if bias is not None:
            book.tie(self.numbers(bias), leaving)
        return self._spread(leaving, result, dim)

    def _normed(self, args: Any, result: Any) -> None:
        channels = self._channels(args[0], 1)
        for each in args[1:5]:
            if isinstance(each, Tensor):
                self.book.tie(self.numbers(each), channels)
        return self._spread(channels, result[0], 1)

    def _by_channel(self, x: Tensor, result: Any) -> None:
        """An operation within channels."""
        out = next(each for each in tree_leaves(result) if isinstance(each, Tensor))
        return self._spread(self._channels(x, -3), out, -3)

    def _padded(self, x: Tensor, amounts: Sequence[int], result: Tensor) -> None:
        """Borders belong to the channel; whole channels of zeros fix the others, whose count they fit."""
        if x.dim() != 4 or any(amounts[4:]):
            self._hold(x)
            return self._give(result, None)
        return self._by_channel(x, result)

    def _averaged(self, x: Tensor, args: Any, result: Tensor) -> None:
        """A mean: over positions a channel stays one; over channels, all of them must stay."""
        numbers = self.numbers(x)
        given = args[1] if len(args) > 1 else None
        dims = list(range(x.dim())) if given is None or given == [] else given
        over = [dim % x.dim() for dim in ([dims] if isinstance(dims, int) else dims)]
        low, high = numbers.amin(over, keepdim=True), numbers.amax(over, keepdim=True)
        if not torch.equal(low, high):
            self.book.fix(numbers[(low != high).expand(numbers.shape)])
        return self._give(result, torch.where(low == high, low, FIXED).reshape(result.shape))

    def _moved(
        self, func: Any, name: str, args: Any, given: Any, tensors: Sequence[Tensor], result: Any
    ) -> None:
        """What only moves numbers is done to those of the channels; a cut through channels fixes them."""
        taken = [self.numbers(each) for each in tensors]
        outs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if name in CUTS and outs[0].shape != tensors[0].shape:
            self._fix_cut(taken[0], args, name)
        if name in ("view", "_unsafe_view", "reshape"):
            self._fix_split(taken[0], tuple(outs[0].shape))
        swapped = tree_map(
            lambda each: self.numbers(each) if isinstance(each, Tensor) else each, (args, given)
        )
        if name in ("view", "_unsafe_view", "reshape"):
            moved = swapped[0][0].reshape(outs[0].shape)
        else:
            moved = func(*swapped[0], **swapped[1])
        for out, numbers in zip(outs, tree_leaves(moved), strict=True):
            self._give(out, numbers)

    def _fix_cut(self, numbers: Tensor, args: Any, name: str) -> None:
        at = 2 if name in ("split", "split_with_sizes") else 1
        dim = args[at] if len(args) > at and isinstance(args[at], int) else 0
        if name in ("roll", "repeat"):
            self.book.fix(numbers)
        elif numbers.stride(dim) != 0 and numbers.shape[dim] > 1:
            line = numbers.movedim(dim, 0)
            if bool((line != line[:1]).any()):
                self.book.fix(numbers)

    def _fix_split(self, numbers: Tensor, shape: tuple[int, ...]) -> None:
        """A dimension along which channels lie must not be split: their count would have to fit."""
        ends, done = {math.prod(shape[:end]) for end in range(len(shape) + 1)}, 1
        for dim, side in enumerate(numbers.shape):
            if any(done < end < done * side for end in ends):
                line = numbers.movedim(dim, 0)
                if bool((line != line[:1]).any()):
                    self.book.fix(numbers)
            done *= side

    def _pointwise(self, tensors: Sequence[Tensor], result: Any) -> None:
        """Where several meet, channels become one. Constants fix them, unless they are the same for all."""
        out = next(each for each in tree_leaves(result) if isinstance(each, Tensor))
        numbers: Tensor | None = None
        for each in tensors:
            if each.numel() > 1 and self._has(each):
                mine = _aligned(self.numbers(each), out)
                numbers = mine if numbers is None else self._met(numbers, mine)
        for each in tensors:
            if numbers is not None and each.numel() > 1 and not self._has(each):
                shape = (*(1,) * (out.dim() - each.dim()), *each.shape)
                if any(side > 1 and _varies(numbers, dim) for dim, side in enumerate(shape)):
                    self.book.fix(numbers)
        self._give(result, None if numbers is None else numbers.expand(out.shape))

    def _met(self, one: Tensor, other: Tensor) -> Tensor:
        """Channels of two tensors of one shape; a side of length 1 is the same for all and ties nothing."""
        lone = [dim for dim in range(one.dim()) if min(one.shape[dim], other.shape[dim]) == 1]
        for narrow, wide in ((one, other), (other, one)):
            stretched = [dim for dim in lone if narrow.shape[dim] < wide.shape[dim]]
            varies = any(_varies(wide, dim) for dim in stretched)
            if varies:  # one number for many channels: it has no channel itself, or its channel stays
                self.book.fix(narrow)
                return wide
        return self.book.tie(one, other)


def _varies(numbers: Tensor, dim: int) -> bool:
    line = numbers.movedim(dim, 0)
    return numbers.stride(dim) != 0 and bool((line != line[:1]).any())


def _aligned(numbers: Tensor, out: Tensor) -> Tensor:
    return numbers.view(*(1,) * (out.dim() - numbers.dim()), *numbers.shape)
