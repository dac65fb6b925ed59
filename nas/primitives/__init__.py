"""Primitives: the operations of which networks are made, each with its cost in closed form."""

from nas.primitives import (
    attention,
    benchmark,
    cells,
    conv,
    convnext,
    dense,
    gates,
    head,
    inception,
    layers,
    mobile,
    pool,
    regular,
    residual,
    shuffle,
    window,
)  # fmt: skip
from nas.primitives.primitive import PRIMITIVES, Primitive, Tally, primitive, resolve

__all__ = [
    "PRIMITIVES", "Primitive", "Tally", "attention", "benchmark", "cells", "conv", "convnext", "dense",
    "gates", "head", "inception", "layers", "mobile", "pool", "primitive", "regular", "residual",
    "resolve", "shuffle", "window",
]  # fmt: skip
