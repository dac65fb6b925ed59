"""Stages that choose among the blocks of published networks: which block, how many of them and how wide.

Every block of the sets maps any number of channels to any other, at strides 1 and 2. With the defaults (three
stages of one to three blocks, thirteen kinds, three widths) there are 1,601,613 architectures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nas.graph import Builder, Hole, Option, Shape
from nas.search_space.architecture import Architecture
from nas.search_space.decision import Decision
from nas.search_space.operations import operations as named
from nas.search_space.space import SPACES, Count, SearchSpace

LEAST = 4  # channels: an inception module has four paths
LIKE = {  # known points: two blocks of one kind in each stage
    "ResNet-like": "basic_block",
    "bottleneck-like": "bottleneck_block",
    "WRN-like": "wide_block",
    "ResNeXt-like": "resnext_block",
    "SENet-like": "se_basic_block",
    "GoogLeNet-like": "inception",
    "DenseNet-like": "dense_block",
    "SqueezeNet-like": "fire",
    "MobileNetV2-like": "inverted_residual",
    "ShuffleNetV2-like": "shuffle_v2",
    "ConvNeXt-like": "convnext_block",
}


@SPACES.register("blocks", network={"channels": 32}, small={"channels": 8})
def blocks(
    *,
    channels: Count = 16,
    stages: Count = 3,
    depth: Count = 3,
    widths: tuple[float, ...] = (0.5, 1.0, 1.5),
    operations: str | tuple[str, ...] = "blocks",
    layerwise: bool = False,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
) -> SearchSpace:
    """Stages that choose among 13 kinds of blocks, their number and their width; 1,601,613 architectures

    Args:
        channels: of the first stage at width 1.0; they double from stage to stage.
        stages: each begins with stride 2.
        depth: blocks of a stage, at most.
        widths: what a stage may multiply its channels by.
        operations: the blocks to choose from: their names, or a set of them: ``blocks``, ``residual_blocks``,
            ``inception_blocks``, ``mobile_blocks``, ``modern_blocks``.
        layerwise: whether the blocks of a stage are chosen one by one, rather than one kind for all.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.

    Raises ValueError for a set that there is not, and for widths that give equal numbers of channels.
    """
    kinds = named(operations)
    rows = depth if layerwise else 1
    names = [f"stage{stage}" for stage in range(1, stages + 1)]
    wide = [Hole(f"{name}.width", times=channels * 2**stage) for stage, name in enumerate(names)]
    if len(set(map(wide[0].channels, widths))) < len(widths):
        raise ValueError(f"widths {widths} of {channels} channels are not all different: use more channels")
    decisions: list[Decision] = []
    b = Builder(input)
    x = b("stem", "conv_bn_3x3", "input", out=wide[0])  # as wide as the first stage
    for name, width in zip(names, wide, strict=True):
        decisions += [
            Decision(f"{name}.block", kinds, rows=rows, keep=rows),
            Decision(f"{name}.depth", tuple(range(1, depth + 1))),
            Decision(f"{name}.width", widths),
        ]
        states: dict[Option, str] = {}
        for layer in range(depth):
            kind = Hole(f"{name}.block", layer if layerwise else 0)
            x = b(f"{name}.block{layer + 1}", kind, x, out=width, stride=1 if layer else 2)
            states[layer + 1] = x
        x = b.exits(f"{name}.out", f"{name}.depth", states)
    x = b("last", "bn_relu", x)
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes)
    known = {name: _alike(kind, decisions) for name, kind in LIKE.items() if kind in kinds}
    return SearchSpace(tuple(decisions), b.graph(), known=known, rules=(partial(wide_enough, widths=wide),))


def wide_enough(architecture: Architecture, *, widths: Sequence[Hole]) -> str | None:
    """The rule that every stage has a channel for each path of a block. `widths`: those of the stages."""
    for width in widths:
        channels = width.channels(dict(architecture.choices[width.decision])[width.row])
        if channels < LEAST:
            return f"{width.decision} gives {channels} channels, and some blocks need {LEAST}"
    return None


def _alike(kind: str, decisions: Sequence[Decision]) -> str:
    """The literal of two blocks of one kind in each stage, at width 1.0; or what comes nearest to that."""
    groups = []
    for decision in decisions:
        aim = {"block": kind, "depth": 2, "width": 1.0}[decision.name.partition(".")[2]]
        option = aim if aim in decision.options else decision.options[-1]
        groups.append("|" + "|".join(f"{option}~{row}" for row in range(decision.rows)) + "|")
    return "+".join(groups)
