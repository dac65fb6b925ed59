"""The sheet of a signal that was led back to the pixels, for each image."""

from __future__ import annotations

from torch import nn

from nas.inspection.backward import Rule, signal
from nas.inspection.canvas import Picture, sheet, signed_range
from nas.inspection.heatmaps import explained, facts, in_rows, labelled
from nas.inspection.inspection import Case, Finding

MAXIMA = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)


def drawn(case: Case, words: str, *, rule: Rule, target: int | None) -> Finding:
    """Images, and below each what comes back to it. One value a pixel: blue and red, else the colours."""
    back, seen = signal(case.network, case.images, rule=rule, layer=case.layer, target=target)
    scaled = signed_range(back.cpu().numpy())  # (n, channels, height, width)
    what = explained(case, seen, case.layer, target)
    coloured = scaled.shape[1] == 3
    pictures = case.pictures()
    rows: list[list[Picture | None]] = []
    for places in in_rows(len(pictures)):
        rows.append([Picture(pictures[i], labelled(case, i)) for i in places])
        rows.append([
            Picture((scaled[i].transpose(1, 2, 0) + 1) / 2, f"→ {what[i]}")
            if coloured
            else Picture(scaled[i].mean(0), f"→ {what[i]}", signed=True)
            for i in places
        ])  # fmt: skip
    shade = "grey" if coloured else "white"
    of = f"the strongest unit of {case.layer}" if case.layer else "the class in the line above"
    note = f"What comes back from {of}; {shade} is zero, each picture its own scale."
    if rule == "deconvnet" and not any(isinstance(m, MAXIMA) for m in case.network.modules()):
        note += " There is no max pooling here, so no switches: of the image hardly anything enters."
    figure = sheet(rows, title=f"{case.title}: {words}", note=note)
    return Finding({"": figure}, {"images": facts(case, seen, what)}, case.layer)
