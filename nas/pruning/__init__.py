"""Trained networks made smaller: single weights to zero, or whole channels removed, with training in between.

A kind is one file and one registration in `PRUNINGS`.
"""

from nas.pruning import magnitude, structured
from nas.pruning.book import Bundle
from nas.pruning.pruning import PRUNINGS, Pruning
from nas.pruning.steps import Plan, prune, read
from nas.pruning.surgery import Surgery
from nas.pruning.ties import bundles

__all__ = [
    "PRUNINGS", "Bundle", "Plan", "Pruning", "Surgery", "bundles", "magnitude", "prune", "read", "structured",
]  # fmt: skip
