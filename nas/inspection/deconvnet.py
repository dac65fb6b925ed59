"""The deconvolutional network (Zeiler & Fergus, ECCV 2014): a unit projected back to the pixels.

Transposed filters, ReLU on the signal, and unpooling that puts a value where the maximum was (section 2.1).
"""

from __future__ import annotations

from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.reconstruction import drawn


@INSPECTIONS.register("deconvnet", layer=True, images=True)
def deconvnet(case: Case, *, target: int | None = None) -> Finding:
    """What a class or a unit looks like in the pixels: the deconvolutional network (Zeiler & Fergus 2014)

    `target`: the class; by default each image's predicted one. With a layer: its strongest unit.
    """
    return drawn(case, "deconvolutional network", rule="deconvnet", target=target)
