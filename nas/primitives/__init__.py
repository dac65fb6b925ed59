"""Primitives: the operations of which networks are made, each with its cost in closed form."""

from nas.primitives import conv, head, layers, pool
from nas.primitives.primitive import PRIMITIVES, Primitive, Tally, primitive, resolve

__all__ = [
    "PRIMITIVES", "Primitive", "Tally", "conv", "head", "layers", "pool", "primitive", "resolve",
]  # fmt: skip
