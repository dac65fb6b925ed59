"""Guided back-propagation (Springenberg, Dosovitskiy, Brox, Riedmiller, ICLR workshop 2015).

At every ReLU the signal passes back where the input was positive, and only if it is positive itself (figure
1).
"""

from __future__ import annotations

from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.reconstruction import drawn


@INSPECTIONS.register("guided", layer=True, images=True)
def guided(case: Case, *, target: int | None = None) -> Finding:
    """What in the image speaks for a class or a unit: guided back-propagation (Springenberg et al. 2015)

    `target`: the class; by default each image's predicted one. With a layer: its strongest unit.
    """
    return drawn(case, "guided back-propagation", rule="guided", target=target)
