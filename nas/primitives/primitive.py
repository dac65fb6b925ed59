"""PRIMITIVES: the operations that nodes name. Each builds a module and knows its cost in closed form.

A primitive is a function ``(c_in, c_out, stride=1, affine=True, **attributes) -> nn.Module`` that maps
(batch, c_in, height, width) to (batch, c_out, ceil(height / stride), ceil(width / stride)) unless it says
otherwise.
It is registered with a cost: a function of a `Tally` and the same arguments that adds up the layers.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from torch import nn

from nas.registry import Registry, unknown

PRIMITIVES: Registry[Primitive] = Registry("primitive")
POSITIONAL = ("c_in", "c_out", "stride", "affine")
NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})


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

    def norm(self, affine: bool, kind: str = "batch") -> Tally:
        """A normalisation of any kind: a scale and a shift a channel if `affine`; ``none`` has neither."""
        self.params += 2 * self.c if affine and kind != "none" else 0
        return self

    def pool(self, stride: int) -> Tally:
        """A pooling with "same" padding."""
        self.h, self.w = -(-self.h // stride), -(-self.w // stride)
        return self

    def linear(self, out: int, bias: bool = True) -> Tally:
        """A linear layer on the channels of every position (after global pooling there is one)."""
        self.params += self.c * out + (out if bias else 0)
        self.macs += self.c * out * self.h * self.w
        self.c = out
        return self

    def products(self, macs: int) -> Tally:
        """Products between activations (attention), counted apart from `macs`."""
        self.attention += macs
        return self

    def branch(self) -> Tally:
        """A tally of the same shape that starts from zero: a parallel path, to be added by `join`."""
        return Tally(self.c, self.h, self.w)

    def join(self, *branches: Tally, out: int | None = None) -> Tally:
        """Add parallel paths; the shape becomes the last one's, with `out` channels (default: the sum)."""
        for branch in branches:
            self.params += branch.params
            self.macs += branch.macs
            self.attention += branch.attention
        self.h, self.w = branches[-1].h, branches[-1].w
        self.c = sum(branch.c for branch in branches) if out is None else out
        return self


Build = Callable[..., nn.Module]
Builder = TypeVar("Builder", bound=Build)
Cost = Callable[..., object]
Rule = Callable[..., str | None]


@dataclass(frozen=True)
class Primitive:
    """A registered operation.

    Attributes:
        name: as registered.
        build: the function that makes the module.
        cost: ``cost(tally, c_out, stride, affine, **attributes)`` adds the layers to the tally; None for a
            module of one's own that has no closed form: it is built and counted.
        strides: the legal ones; empty: any.
        keeps: c_out must equal c_in (pools, for instance).
        pool: a pooling, after which a supernet may normalise.
        flat: works on (batch, channels), behind a global pooling.
        least: the smallest legal height and width, in pixels, for a stride.
        rule: ``rule(c_in, c_out, stride, **attributes)`` says why such numbers are impossible, or None.
        fixed: the attributes that this name fixes (``conv_5x5`` is a convolution with kernel=5).
        attributes: values of each attribute to show and to check the laws on, its default first.
    """

    name: str
    build: Build
    cost: Cost | None
    strides: tuple[int, ...] = (1, 2)
    keeps: bool = False
    pool: bool = False
    flat: bool = False
    least: Callable[[int], int] = lambda stride: 1
    rule: Rule | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        text = (self.build.__doc__ or "").strip()
        fixed = ", ".join(f"{name} {value}" for name, value in self.fixed.items())
        first, _, rest = text.partition("\n")
        return f"{first}: {fixed}\n{rest}" if fixed else text

    @property
    def kind(self) -> str:
        """The kind of operation, for colours and lists: the file it comes from."""
        module = self.build.__module__
        return module.rpartition(".")[2] if module.startswith("nas.primitives.") else "own"

    @property
    def accepts(self) -> Mapping[str, Any]:
        """The attributes beyond `POSITIONAL` that may be given, each with its default."""
        return _attributes(self.build)

    def __call__(
        self, c_in: int, c_out: int, stride: int = 1, affine: bool = True, **attributes: Any
    ) -> nn.Module:
        """Build the module. Raises ValueError for an illegal stride, number of channels or attribute."""
        self.check(c_in, c_out, stride, **attributes)
        given = {**self.fixed, **attributes}
        if self.cost is not None:
            return self.build(c_in, c_out, stride, affine, **given)
        known = inspect.signature(self.build).parameters  # of one's own: it takes what it names
        mine = zip(POSITIONAL, (c_in, c_out, stride, affine), strict=True)
        return self.build(**{name: value for name, value in mine if name in known}, **given)

    def check(
        self, c_in: int, c_out: int, stride: int, *, size: int | None = None, **attributes: Any
    ) -> None:
        """Raises ValueError, with the rule, for arguments outside what the primitive declares.

        `size`: the smaller side of the input, in pixels.
        """
        if self.strides and stride not in self.strides:
            raise ValueError(f"{self.name} has strides {list(self.strides)}, not {stride}")
        if c_in < 1 or c_out < 1:
            raise ValueError(f"{self.name} needs at least one channel in and out, got {c_in} and {c_out}")
        if self.keeps and c_in != c_out:
            raise ValueError(
                f"{self.name} keeps its {c_in} channels: put a conv_1x1 before it to have {c_out}"
            )
        for name, value in attributes.items():
            if name not in self.accepts:
                raise ValueError(f"{self.name}: " + unknown("attribute", name, self.accepts))
            words = _words(self.build).get(name)
            if words and value not in words:
                raise ValueError(f"{self.name}: " + unknown(name, str(value), words))
            if isinstance(self.accepts[name], int | float) and not isinstance(value, int | float):
                raise ValueError(f"{self.name}: {name} is a number, not {value!r}")
        broken = self.rule and self.rule(c_in, c_out, stride, **{**self.fixed, **attributes})
        if broken:
            raise ValueError(f"{self.name}: {broken}")
        if size is not None and size < self.least(stride):
            least = self.least(stride)
            raise ValueError(
                f"{self.name} needs at least {least}x{least} pixels, got {size}: use larger images"
            )

    def tally(
        self, c: int, h: int, w: int, c_out: int, stride: int = 1, affine: bool = True, **attributes: Any
    ) -> Tally:
        """The cost in closed form on an input of (c, h, w), and the shape of the output."""
        assert self.cost is not None
        tally = Tally(c, h, w)
        self.cost(tally, c_out, stride, affine, **{**self.fixed, **attributes})
        return tally


def primitive(
    name: str,
    *aliases: str,
    cost: Cost,
    variants: Mapping[str, Mapping[str, Any]] = NO_ATTRIBUTES,
    **facts: Any,
) -> Callable[[Builder], Builder]:
    """Decorator: register a function under `name` (and `aliases`) with its cost and what it declares.

    `variants`: further names, each with the attributes that it fixes.
    """

    def enter(build: Builder) -> Builder:
        for each in (name, *aliases):
            PRIMITIVES.register(each)(Primitive(each, build, cost, **facts))
        tried = facts.get("attributes", {})
        for each, fixed in variants.items():
            open_to = {key: values for key, values in tried.items() if key not in fixed}
            mine = {**facts, "attributes": open_to}
            PRIMITIVES.register(each)(Primitive(each, build, cost, fixed=fixed, **mine))
        return build

    return enter


def resolve(address: str) -> Primitive:
    """The primitive of that name, or at ``path/to/file.py:name``.

    There it may be a registered function, or any function or nn.Module class that takes some of c_in, c_out,
    stride and affine.

    Raises ValueError, with the nearest match, if there is none.
    """
    return PRIMITIVES[address] if address in PRIMITIVES else _of_file(address)


@cache
def _of_file(address: str) -> Primitive:
    thing: Any = PRIMITIVES.resolve(address)
    if isinstance(thing, Primitive):
        return thing
    for known in PRIMITIVES.values():
        if known.build is thing:
            return known
    if not callable(thing):
        raise ValueError(f"{address} is no function and no class: it cannot build a module")
    required = [
        p.name
        for p in inspect.signature(thing).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    missing = [each for each in required if each not in POSITIONAL]
    if missing:
        raise ValueError(
            f"{address} needs the argument {missing[0]!r}: an operation is built of c_in, c_out, stride and "
            "affine; give every other argument a default"
        )
    return Primitive(address, thing, None, strides=())


@cache
def _attributes(build: Build) -> Mapping[str, Any]:
    parameters = inspect.signature(build).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return {p.name: p.default for p in named if p.name not in POSITIONAL}


@cache
def _words(build: Build) -> Mapping[str, tuple[str, ...]]:
    """The attributes that are one of several words."""
    hints = typing.get_type_hints(build) if inspect.isfunction(build) else {}
    return {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is Literal}
