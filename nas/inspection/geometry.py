"""fields(): what each layer sees of the image, in closed form.

The sums of Araujo, Norris, Sim (Distill 2019): a layer with kernel k, dilation d, stride s and padding p on a
field of size r, stride j and start a gives r + (k - 1) d j, j s and a - p j. Where paths meet, the field
reaches from the first start to the last end. ResNet-50's last maps see 483 pixels at a stride of 32, as there
(427 in the version that has its strides in the 3x3 convolutions).

The network is run once on the meta device, and every operation passes on what its inputs see. A mean over all
places sees the whole image. What rearranges places (windows, tokens) ends the closed form.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.graph import Shape
from nas.inspection.canvas import Box
from nas.inspection.probe import look

aten = torch.ops.aten
CONVS = (aten.convolution.default,)
POOLS = (aten.max_pool2d_with_indices.default, aten.avg_pool2d.default)
MEANS = (aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.var.correction, aten.max.dim)
PADS = (aten.constant_pad_nd.default, aten.reflection_pad2d.default, aten.replication_pad2d.default)
CONSTANTS = ("zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "empty_like", "new_zeros")
# Every channel or example by itself, position by position, beside the pointwise operations.
PLACEWISE = (
    aten.native_batch_norm.default, aten._native_batch_norm_legit.default, aten.cudnn_batch_norm.default,
    aten._native_batch_norm_legit_no_training.default, aten.clone.default, aten._to_copy.default,
    aten.detach.default, aten.alias.default, aten.repeat.default, aten.native_dropout.default,
    aten.contiguous.default, aten.hardswish.default, aten.hardsigmoid.default,
)  # fmt: skip
WHOLE = (aten.native_group_norm.default,)  # their statistics are those of the whole image
SHAPES = (
    "view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "expand", "select", "unbind", "index_select",
)  # fmt: skip
FIELD = "_seen_field"  # the attribute of a tensor that holds what it sees


class Axis(NamedTuple):
    """Pixels along one side: place i sees `size` of them from `start` + i * `stride`."""

    size: int = 1
    stride: int = 1
    start: int = 0

    def slid(self, kernel: int, stride: int, padding: int, dilation: int) -> Axis:
        """Behind a layer that slides a window."""
        return Axis(
            self.size + (kernel - 1) * dilation * self.stride,
            self.stride * stride,
            self.start - padding * self.stride,
        )

    def met(self, other: Axis) -> Axis:
        """The smallest that holds both; they have one stride."""
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return Axis(end - start, self.stride, start)

    def span(self, place: int, side: int) -> tuple[int, int]:
        """The first pixel that a place sees of an image of `side` pixels, and the one behind the last."""
        first = self.start + place * self.stride
        return max(0, min(first, side)), min(side, max(0, first + self.size))


@dataclass(frozen=True)
class Field:
    """What the places of a tensor see.

    Attributes:
        sides: along rows and along columns; None where places are lost.
        whole: whether every place sees the whole image as well, through a mean over all places.
        dims: which dimensions of the tensor are rows and columns; None behind a mean.
        reason: why there is no closed form; empty if there is one.
        folded: examples, rows and columns, where they are one dimension for the time of a product.
    """

    sides: tuple[Axis, Axis] | None
    whole: bool = False
    dims: tuple[int, int] | None = (2, 3)
    reason: str = ""
    folded: tuple[int, ...] | None = None

    @property
    def words(self) -> str:
        """The field for people."""
        if self.reason:
            return f"no closed form: {self.reason}"
        if self.sides is None:
            return "the whole image"
        local = f"{self.sides[0].size}x{self.sides[1].size} pixels"
        return f"{local}, and through means the whole image" if self.whole else local

    def box(self, row: int, column: int, *, size: Sequence[int], whole: bool = False) -> Box | None:
        """The pixels that one place sees of an image of `size`; None without a closed form.

        `whole`: count what is seen through means, too.
        """
        if self.reason:
            return None
        if self.sides is None or (whole and self.whole):
            return Box(0, 0, size[0], size[1])
        (top, bottom), (left, right) = self.sides[0].span(row, size[0]), self.sides[1].span(column, size[1])
        return Box(top, left, bottom, right)


IMAGE = Field((Axis(), Axis()))
GLOBAL = Field(None, True, None)


def lost(reason: str) -> Field:
    """No closed form."""
    return Field(None, False, None, reason)


@torch.no_grad()
def fields(network: nn.Module, input: Shape) -> dict[str, Field]:
    """What each layer sees of an image (channels, height, width), by its name, in the order of calls."""
    shadow = copy.deepcopy(network).to("meta").eval()
    image = torch.empty(1, *input, device="meta")
    setattr(image, FIELD, IMAGE)
    with _Following():  # type: ignore[no-untyped-call]
        seen = look(shadow, image)
    found = {name: _of(value) for name, value in seen.values.items()}
    if seen.last is not None:
        found[seen.last[0]] = _of(seen.last[1])
    return {name: field for name, field in found.items() if field is not None}


def _of(value: Any) -> Field | None:
    return getattr(value, FIELD, None)


class _Following(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives every result of an operation the field that follows from those of its inputs."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        inputs = [each for each in tensors if _of(each) is not None]
        if inputs and func.overloadpacket.__name__ not in CONSTANTS:
            field = _field(func, args, inputs, result)
            for each in tree_leaves(result):
                if isinstance(each, Tensor):
                    setattr(each, FIELD, field)
        return result


def _field(func: Any, args: Any, inputs: Sequence[Tensor], result: Any) -> Field:
    """The field of what `func` gave for `args`, of which `inputs` have one."""
    first, name = _of(inputs[0]), func.overloadpacket.__name__
    assert first is not None
    broken = next((field.reason for each in inputs if (field := _of(each)) and field.reason), "")
    if broken:
        return lost(broken)
    out = next(each for each in tree_leaves(result) if isinstance(each, Tensor))
    if func in CONVS and args[6]:
        return lost("a transposed convolution")
    if func in CONVS or func in POOLS:
        through = any(field.whole for each in inputs if (field := _of(each)))  # weights that follow the image
        return replace(_slid(func, args, first), whole=through)
    if func in MEANS or name in ("_softmax", "cumsum"):
        return _reduced(args, first, out)
    if func in WHOLE:
        return replace(first, whole=True)
    if func in PADS:
        return _padded(args, first)
    if func is aten.slice.Tensor:
        return _sliced(args, first)
    if torch.Tag.pointwise in func.tags or func in PLACEWISE:
        return _met([(each, _of(each)) for each in inputs], out)
    if name in ("cat", "stack"):
        return _concatenated(name, args, inputs, out)
    return _arranged(name, args, first, out)


def _slid(func: Any, args: Any, before: Field) -> Field:
    if before.sides is None:
        return before
    if before.dims != (2, 3):
        return lost("a convolution on rearranged places")
    if func in CONVS:
        window = (args[1].shape[2:], args[3], args[4], args[5])
    else:
        kernel, stride, padding, dilation = (*args[1:5], *([], 0, 1)[len(args) - 2 :])[:4]
        window = (kernel, stride or kernel, padding, dilation if func is POOLS[0] else 1)
    down, across = zip(*map(_pair, window), strict=True)
    return replace(before, sides=(before.sides[0].slid(*down), before.sides[1].slid(*across)))


def _pair(value: Any) -> tuple[int, int]:
    both = [value, value] if isinstance(value, int) else [*value, *value]
    return int(both[0]), int(both[1])


def _reduced(args: Any, before: Field, out: Tensor) -> Field:
    """A mean or a softmax over some dimensions: over rows or columns it sees all of them."""
    if before.dims is None:
        return before
    rank = args[0].dim()
    over = args[1] if len(args) > 1 else None
    dims = list(range(rank)) if over is None else [over] if isinstance(over, int) else list(over)
    dims = [each % rank for each in dims] or list(range(rank))
    if not set(dims) & set(before.dims):
        if out.dim() == rank:
            return before
        return replace(before, dims=_shifted(before.dims, dims))
    return replace(before, whole=True) if out.shape == args[0].shape else GLOBAL


def _shifted(dims: tuple[int, int], gone: Iterable[int]) -> tuple[int, int]:
    rows, columns = (each - sum(other < each for other in gone) for each in dims)
    return rows, columns


def _padded(args: Any, before: Field) -> Field:
    """Borders shift the start; padding counts from the last dimension."""
    if before.sides is None or before.dims is None:
        return before
    amounts, rank = args[1], args[0].dim()
    added = [amounts[2 * back] if 2 * (back := rank - 1 - dim) < len(amounts) else 0 for dim in before.dims]
    rows, columns = (
        side._replace(start=side.start - more * side.stride)
        for side, more in zip(before.sides, added, strict=True)
    )
    return replace(before, sides=(rows, columns))


def _sliced(args: Any, before: Field) -> Field:
    """Every `step`-th row or column from `start`; other dimensions do not matter."""
    given: list[Any] = [*args[1:], *[0, None, None, 1][len(args) - 1 :]]
    dim, start, step = given[0] % args[0].dim(), given[1], given[3]
    if before.dims is None or dim not in before.dims or before.sides is None:
        return before
    which, begin = before.dims.index(dim), start or 0
    begin = begin + args[0].shape[dim] if begin < 0 else begin
    sides = list(before.sides)
    side = sides[which]
    sides[which] = side._replace(start=side.start + begin * side.stride, stride=side.stride * step)
    return replace(before, sides=(sides[0], sides[1]))


def _met(inputs: Sequence[tuple[Tensor, Field | None]], out: Tensor) -> Field:
    """Where paths meet: the places are those of the inputs that have them."""
    whole, local = False, None
    folded = {field for _, field in inputs if field and field.folded}
    if folded:
        return folded.pop() if len(folded) == 1 else lost("paths meet whose places are folded")
    for tensor, field in inputs:
        assert field is not None
        whole |= field.whole
        if field.sides is None or field.dims is None:
            continue
        dims = (field.dims[0] + out.dim() - tensor.dim(), field.dims[1] + out.dim() - tensor.dim())
        stretched = any(
            tensor.shape[own] != out.shape[new] for own, new in zip(field.dims, dims, strict=True)
        )
        if stretched:  # one place, seen from everywhere
            whole = True
            continue
        here = replace(field, dims=dims)
        local = here if local is None else _joined(local, here)
        if local.reason:
            return local
    return GLOBAL if local is None else replace(local, whole=whole)


def _joined(one: Field, other: Field) -> Field:
    assert one.sides is not None
    assert other.sides is not None
    if one.dims != other.dims:
        return lost("paths meet whose places are arranged differently")
    pairs = list(zip(one.sides, other.sides, strict=True))
    if any(mine.stride != theirs.stride for mine, theirs in pairs):
        return lost("paths of different strides meet")
    rows, columns = (mine.met(theirs) for mine, theirs in pairs)
    return replace(one, sides=(rows, columns))


def _concatenated(name: str, args: Any, inputs: Sequence[Tensor], out: Tensor) -> Field:
    dim = (args[1] if len(args) > 1 else 0) % out.dim()
    found = [(each, field) for each in inputs if (field := _of(each))]
    if name == "stack":
        return _met([(out, _behind(field, dim)) for _, field in found], out)
    if any(field.dims and dim in field.dims for _, field in found):
        return lost("places are put one behind the other")
    return _met(found, out)


def _behind(field: Field, dim: int) -> Field:
    """The same in a tensor that has a new dimension."""
    if field.dims is None:
        return field
    rows, columns = (each + (each >= dim) for each in field.dims)
    return replace(field, dims=(rows, columns))


def _arranged(name: str, args: Any, before: Field, out: Tensor) -> Field:
    """What only moves numbers, as long as rows and columns stay whole; the rest ends the closed form."""
    if before.folded is not None:
        return _unfolded(name, before, out)
    if before.dims is None:
        return before if before.whole else lost(name)
    source, dims = args[0], before.dims
    if name == "permute":
        order = [each % source.dim() for each in args[1]]
        return replace(before, dims=(order.index(dims[0]), order.index(dims[1])))
    if name == "transpose":
        one, other = (each % source.dim() for each in args[1:3])
        swap = {one: other, other: one}
        return replace(before, dims=(swap.get(dims[0], dims[0]), swap.get(dims[1], dims[1])))
    if name == "avg_pool3d" and tuple(args[1])[1:] == (1, 1):  # over channels alone
        return before
    if name in ("split", "split_with_sizes", "native_layer_norm", "copy_"):
        return before
    if name in SHAPES:
        return _viewed(source, before, out)
    if name == "_adaptive_avg_pool2d":
        return _adapted(source, before, out)
    return lost(f"{name} mixes places")


def _unfolded(name: str, before: Field, out: Tensor) -> Field:
    """Behind examples and places that are one dimension: a product keeps them so, a new shape parts them."""
    if name in ("mm", "addmm"):
        return before
    if name in SHAPES and before.folded is not None and tuple(out.shape[:-1]) == before.folded:
        return replace(before, dims=(1, 2), folded=None)
    return lost(f"{name} mixes places")


def _adapted(source: Tensor, before: Field, out: Tensor) -> Field:
    sizes = [(source.shape[each], out.shape[each]) for each in (-2, -1)]
    if all(made == 1 for _, made in sizes):
        return GLOBAL
    if any(given % made for given, made in sizes) or before.sides is None:
        return lost("adaptive pooling with windows of several sizes")
    rows, columns = (
        side.slid(given // made, given // made, 0, 1)
        for side, (given, made) in zip(before.sides, sizes, strict=True)
    )
    return replace(before, sides=(rows, columns))


def _viewed(source: Tensor, before: Field, out: Tensor) -> Field:
    """A new shape: rows and columns are found again by their place in memory, or are flattened away."""
    assert before.dims is not None
    found = []
    for dim in before.dims:
        behind = source.shape[dim + 1 :].numel()
        places = [
            at
            for at in range(out.dim())
            if out.shape[at] == source.shape[dim] and out.shape[at + 1 :].numel() == behind
        ]
        found.append(places[-1] if places else None)
    rows, columns = found
    if rows is not None and columns is not None and rows != columns:
        return replace(before, dims=(rows, columns))
    if before.dims == (1, 2) and out.shape == (source.shape[:3].numel(), source.shape[3:].numel()):
        return replace(before, dims=None, folded=tuple(source.shape[:3]))
    if out.dim() == 2 and len(out) == len(source):
        return GLOBAL  # the classifier behind a flattened map sees all of its places
    return lost("places are regrouped")
