"""Elastic ResNets: depth and width of every stage, expansion of every block (Once-for-All, Cai et al. 2020).

ResNet-50 is a point of it: 25,557,032 parameters and 4,089,184,256 multiply-adds, or 3,857,973,248 with the
stride in the first 1x1 convolution (He et al. 2016). The stem, and the shortcut of a block that shrinks, are
those of ResNet; Cai et al. use the three convolutions and the average pooling of ResNet-D in their place.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from nas.graph import Builder, Hole, Shape
from nas.search_space.decision import Decision
from nas.search_space.mobile import rounded
from nas.search_space.space import SPACES, Count, SearchSpace

STAGES = 4
WHOLE = 1.0  # the published width of a stage
MULTIPLE = 8  # of which channels are whole multiples
SHRINKS = 2  # blocks that a stage may have less than the deepest


class Block(NamedTuple):
    """A kind of block: its primitive, channels out of the first stage, options of the expansion, and the one
    that the published networks have.
    """

    op: str
    channels: int
    expansions: tuple[float, ...]
    published: float


BLOCKS = {
    "bottleneck": Block("bottleneck_block", 256, (0.2, 0.25, 0.35), 0.25),
    "basic": Block("basic_block", 64, (0.65, 0.8, 1.0), 1.0),
}
DEPTHS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
KNOWN_SCALE = {name: {"classes": 1000, "input": (3, 224, 224)} for name in DEPTHS}


@SPACES.register("resnet_elastic", small={"width": 0.125})
def resnet_elastic(
    *,
    block: Literal["bottleneck", "basic"] = "bottleneck",
    deepest: tuple[int, int, int, int] = (4, 4, 6, 4),
    width: float = 1.0,
    widths: tuple[float, ...] = (0.65, 0.8, 1.0),
    stem: int | None = None,
    stride_in: Literal["3x3", "1x1"] = "3x3",
    shortcut: Literal["A", "B", "C"] = "B",
    classes: Count = 10,
    input: Shape = (3, 32, 32),
) -> SearchSpace:
    """Elastic ResNet: 3 depths and 3 widths a stage, 3 expansions a block (Once-for-All, Cai et al. 2020)

    Args:
        block: ``bottleneck``, or the ``basic`` block of ResNet-18 and 34.
        deepest: blocks a stage at most; it may have up to two less. (4, 4, 23, 4) has ResNet-101 and
            (4, 8, 36, 4) ResNet-152.
        width: multiplies all channels; they stay multiples of 8.
        widths: the options of a stage's channels, as parts of the published ones.
        stem: channels of the stem, by default `width` times 64.
        stride_in: the convolution of a bottleneck that has the stride: ``3x3`` (v1.5) or ``1x1`` (v1).
        shortcut: ``A`` pads with zeros, ``B`` is a convolution where the shape changes, ``C`` always.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
    """
    form = BLOCKS[block]
    fixed: dict[str, Any] = {
        "shortcut": shortcut,
        **({"stride_in": stride_in} if block == "bottleneck" else {}),
    }
    decisions: list[Decision] = []
    b = Builder(input)
    x = b("stem", "conv_bn", "input", out=stem or rounded(64 * width), stride=2, kernel=7, act="relu")
    x = b("stem_pool", "max_pool_3x3", x, stride=2)
    for stage in range(1, STAGES + 1):
        decisions += _decisions(form, stage, deepest[stage - 1], widths)
        out = Hole(f"stage{stage}.width", times=(form.channels << (stage - 1)) * width, multiple=MULTIPLE)
        x = _stage(b, form, stage, decisions[-3].options, x, {"out": out, **fixed})
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes)
    known = {
        name: _literal(decisions, depths, form.published)
        for name, (kind, depths) in DEPTHS.items()
        if kind == block and _has(decisions, depths)
    }
    return SearchSpace(tuple(decisions), b.graph(), known=known, known_scale=KNOWN_SCALE)


def _decisions(form: Block, stage: int, deepest: int, widths: tuple[float, ...]) -> tuple[Decision, ...]:
    """Depth, width and expansions of one stage."""
    depths = tuple(range(max(1, deepest - SHRINKS), deepest + 1))
    return (
        Decision(f"stage{stage}.depth", depths),
        Decision(f"stage{stage}.width", widths),
        Decision(f"stage{stage}.expansion", form.expansions, rows=deepest, keep=deepest),
    )


def _stage(
    b: Builder, form: Block, stage: int, depths: tuple[Any, ...], x: str, fixed: dict[str, Any]
) -> str:
    name, states = f"stage{stage}", {}
    for row in range(max(depths)):
        expansion = Hole(f"{name}.expansion", row, sliced=True)
        stride = 2 if stage > 1 and row == 0 else 1
        x = b(f"{name}.block{row}", form.op, x, stride=stride, expansion=expansion, **fixed)
        if row + 1 in depths:
            states[row + 1] = x
    return b.exits(name, f"{name}.depth", states)


def _has(decisions: list[Decision], depths: tuple[int, ...]) -> bool:
    found = zip(decisions[::3], decisions[1::3], depths, strict=True)
    return all(depth in d.options and WHOLE in w.options for d, w, depth in found)


def _literal(decisions: list[Decision], depths: tuple[int, ...], expansion: float) -> str:
    groups = []
    for depth, expansions in zip(depths, decisions[2::3], strict=True):
        rows = [expansion if row < depth else expansions.options[0] for row in range(expansions.rows)]
        groups += [f"{depth}~0", f"{WHOLE}~0", "|".join(f"{each}~{row}" for row, each in enumerate(rows))]
    return "+".join(f"|{group}|" for group in groups)
