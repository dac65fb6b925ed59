"""The loss around the weights (Li, Xu, Taylor, Studer, Goldstein, NeurIPS 2018).

L(w + a d + b e) on a grid, for two random directions; each filter of a direction has the norm of the
network's filter (section 4): d_ij <- d_ij / |d_ij| |w_ij|. Biases and the numbers of norms stay where they
are, as in the paper; batch norms keep their running statistics, those of the trained weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.inspection.inspection import INSPECTIONS, Case, Finding
from nas.seeding import derive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Direction = dict[str, Tensor]


def direction(network: nn.Module, *, seed: int) -> Direction:
    """A random direction, filter by filter as long as the weights; zero for parameters of one dimension."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, parameter in network.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        if parameter.dim() < 2:
            found[name] = torch.zeros_like(parameter)
            continue
        length = drawn.flatten(1).norm(dim=1)
        scale = parameter.detach().flatten(1).norm(dim=1) / (length + 1e-10)
        found[name] = drawn * scale.view(-1, *(1,) * (parameter.dim() - 1))
    return found


@torch.no_grad()
def loss_at(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    along: tuple[Direction, Direction],
    at: tuple[float, float],
) -> float:
    """Mean cross-entropy with the weights moved; the network itself is not touched."""
    weights = {
        name: parameter + at[0] * along[0][name] + at[1] * along[1][name]
        for name, parameter in network.named_parameters()
    }
    logits = torch.func.functional_call(network, weights, (images,))
    return float(nn.functional.cross_entropy(logits.float(), labels))


@INSPECTIONS.register("landscape", layer=False, images=True)
def landscape(case: Case, *, points: int = 15, span: float = 1.0, examples: int = 256) -> Finding:
    """The loss around the weights, along two filter-normalised directions (Li et al. 2018)

    `points`: of each side of the grid, an odd number, so that the middle is the network itself. `span`: how
    far it goes, in lengths of the filters. `examples`: training images that the loss is the mean of.
    """
    if points < 3 or points % 2 == 0:
        raise ValueError(f"landscape.points must be an odd number, 3 or more, not {points}")
    if span <= 0 or examples < 1:
        raise ValueError(f"landscape.span and landscape.examples must be above 0, not {span} and {examples}")
    assert case.data is not None
    part = case.data.limited(min(examples, len(case.data.train))).train
    images, labels = next(case.batches(part, batch=len(part)).epoch(0))
    along = tuple(direction(case.network, seed=derive(case.seed, "landscape", i)) for i in range(2))
    steps = np.linspace(-span, span, points).round(9).tolist()
    grid = [
        [loss_at(case.network, images, labels, along=(along[0], along[1]), at=(a, b)) for a in steps]
        for b in steps
    ]
    middle = grid[points // 2][points // 2]
    note = (
        f"Mean loss on {len(part):,} training images; in the middle, at the weights, it is {middle:.3f}. "
        f"Contours at equal ratios. Biases and norms stay, and batch norms keep their running statistics."
    )
    drawn = _picture(steps, grid, title=f"{case.title}: loss around the weights", note=note)
    values = {"steps": steps, "loss": grid, "middle": middle, "examples": len(part)}
    return Finding({"": drawn}, values)


def _picture(steps: list[float], grid: list[list[float]], *, title: str, note: str) -> Figure:
    import textwrap

    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    losses = np.nan_to_num(
        np.asarray(grid), nan=np.nanmax(grid), posinf=np.nanmax(np.where(np.isinf(grid), 0, grid))
    )
    losses = np.maximum(losses, 1e-6)
    levels: Any = np.geomspace(losses.min(), max(losses.max(), losses.min() * 1.01), 14)
    drawn = Figure(figsize=(9.6, 4.6), facecolor="white")
    drawn.text(0.01, 0.985, title, fontsize=10, weight="bold", va="top")
    drawn.text(0.01, 0.015, "\n".join(textwrap.wrap(note, 150)), fontsize=8, color="#444444", va="bottom")
    flat = drawn.add_axes((0.07, 0.17, 0.36, 0.74))
    filled = flat.contourf(steps, steps, losses, levels=levels, cmap="viridis", norm=LogNorm())
    lines = flat.contour(steps, steps, losses, levels=levels, colors="white", linewidths=0.6)
    flat.clabel(lines, list(lines.levels)[::3], fmt="%.3g", fontsize=7)
    flat.plot([0], [0], "+", color="#ff2d55", markersize=10, markeredgewidth=1.6)
    flat.set_xlabel("first direction, in lengths of the filters", fontsize=8)
    flat.set_ylabel("second direction", fontsize=8)
    flat.tick_params(labelsize=8)
    bar = drawn.add_axes((0.44, 0.17, 0.015, 0.74))
    drawn.colorbar(filled, cax=bar, format="%.3g").ax.tick_params(labelsize=7)
    high: Any = drawn.add_axes((0.51, 0.12, 0.42, 0.84), projection="3d")
    x, y = np.meshgrid(steps, steps)
    high.plot_surface(x, y, np.log10(losses), cmap="viridis", linewidth=0.2, edgecolor="#ffffff60")
    high.set_zlabel("log10 of the loss", fontsize=8)
    high.tick_params(labelsize=7)
    high.view_init(elev=32, azim=-58)
    return drawn
