"""Single Path One-Shot: ShuffleNet units whose kernel is chosen layer by layer (Guo et al. 2020).

With the 3x3 unit everywhere, the skeleton of ShuffleNetV2 (Ma et al. 2018) gives its networks: at width 1
2,278,604 parameters and 144,907,992 multiply-adds, or 2,278,760 and 145,814,296 in the authors' form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nas.graph import Builder, Hole, Shape
from nas.search_space.decision import Decision
from nas.search_space.mobile import rounded
from nas.search_space.space import SPACES, Count, SearchSpace

CHOICES = ("shuffle_v2_3x3", "shuffle_v2_5x5", "shuffle_v2_7x7", "shuffle_xception")
MULTIPLE = 4  # of the channels, which are halved and interleaved


@dataclass(frozen=True)
class Skeleton:
    """What is not searched, at width 1: units a stage, channels of the stages, of the stem, before the
    classifier; whether a max pooling follows the stem.
    """

    units: tuple[int, ...]
    widths: tuple[int, ...]
    stem: int
    pooled: bool
    last: int = 1024


SKELETONS = {
    "spos": Skeleton((4, 4, 8, 4), (64, 160, 320, 640), stem=16, pooled=False),
    "shufflenet_v2": Skeleton((4, 8, 4), (116, 232, 464), stem=24, pooled=True),
}
# Ma et al. 2018, table 5: width -> channels of the first stage, which double, and before the classifier
PUBLISHED_WIDTHS = {0.5: (48, 1024), 1.0: (116, 1024), 1.5: (176, 1024), 2.0: (244, 2048)}

KNOWN: Mapping[str, Mapping[str, str]] = {
    # the index of the choice in each layer
    "spos": {"SPOS": "00311100202110202132", "all-3x3": "0" * 20},
    "shufflenet_v2": {"shufflenet_v2": "0" * 16},
}
IMAGENET = {"classes": 1000, "input": (3, 224, 224)}
KNOWN_SCALE = {
    "SPOS": IMAGENET,
    "shufflenet_v2": {**IMAGENET, "downsample": "halves", "head_bias": True},
}


@SPACES.register("shufflenet", small={"width": 0.125, "last": 16})
def shufflenet(
    *,
    skeleton: Literal["spos", "shufflenet_v2"] = "spos",
    width: float = 1.0,
    last: int | None = None,
    downsample: Literal["halves", "authors"] = "authors",
    head_bias: bool = False,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
) -> SearchSpace:
    """Single Path One-Shot: 20 layers, one of four ShuffleNet units in each (Guo et al. 2020)

    Args:
        skeleton: the paper's (four stages), or that of ShuffleNetV2 (three stages, 16 layers).
        width: multiplies the widths; for ShuffleNetV2 0.5, 1, 1.5 and 2 are the published ones.
        last: channels that the classifier reads, instead of the skeleton's.
        downsample: what the two paths of a unit of stride 2 give: halves of the channels (torchvision), or as
            in the authors' code the one beside keeps its channels and the main path adds the others.
        head_bias: whether the classifier has a bias; not in the authors' code.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
    """
    form = SKELETONS[skeleton]
    widths, features = _widths(skeleton, width)
    decisions = []
    b = Builder(input)
    stem = rounded(form.stem * width, MULTIPLE) if skeleton == "spos" else min(form.stem, widths[0] // 2)
    x = b("stem", "conv_bn_relu_3x3", "input", out=stem, stride=2)
    if form.pooled:
        x = b("stem_pool", "max_pool_3x3", x, stride=2)
    for stage, (units, out) in enumerate(zip(form.units, widths, strict=True), start=1):
        name = f"stage{stage}"
        decisions.append(Decision(name, CHOICES, rows=units, keep=units))
        for row in range(units):
            choice, stride = Hole(name, row), 1 if row else 2
            x = b(f"{name}.unit{row}", choice, x, out=out, stride=stride, downsample=downsample)
    x = b("last", "conv_bn", x, out=last or features, kernel=1, act="relu")
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes, bias=head_bias)
    known = {point: _literal(form, indices) for point, indices in KNOWN[skeleton].items()}
    return SearchSpace(tuple(decisions), b.graph(), known=known, known_scale=KNOWN_SCALE)


def _widths(skeleton: str, width: float) -> tuple[tuple[int, ...], int]:
    """Channels of the stages, and before the classifier."""
    form = SKELETONS[skeleton]
    if skeleton == "shufflenet_v2" and width in PUBLISHED_WIDTHS:
        first, last = PUBLISHED_WIDTHS[width]
        return tuple(first * 2**stage for stage in range(len(form.units))), last
    return tuple(rounded(each * width, MULTIPLE) for each in form.widths), form.last


def _literal(form: Skeleton, indices: str) -> str:
    groups, start = [], 0
    for units in form.units:
        picked = enumerate(indices[start : start + units])
        groups.append("|".join(f"{CHOICES[int(index)]}~{row}" for row, index in picked))
        start += units
    return "+".join(f"|{group}|" for group in groups)
