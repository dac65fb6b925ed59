"""PRIMITIVES: the operations that nodes name. Each builds a module and knows its cost in closed form.

A primitive is a function ``(c_in, c_out, stride=1, affine=True, **attributes) -> nn.Module`` that maps
(batch, c_in, height, width) to (batch, c_out, ceil(height / stride), ceil(width / stride)) unless it says
otherwise.
It is registered with a cost: a function of a `Tally` and the same arguments that adds up the layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from nas.registry import Registry

PRIMITIVES: Registry[Primitive] = Registry("primitive")


class Tally:
    """The cost of a sequence of layers, added up layer by layer; it carries the shape along.

    Attributes: `c`, `h`, `w`: the present shape (channels, height, width). `params`: trainable parameters.
    `macs`: multiply-adds of one forward pass of one example. `attention`: the multiply-adds of products
    between activations, counted apart.
    """

    __slots__ = ("attention", "c", "h", "macs", "params", "w")

    def __init__(self, c: int, h: int, w: int) -> None:
        self.c, self.h, self.w = c, h, w
        self.params = self.macs = self.attention = 0

    def conv(
        self,
        out: int,
        kernel: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> Tally:
        """A convolution with "same" padding: the size becomes ceil(size / stride)."""
        area = kernel * kernel if isinstance(kernel, int) else kernel[0] * kernel[1]
        down, right = (stride, stride) if isinstance(stride, int) else stride
        weights = self.c // groups * area * out
        self.h, self.w = -(-self.h // down), -(-self.w // right)
        self.params += weights + (out if bias else 0)
        self.macs += weights * self.h * self.w
        self.c = out
        return self

    def norm(self, affine: bool) -> Tally:
        """Batch normalisation: a scale and a shift a channel if `affine`."""
        self.params += 2 * self.c if affine else 0
        return self

    def pool(self, stride: int) -> Tally:
        """A pooling with "same" padding."""
        self.h, self.w = -(-self.h // stride), -(-self.w // stride)
        return self

    def linear(self, out: int) -> Tally:
        """A linear layer with bias on the flattened channels."""
        self.params += (self.c + 1) * out
        self.macs += self.c * out
        self.c = out
        return self


Build = Callable[..., nn.Module]
Cost = Callable[..., object]


@dataclass(frozen=True)
class Primitive:
    """A registered operation.

    Attributes:
        name: as registered.
        build: the function that makes the module.
        cost: ``cost(tally, c_out, stride, affine, **attributes)`` adds the layers to the tally.
        strides: the legal ones.
        keeps: c_out must equal c_in (pools, for instance).
        pool: a pooling, after which a supernet may normalise.
        least: the smallest legal height and width, in pixels, for a stride.
    """

    name: str
    build: Build
    cost: Cost
    strides: tuple[int, ...] = (1, 2)
    keeps: bool = False
    pool: bool = False
    least: Callable[[int], int] = lambda stride: 1

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        return self.build.__doc__ or ""

    def __call__(
        self, c_in: int, c_out: int, stride: int = 1, affine: bool = True, **attributes: Any
    ) -> nn.Module:
        """Build the module. Raises ValueError for an illegal stride or number of channels."""
        self.check(c_in, c_out, stride)
        return self.build(c_in, c_out, stride, affine, **attributes)

    def check(self, c_in: int, c_out: int, stride: int, size: int | None = None) -> None:
        """Raises ValueError, with the rule, for arguments outside what the primitive declares.

        `size` in pixels.
        """
        if stride not in self.strides:
            raise ValueError(f"{self.name} has strides {list(self.strides)}, not {stride}")
        if c_in < 1 or c_out < 1:
            raise ValueError(f"{self.name} needs at least one channel in and out, got {c_in} and {c_out}")
        if self.keeps and c_in != c_out:
            raise ValueError(
                f"{self.name} keeps its {c_in} channels: put a conv_1x1 before it to have {c_out}"
            )
        if size is not None and size < self.least(stride):
            least = self.least(stride)
            raise ValueError(
                f"{self.name} needs at least {least}x{least} pixels, got {size}: use larger images"
            )


def primitive(name: str, *aliases: str, cost: Cost, **facts: Any) -> Callable[[Build], Build]:
    """Decorator: register a function under `name` (and `aliases`) with its cost and what it declares."""

    def enter(build: Build) -> Build:
        for each in (name, *aliases):
            PRIMITIVES.register(each)(Primitive(each, build, cost, **facts))
        return build

    return enter
