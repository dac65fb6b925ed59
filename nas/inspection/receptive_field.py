"""Receptive fields: in closed form, measured, and what of them is used (Luo, Li, Urtasun, Zemel, NeurIPS
2016).

Measured: the extent of the non-zero gradient of a unit in the middle, in a copy whose weights are all
positive, whose activations are left out and whose max pooling is a mean, so that no path is closed or
cancelled. Used: the gradient of the network as it is, mean over images; its size is the square root of the
number of pixels above 1 - 0.9545 of the largest (section 4.1).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.inspection.canvas import HEAT, Box
from nas.inspection.geometry import Field, fields
from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.inspection.probe import is_map, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

USED = 1 - 0.9545
TOGETHER = 32  # images a pass
MEASURED = 40  # lines of the table
ACTIVATIONS = frozenset({
    "relu", "relu_", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "sigmoid_",
    "tanh", "tanh_", "leaky_relu", "elu", "mish", "softplus",
})  # fmt: skip


class Row(NamedTuple):
    """A line of the table: layers one behind the other that see the same, by the first and last name."""

    first: str
    last: str
    field: Field
    measured: Box | None


class _Open(TorchFunctionMode):
    """Every path is open: no activations, no norm of a place, means in place of maxima."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in (*ACTIVATIONS, "layer_norm"):
            return args[0] if args else given["input"]
        if name in ("max_pool2d", "max_pool2d_with_indices") and given.get("dilation", 1) in (1, (1, 1)):
            given.pop("dilation", None), given.pop("return_indices", None)
            return nn.functional.avg_pool2d(*args[:4], **{**given, "count_include_pad": False})
        return func(*args, **given)


def opened(network: nn.Module) -> nn.Module:
    """A copy in float64 with positive weights, each filter's sum about 1, and norms that change nothing."""
    clone = copy.deepcopy(network).double().eval()
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in clone.parameters():
            inputs = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
            values = torch.rand(parameter.shape, dtype=torch.float64, generator=drawn) + 0.5
            parameter.copy_(values / inputs)
        for name, buffer in clone.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.fill_(float(name.endswith("running_var")))
        for name, parameter in clone.named_parameters():
            if parameter.dim() == 1 and name.endswith("bias"):
                parameter.zero_()
    return clone


def extents(network: nn.Module, image: Tensor, names: Sequence[str]) -> dict[str, Box | None]:
    """The rows and columns that the middle unit of each layer depends on in (1, channels, height, width)."""
    x = torch.rand(image.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    x = x.to(image.device).requires_grad_()
    with torch.enable_grad(), _Open():
        seen = look(opened(network), x)
        values = {**seen.values, **dict([seen.last] if seen.last else [])}
        return {name: _extent(values[name], x) for name in names}


def _extent(value: Tensor, x: Tensor) -> Box | None:
    if not value.requires_grad:
        return None
    middle = value[:, :, value.shape[2] // 2, value.shape[3] // 2].sum()
    (slope,) = torch.autograd.grad(middle, x, retain_graph=True, allow_unused=True)
    if slope is None:
        return None
    seen = (slope[0] != 0).any(0)
    rows, columns = seen.any(1).nonzero()[:, 0].tolist(), seen.any(0).nonzero()[:, 0].tolist()
    return Box(rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows else None


def used(network: nn.Module, images: Tensor, name: str) -> Tensor:
    """(height, width): the gradient's size of the middle unit of a layer, mean over images and colours."""
    total = torch.zeros(images.shape[2:], device=images.device)
    for part in images.split(TOGETHER):  # type: ignore[no-untyped-call]
        with torch.enable_grad():
            x = part.detach().clone().requires_grad_()
            seen = look(network, x)
            value = {**seen.values, **dict([seen.last] if seen.last else [])}[name]
            middle = value[:, :, value.shape[2] // 2, value.shape[3] // 2].sum()
            (slope,) = torch.autograd.grad(middle, x, allow_unused=True)
        total += 0 if slope is None else slope.abs().mean(1).sum(0)
    return total / len(images)


def table(network: nn.Module, image: Tensor) -> list[Row]:
    """The layers that have rows and columns; those that see what the one before sees are one line.

    At most `MEASURED` lines are measured, evenly spread, the last one among them; each on its last layer.
    """
    closed = fields(network, tuple(image.shape[1:]))  # type: ignore[arg-type]
    with torch.no_grad():
        seen = look(network, image)
    maps = {**seen.values, **dict([seen.last] if seen.last else [])}
    rows: list[Row] = []
    for name, value in maps.items():
        field = closed.get(name)
        if field is None or not is_map(value, seen.ratio) or field.dims not in ((2, 3), None):
            continue
        if rows and rows[-1].field == field:
            rows[-1] = rows[-1]._replace(last=name)
        else:
            rows.append(Row(name, name, field, None))
    step = -(-len(rows) // MEASURED)
    chosen = [row.last for row in rows[::-1][:: step or 1]]
    measured = extents(network, image, chosen)
    return [row._replace(measured=measured.get(row.last)) for row in rows]


@INSPECTIONS.register("receptive_field", layer=True, images=False)
def receptive_field(case: Case) -> Finding:
    """What each layer sees of the image: in closed form, measured, and what of it is used

    The table has all layers; the picture shows the middle unit of the layer that is asked for, or of the last
    map. Without data, what is used is measured on noise.
    """
    with torch.no_grad():
        name, value = look(case.network, case.images[:1]).map(case.layer)
    rows = table(case.network, case.images[:1])
    of = next((row for row in rows if name in (row.first, row.last)), None)
    closed = fields(case.network, tuple(case.images.shape[1:]))  # type: ignore[arg-type]
    field = closed.get(name) or (of.field if of else None)
    heat = used(case.network, case.images, name).cpu().numpy()
    size = float(np.sqrt((heat > USED * heat.max()).sum())) if heat.max() > 0 else 0.0
    extent = extents(case.network, case.images[:1], [name])[name]
    middle = (value.shape[2] // 2, value.shape[3] // 2)
    box = field.box(*middle, size=heat.shape) if field else None
    drawn = _picture(case, rows, heat, name=name, box=box, measured=extent, size=size)
    values = {
        "layers": [_plain(row) for row in rows],
        "used": round(size, 2),
        "measured": list(extent.sides) if extent else None,
        **({"closed": _numbers(field)} if field else {}),
    }
    return Finding({"": drawn}, values, name, {"": _markdown(case, rows)})


def _numbers(field: Field) -> Mapping[str, Any]:
    if field.sides is None:
        return {"whole": field.whole, "reason": field.reason}
    axes = {"rows": field.sides[0]._asdict(), "columns": field.sides[1]._asdict()}
    return {**axes, "whole": field.whole}


def _plain(row: Row) -> dict[str, Any]:
    measured = list(row.measured.sides) if row.measured else None
    return {"first": row.first, "last": row.last, **_numbers(row.field), "measured": measured}


def _cells(row: Row) -> tuple[str, str, str, str, str]:
    name = row.first if row.first == row.last else f"{row.first} … {row.last}"
    measured = f"{row.measured.sides[0]}x{row.measured.sides[1]}" if row.measured else "–"
    if row.field.sides is None:
        return name, row.field.words, "–", "–", measured
    rows, columns = row.field.sides

    def both(one: int, other: int) -> str:
        return str(one) if one == other else f"{one}, {other}"

    size = f"{rows.size}x{columns.size}" + (" + whole" if row.field.whole else "")
    return name, size, both(rows.stride, columns.stride), both(rows.start, columns.start), measured


def _markdown(case: Case, rows: Sequence[Row]) -> str:
    height, width = case.images.shape[2:]
    head = ("layers", "sees (pixels)", "stride", "first unit starts at", f"measured in {height}x{width}")
    lines = [head, tuple("---" for _ in head), *map(_cells, rows)]
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    words = (
        "Rows x columns in closed form; `+ whole`: through a mean over all places (squeeze-excite, group "
        "norm) the whole image too. Measured: the extent of the non-zero gradient of the middle unit in a "
        "copy with positive weights; the image's border cuts it off. Of long tables some lines are measured."
    )
    return f"# {case.name}: receptive fields\n\n{body}\n\n{words}\n"


def _picture(
    case: Case,
    rows: Sequence[Row],
    heat: Any,
    *,
    name: str,
    box: Box | None,
    measured: Box | None,
    size: float,
) -> Figure:
    import textwrap

    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = Figure(figsize=(9.0, 4.4), facecolor="white")
    drawn.text(0.01, 0.985, f"{case.title}: receptive fields", fontsize=10, weight="bold", va="top")
    left = drawn.add_axes((0.07, 0.2, 0.42, 0.7))
    sizes = [row.field.sides[0].size if row.field.sides else np.nan for row in rows]
    seen = [row.measured.sides[0] if row.measured else np.nan for row in rows]
    marker = "o-" if len(rows) <= MEASURED else "-"
    left.plot(sizes, marker, color="#4c78a8", markersize=3, linewidth=1.2, label="closed form")
    left.plot(seen, "x", color="#c8552b", markersize=5, label="measured, cut off by the border")
    left.axhline(case.images.shape[2], color="#888888", linewidth=0.8, linestyle="--", label="the image")
    left.set_xlabel("layers in their order (lines of the table)", fontsize=8)
    left.set_ylabel("rows that a unit sees, pixels", fontsize=8)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.tick_params(labelsize=8)
    left.grid(alpha=0.3)
    left.legend(fontsize=8, frameon=False)
    right = drawn.add_axes((0.56, 0.2, 0.36, 0.7))
    shown = right.imshow(heat / max(float(heat.max()), 1e-30), cmap=HEAT, vmin=0, vmax=1)
    drawn.colorbar(shown, cax=drawn.add_axes((0.935, 0.2, 0.015, 0.7))).ax.tick_params(labelsize=7)
    right.set_title(f"middle unit of {name}", fontsize=8)
    right.tick_params(labelsize=7)
    _frame(right, box, colour="#2fb5ff", style="-")
    _frame(right, measured, colour="#ffffff", style=":")
    source = f"{len(case.images)} images" if case.data else "noise"
    words = (
        f"Right: size of the gradient, mean over {source}, largest 1; about {size:.0f}x{size:.0f} pixels are "
        f"used (Luo et al. 2016). Blue: closed form; dotted: measured with positive weights."
    )
    drawn.text(0.01, 0.015, "\n".join(textwrap.wrap(words, 150)), fontsize=8, color="#444444", va="bottom")
    return drawn


def _frame(axes: Any, box: Box | None, *, colour: str, style: str) -> None:
    from matplotlib.patches import Rectangle

    if box is not None:
        corner, (rows, columns) = (box.left - 0.5, box.top - 0.5), box.sides
        axes.add_patch(
            Rectangle(corner, columns, rows, fill=False, edgecolor=colour, linestyle=style, linewidth=1.6)
        )
