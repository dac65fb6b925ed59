"""Looking inside networks: maps of evidence, gradients, filters, activations, receptive fields, loss
landscapes.

A kind is one file and one registration in `INSPECTIONS`. Matplotlib and TensorBoard are imported at use.
"""

from nas.inspection import (
    activations,
    cam,
    deconvnet,
    filters,
    gradcam,
    guided,
    landscape,
    receptive_field,
    saliency,
)
from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.probe import Seen, look
from nas.inspection.work import Inspected, inspect, inspect_subject

__all__ = [
    "INSPECTIONS", "Case", "Finding", "Inspected", "Seen", "activations", "cam", "deconvnet", "filters",
    "gradcam", "guided", "inspect", "inspect_subject", "landscape", "look", "receptive_field", "saliency",
]  # fmt: skip
