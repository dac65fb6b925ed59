"""Filters as images (Krizhevsky, Sutskever, Hinton 2012, figure 3: the 96 filters of the first layer)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.inspection.canvas import Picture, sheet, signed_range
from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.probe import no_layer

ACROSS = 16


def convolution(network: nn.Module, name: str | None) -> tuple[str, nn.Conv2d]:
    """The first convolution, or the one of that name. Raises ValueError if there is none."""
    convs = {path: module for path, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    if not convs:
        raise ValueError("this network has no convolutions, so no filters to draw")
    if name is None:
        return next(iter(convs.items()))
    if name in convs:
        return name, convs[name]
    within = [path for path in convs if path.startswith(f"{name}.")]
    if within:
        return within[0], convs[within[0]]
    raise ValueError(no_layer(name, convs).replace("layer", "convolution", 1))


def panes(weight: Tensor, count: int) -> list[list[Picture | None]]:
    """Rows of pictures of filters (out, in, height, width), at most `count` of them.

    Three inputs are the colours, grey is zero; otherwise each input is a picture, white is zero, and a filter
    with several is a row.
    """
    values = signed_range(weight.detach().cpu().float().numpy())[:count]
    if values.shape[1] == 3:
        flat = [Picture((each.transpose(1, 2, 0) + 1) / 2, str(i)) for i, each in enumerate(values)]
    elif values.shape[1] == 1:
        flat = [Picture(each[0], str(i), signed=True) for i, each in enumerate(values)]
    else:
        return [[Picture(plane, signed=True) for plane in each[:ACROSS]] for each in values[:ACROSS]]
    return [list(flat[start : start + ACROSS]) for start in range(0, len(flat), ACROSS)]


@INSPECTIONS.register("filters", layer=True, images=False)
def filters(case: Case, *, count: int = 64) -> Finding:
    """The filters of a convolution as images; the first one, if no layer is asked for

    `count`: the most filters that are drawn.
    """
    name, conv = convolution(case.network, case.layer)
    rows = panes(conv.weight, count)
    shape = list(conv.weight.shape)
    several = shape[1] not in (1, 3)
    shown = len(rows) if several else min(count, shape[0])
    size = f"{shape[0]} filters of {shape[1]}x{shape[2]}x{shape[3]} (inputs x rows x columns)"
    zero = "Three inputs are red, green and blue; grey is zero." if shape[1] == 3 else "White is zero."
    each = f"A row is a filter, a column an input (at most {ACROSS})." if several else zero
    note = f"{shown} of {size}; each filter its own scale. {each}" + (f" {zero}" if several else "")
    drawn = sheet(
        rows,
        title=f"{case.title}: filters of {name}",
        note=note,
        labels=[f"filter {i}" for i in range(len(rows))] if several else (),
        side=0.45,
    )
    return Finding({"": drawn}, {"shape": shape}, name)
