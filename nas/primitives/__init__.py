"""Primitives: the operations of which networks are made, each with its cost in closed form."""

from nas.primitives import conv, head, pool
from nas.primitives.primitive import PRIMITIVES, Primitive, Tally, primitive

__all__ = ["PRIMITIVES", "Primitive", "Tally", "conv", "head", "pool", "primitive"]
