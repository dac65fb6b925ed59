"""Laws of every registered primitive and variant, at every stride and with every attribute it declares:
shapes, gradients, and that the closed form counts what the module holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from nas.counting import module_cost
from nas.primitives import PRIMITIVES, Primitive

C_IN, C_OUT, SIZE = 8, 12, 13


def settings(primitive: Primitive) -> list[dict[str, Any]]:
    """The defaults, then each declared attribute at each of its values."""
    single = [{name: value} for name, values in primitive.attributes.items() for value in values[1:]]
    return [{}, *single]


def in_turn(strides: Sequence[int], place: int, stride: int) -> bool:
    return not place or strides[place % len(strides)] == stride


CASES = [  # quick are the defaults with each stride, and each other setting with one of them in turn
    pytest.param(name, stride, given, marks=() if in_turn(strides, place, stride) else pytest.mark.slow)
    for name in PRIMITIVES
    for strides in [PRIMITIVES[name].strides]
    for place, given in enumerate(settings(PRIMITIVES[name]))
    for stride in strides
]


def shape_in(primitive: Primitive, stride: int, size: int) -> tuple[int, int, int]:
    size = max(size, primitive.least(stride))
    return (C_IN, 1, 1) if primitive.flat else (C_IN, size, size)


def example(primitive: Primitive, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn(2, C_IN) if primitive.flat else torch.randn(2, *shape)


def c_out(primitive: Primitive) -> int:
    return C_IN if primitive.keeps else C_OUT


@pytest.mark.parametrize(("name", "stride", "given"), CASES)
def test_shape_and_gradient(name: str, stride: int, given: dict[str, Any]) -> None:
    primitive = PRIMITIVES[name]
    torch.manual_seed(0)
    module = primitive(C_IN, c_out(primitive), stride, **given)
    shape = shape_in(primitive, stride, SIZE)
    x = example(primitive, shape).requires_grad_()
    y = module(x)
    tally = primitive.tally(*shape, c_out(primitive), stride, **given)
    assert tally.c == c_out(primitive)
    assert y.shape == ((2, tally.c) if y.dim() == 2 else (2, tally.c, tally.h, tally.w))
    assert y.dim() == 4 or (tally.h, tally.w) == (1, 1)
    if not y.requires_grad:
        assert name in ("none", "zero")
        return
    (y * torch.randn_like(y)).sum().backward()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0 or "bias" in parameter_name, parameter_name


@pytest.mark.parametrize(("name", "stride", "given"), CASES)
def test_closed_form_equals_counting(name: str, stride: int, given: dict[str, Any]) -> None:
    primitive = PRIMITIVES[name]
    for affine, size in itertools.product((True, False), (SIZE, SIZE + 1)):
        with torch.device("meta"):
            module = primitive(C_IN, c_out(primitive), stride, affine, **given)
        shape = shape_in(primitive, stride, size)
        tally = primitive.tally(*shape, c_out(primitive), stride, affine, **given)
        if primitive.flat:
            counted = sum(p.numel() for p in module.parameters())
            assert (tally.params, tally.macs) == (counted, C_IN * c_out(primitive))
            continue
        counts = module_cost(module, input=shape)
        found = (tally.params, tally.macs, tally.attention)
        assert found == (counts.params, counts.macs, counts.macs_attention)


@pytest.mark.parametrize("name", list(PRIMITIVES))
def test_what_is_not_declared_is_refused(name: str) -> None:
    primitive = PRIMITIVES[name]
    stride = primitive.strides[0]
    with pytest.raises(ValueError, match="strides"):
        primitive(C_IN, C_IN, max(primitive.strides) + 1)
    with pytest.raises(ValueError, match="attribute 'colour'"):
        primitive(C_IN, C_IN, stride, colour="red")
    if primitive.keeps:
        with pytest.raises(ValueError, match="conv_1x1"):
            primitive(C_IN, C_IN + 1, stride)
    for each in primitive.strides:
        least = primitive.least(each)
        if least > 1:
            with pytest.raises(ValueError, match="pixels"):
                primitive.check(C_IN, c_out(primitive), each, size=least - 1)


@pytest.mark.parametrize("name", list(PRIMITIVES))
def test_every_primitive_says_what_it_is(name: str) -> None:
    assert len(PRIMITIVES.summary(name)) > 5
    primitive = PRIMITIVES[name]
    for attribute, values in primitive.attributes.items():
        assert attribute in primitive.accepts, attribute
        assert values[0] == primitive.accepts[attribute], f"{attribute}: its default comes first"


@pytest.mark.parametrize("name", list(PRIMITIVES))
def test_export(name: str) -> None:
    """torch.export gives a program that computes the same."""
    primitive = PRIMITIVES[name]
    stride = primitive.strides[0]
    module = primitive(C_IN, c_out(primitive), stride).eval()
    x = example(primitive, shape_in(primitive, stride, SIZE))
    with torch.no_grad():
        exported = torch.export.export(module, (x,)).module()(x)
        assert torch.allclose(exported, module(x), atol=1e-5)


def test_factorised_reduction_keeps_every_pixel() -> None:
    """Each input pixel reaches the output, for even and odd sizes."""
    module = PRIMITIVES["skip_connect"](3, 4, 2).double().eval()
    for size in (8, 7):
        x = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
        module(x).sum().backward()
        touched = (x.grad != 0).any(1)
        assert touched[0, ::2, ::2].all()
        assert touched[0, 1::2, 1::2].all()
