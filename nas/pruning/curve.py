"""Accuracy against size, as a table and as a picture. Matplotlib is imported at use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]
TUNED, CUT = "#4c78a8", "#c8552b"
WHAT = {"structured": "channels", "magnitude": "weights"}
SIZES = {"params": "parameters", "macs": "multiply-adds"}


def table(rows: Rows, kind: str) -> str:
    """The steps in Markdown."""
    head = (
        "step", f"{WHAT.get(kind, 'parts')} gone", "parameters", "multiply-adds",
        "test accuracy after the cut", "after training",
    )  # fmt: skip
    first = rows[0]
    lines = [head, tuple("---" for _ in head)]
    for row in rows:
        sizes = [f"{row[size]:,} ({100 * row[size] / first[size]:.1f} %)" for size in SIZES]
        scores = [f"{100 * row[name]:.2f} %" for name in ("cut_accuracy", "test_accuracy")]
        lines.append((str(row["step"]), f"{100 * row['gone']:.1f} %", *sizes, *scores))
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"# Pruning, {kind}\n\n{body}\n\n{note(kind)}\n"


def note(kind: str) -> str:
    """What the sizes mean."""
    if kind == "magnitude":
        return (
            "Counted are parameters that are not zero and the multiply-adds that they need, which a sparse "
            "kernel would do: the tensors keep their shapes, and a dense kernel does all of them."
        )
    return (
        "Channels are removed: the tensors are smaller, and these are the costs of the network that is left."
    )


def picture(rows: Rows, kind: str) -> Figure:
    """Test accuracy against parameters and against multiply-adds, before and after training."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    drawn = Figure(figsize=(9.0, 3.6), layout="constrained", facecolor="white")
    drawn.suptitle(f"pruning, {kind}", fontsize=10, weight="bold")
    for place, (size, words) in enumerate(SIZES.items(), start=1):
        axes = drawn.add_subplot(1, 2, place)
        x = [row[size] for row in rows]
        tuned, cut = ([100 * row[name] for row in rows] for name in ("test_accuracy", "cut_accuracy"))
        axes.axhline(tuned[0], color="#888888", linewidth=0.8, linestyle="--")
        axes.plot(x, tuned, "o-", color=TUNED, markersize=4, label="after training")
        axes.plot(x[1:], cut[1:], "x:", color=CUT, markersize=5, label="right after the cut")
        for row, at, score in zip(rows, x, tuned, strict=True):
            axes.annotate(
                str(row["step"]),
                (at, score),
                textcoords="offset points",
                xytext=(0, 6),
                fontsize=7,
                ha="center",
            )
        axes.margins(y=0.1)
        axes.set_xscale("log")
        axes.invert_xaxis()
        axes.set_xticks(sorted(set(x)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.set_xlabel(f"{words}{' that are not zero' if kind == 'magnitude' else ''}", fontsize=9)
        axes.set_ylabel("test accuracy, %", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
    return drawn


def short(count: float) -> str:
    """A count in three digits: 75.3 k, 12.2 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f}"
