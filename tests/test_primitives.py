"""Laws of every registered primitive: shapes, gradients, and that the closed form counts what the module
holds.
"""

from __future__ import annotations

import pytest
import torch

from nas.counting import module_cost
from nas.primitives import PRIMITIVES, Tally

C_IN, C_OUT, SIZE = 6, 8, 9
CASES = [(name, stride) for name in PRIMITIVES for stride in PRIMITIVES[name].strides]
FLAT = {"linear"}  # works on (batch, channels)


def build(name: str, stride: int) -> tuple[torch.nn.Module, int]:
    primitive = PRIMITIVES[name]
    c_out = C_IN if primitive.keeps else C_OUT
    return primitive(C_IN, c_out, stride), c_out


@pytest.mark.parametrize(("name", "stride"), CASES)
def test_shape_and_gradient(name: str, stride: int) -> None:
    module, c_out = build(name, stride)
    size = max(SIZE, PRIMITIVES[name].least(stride))
    shape = (2, C_IN) if name in FLAT else (2, C_IN, size, size)
    x = torch.randn(shape, requires_grad=True)
    y = module(x)
    assert y.shape[:2] == (2, c_out)
    tally = Tally(C_IN, size, size)
    PRIMITIVES[name].cost(tally, c_out, stride, True)
    if y.dim() == 4:
        assert y.shape[2:] == (tally.h, tally.w)
    if not y.requires_grad:
        assert name in ("none", "zero")
        return
    (y * torch.randn_like(y)).sum().backward()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0 or "bias" in parameter_name, parameter_name


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("name", "stride"), CASES)
@pytest.mark.parametrize("size", [12, 13])
def test_closed_form_equals_counting(name: str, stride: int, size: int, affine: bool) -> None:
    primitive = PRIMITIVES[name]
    c_out = C_IN if primitive.keeps else C_OUT
    module = primitive(C_IN, c_out, stride, affine)
    tally = Tally(C_IN, size, size)
    primitive.cost(tally, c_out, stride, affine)
    if name in FLAT:
        counted = sum(p.numel() for p in module.parameters())
        assert tally.params == counted
        return
    counted = module_cost(module, input=(C_IN, size, size))
    assert (tally.params, tally.macs) == (counted.params, counted.macs)


@pytest.mark.parametrize("name", list(PRIMITIVES))
def test_what_is_not_declared_is_refused(name: str) -> None:
    primitive = PRIMITIVES[name]
    illegal = max(primitive.strides) + 1
    with pytest.raises(ValueError, match="strides"):
        primitive(C_IN, C_IN, illegal)
    if primitive.keeps:
        with pytest.raises(ValueError, match="conv_1x1"):
            primitive(C_IN, C_IN + 1, primitive.strides[0])
    for stride in primitive.strides:
        least = primitive.least(stride)
        if least > 1:
            with pytest.raises(ValueError, match="pixels"):
                primitive.check(C_IN, C_OUT, stride, least - 1)


@pytest.mark.parametrize("name", list(PRIMITIVES))
def test_every_primitive_says_what_it_is(name: str) -> None:
    assert len(PRIMITIVES.summary(name)) > 5


def test_factorised_reduction_keeps_every_pixel() -> None:
    """Each input pixel reaches the output, for even and odd sizes."""
    module = PRIMITIVES["skip_connect"](3, 4, 2).double().eval()
    for size in (8, 7):
        x = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
        module(x).sum().backward()
        touched = (x.grad != 0).any(1)
        assert touched[0, ::2, ::2].all()
        assert touched[0, 1::2, 1::2].all()
