"""The size space of NATS-Bench (Dong, Liu, Musial & Gabrys, TPAMI 2021): 32,768 choices of five widths.

The cell is fixed, the best one of the topology space (`nasbench201`) on CIFAR-100. 8:8:8:16:40, number 12 of
the benchmark, has 67,378 parameters and 7,991,696 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas.graph import Builder, Hole, Shape, Value
from nas.search_space.decision import Decision
from nas.search_space.nasbench201 import reduction
from nas.search_space.space import SPACES, Count, SearchSpace

WIDTHS = tuple(range(8, 65, 8))
LAYERS = 5  # cells, but the second and the fourth are residual blocks of stride 2
CELL = (  # for each node after the first, the operation on each node before it
    ("nor_conv_3x3",),
    ("nor_conv_3x3", "nor_conv_3x3"),
    ("skip_connect", "nor_conv_3x3", "nor_conv_3x3"),
)

KNOWN = {
    "smallest": "|8~0|8~1|8~2|8~3|8~4|",
    "largest": "|64~0|64~1|64~2|64~3|64~4|",
    "number-12": "|8~0|8~1|8~2|16~3|40~4|",
}


@SPACES.register("nasbench_sss", small={"classes": 2})
def nasbench_sss(*, classes: Count = 10, input: Shape = (3, 32, 32)) -> SearchSpace:
    """NATS-Bench's size space: five widths of 8 to 64 channels for a fixed cell (Dong et al. 2021)

    Args:
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
    """
    widths = Decision("widths", WIDTHS, rows=LAYERS, keep=LAYERS)
    b = Builder(input)
    x = b("stem", "conv_bn_3x3", "input", out=Hole("widths", 0))
    for layer in range(LAYERS):
        add = reduction if layer % 2 else _cell
        x = add(b, f"layers.{layer}", x, Hole("widths", layer))
    x = b("last", "bn_relu", x)
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes)
    return SearchSpace((widths,), b.graph(), known=KNOWN, read=read)


def _cell(b: Builder, name: str, x: str, width: Hole) -> str:
    states = [x]
    for j, operations in enumerate(CELL, 1):
        edges = [
            b(f"{name}.edge{i}_{j}", op, state, out=width)
            for i, (op, state) in enumerate(zip(operations, states, strict=True))
        ]
        states.append(b(f"{name}.node{j}", "sum", *edges))
    return states[-1]


def read(text: str) -> Mapping[str, Value] | None:
    """Choices from the benchmark's notation: ``64:32:64:64:64``. Raises ValueError if these are not five."""
    parts = text.split(":")
    if len(parts) == 1 or not all(part.strip().isdigit() for part in parts):
        return None
    if len(parts) != LAYERS:
        raise ValueError(f"there are {LAYERS} widths, as in 64:64:64:64:64, not {len(parts)}: {text}")
    return {"widths": tuple((layer, int(part)) for layer, part in enumerate(parts))}
