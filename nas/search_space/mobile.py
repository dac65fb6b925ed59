"""Mobile networks: stages of inverted residuals whose kernel, expansion, squeeze-excite and depth are chosen.

MnasNet (Tan et al. 2019), ProxylessNAS (Cai et al. 2019), MobileNetV3 (Howard et al. 2019) and their kin
differ in what a `Skeleton` fixes: widths, strides, ends and activations. mnasnet_a1 has 3,887,038 parameters
and 311,579,072 multiply-adds, proxylessnas_cpu 4,361,648 and 439,243,864, mobilenet_v3_large 5,483,032 and
216,589,760.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from nas.graph import Builder, Hole, Shape
from nas.search_space.decision import Decision
from nas.search_space.space import SPACES, Count, SearchSpace

Skeletons = Literal[
    "mnasnet_a1", "mnasnet_b1", "mnasnet_small", "mobilenet_v2", "proxylessnas_cpu", "proxylessnas_gpu",
    "proxylessnas_mobile", "proxylessnas_mobile14", "fbnet_c", "efficientnet_b0", "mobilenet_v3_large",
    "mobilenet_v3_small",
]  # fmt: skip
KERNELS = (3, 5, 7)
SQUEEZES = (0, 0.25)
DEPTHS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Skeleton:
    """What is not searched, at width 1.

    Attributes:
        widths: channels of the stages. The first is one block without expansion.
        strides: of the first block of each stage.
        tail: whether the last stage is a single block.
        stem: channels of the first convolution, which has stride 2.
        fixed_stem: the stem keeps its channels at multipliers of the width below this one.
        conv: channels of a 1x1 convolution before the pooling, behind which `last` is a linear layer
            (MobileNetV3); 0: `last` is that convolution itself.
        last: what the classifier reads.
        grows: whether `last` follows the multiplier of the width: never, when it is above 1, or always.
        act: the activation; relu in the first `relu` stages.
        expands: the options of the expansion.
        block: further attributes of every block.
        first_se: squeeze-excite of the first stage.
    """

    widths: tuple[int, ...]
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    tail: bool = True
    stem: int = 32
    fixed_stem: float = 0.0
    conv: int = 0
    last: int = 1280
    grows: Literal["never", "above", "always"] = "never"
    act: str = "relu"
    relu: int = 0
    expands: tuple[float, ...] = (3, 6)
    block: tuple[tuple[str, Any], ...] = ()
    first_se: float = 0

    def act_of(self, stage: int) -> str:
        """The activation in a stage, counted from 1."""
        return "relu" if stage <= self.relu else self.act

    def depths(self, stage: int) -> tuple[int, ...]:
        """The options of the depth of a stage, counted from 1."""
        return (1,) if stage == 1 or (self.tail and stage == len(self.widths)) else DEPTHS


V3 = Skeleton(
    (16, 24, 40, 80, 112, 160),
    strides=(1, 2, 2, 2, 1, 2),
    tail=False,
    stem=16,
    fixed_stem=0.75,
    conv=960,
    act="hard_swish",
    relu=3,
    expands=(2.3, 2.5, 3, 4, 6),
    block=(("expand_round", 8), ("gate", "hard_sigmoid"), ("se_of", "hidden"), ("se_round", 8)),
)
SKELETONS: Mapping[str, Skeleton] = {
    "mnasnet_a1": Skeleton((16, 24, 40, 80, 112, 160, 320)),
    "mnasnet_b1": Skeleton((16, 24, 40, 80, 96, 192, 320)),
    "mnasnet_small": Skeleton((8, 16, 16, 32, 32, 88, 144), stem=8),
    # Sandler et al. 2018
    "mobilenet_v2": Skeleton((16, 24, 32, 64, 96, 160, 320), grows="above", act="relu6"),
    "proxylessnas_cpu": Skeleton((24, 32, 48, 88, 104, 216, 360), stem=40, last=1432, act="relu6"),
    "proxylessnas_gpu": Skeleton((24, 32, 56, 112, 128, 256, 432), stem=40, last=1728, act="relu6"),
    "proxylessnas_mobile": Skeleton((16, 32, 40, 80, 96, 192, 320), act="relu6"),
    # no multiple of proxylessnas_mobile: 40 and 256 are not what 1.4 times 32 and 192 are rounded to
    "proxylessnas_mobile14": Skeleton((24, 40, 56, 112, 136, 256, 448), stem=48, last=1792, act="relu6"),
    # Wu et al. 2019
    "fbnet_c": Skeleton(
        (16, 24, 32, 64, 112, 184, 352),
        stem=16,
        last=1984,
        expands=(1, 3, 6),
        block=(("expand_always", True),),
    ),
    # Tan & Le 2019
    "efficientnet_b0": Skeleton(
        (16, 24, 40, 80, 112, 192, 320),
        grows="always",
        act="silu",
        block=(("se_act", "silu"),),
        first_se=0.25,
    ),
    "mobilenet_v3_large": V3,
    "mobilenet_v3_small": replace(
        V3,
        widths=(16, 24, 40, 48, 96),
        strides=(2, 2, 2, 1, 2),
        conv=576,
        last=1024,
        relu=2,
        expands=(3, 3.67, 4, 4.5, 6),
        first_se=0.25,
    ),
}
assert tuple(SKELETONS) == get_args(Skeletons)

# name -> skeleton and stages from the second on: so many blocks of kernel, expansion and (s) squeeze-excite
POINTS: Mapping[str, tuple[str, str]] = {
    "mnasnet_a1": ("mnasnet_a1", "2*k3e6 | 3*k5e3s | 4*k3e6 | 2*k3e6s | 3*k5e6s | k3e6"),
    "mnasnet_b1": ("mnasnet_b1", "3*k3e3 | 3*k5e3 | 3*k5e6 | 2*k3e6 | 4*k5e6 | k3e6"),
    "mnasnet_small": ("mnasnet_small", "k3e3 | 2*k3e6 | 4*k5e6s | 3*k3e6s | 3*k5e6s | k3e6"),
    "mobilenet_v2": ("mobilenet_v2", "2*k3e6 | 3*k3e6 | 4*k3e6 | 3*k3e6 | 3*k3e6 | k3e6"),
    "proxylessnas_cpu": (
        "proxylessnas_cpu",
        "k3e6 3*k3e3 | k3e6 2*k3e3 k5e3 | k3e6 k3e3 | k5e6 3*k3e3 | k5e6 2*k5e3 k3e3 | k5e6",
    ),
    "proxylessnas_gpu": (
        "proxylessnas_gpu",
        "k5e3 | k7e3 k3e3 | k7e6 k5e3 | k5e6 k3e3 k5e3 | 3*k7e6 k5e6 | k7e6",
    ),
    "proxylessnas_mobile": (
        "proxylessnas_mobile",
        "k5e3 k3e3 | k7e3 k3e3 2*k5e3 | k7e6 3*k5e3 | k5e6 3*k5e3 | 2*k7e6 2*k7e3 | k7e6",
    ),
    # Stamoulis et al. 2019
    "spnasnet": ("mnasnet_b1", "3*k3e3 | k5e6 3*k3e3 | k5e6 3*k3e3 | k5e6 3*k5e3 | 4*k5e6 | k3e6"),
    "fbnet_c": (
        "fbnet_c",
        "k3e6 2*k3e1 | k5e6 k5e3 k5e6 k3e6 | k5e6 k5e3 2*k5e6 | 3*k5e6 k5e3 | 4*k5e6 | k3e6",
    ),
    "efficientnet_b0": (
        "efficientnet_b0", "2*k3e6s | 2*k5e6s | 3*k3e6s | 3*k5e6s | 4*k5e6s | k3e6s"
    ),
    "mobilenet_v3_large": (
        "mobilenet_v3_large", "k3e4 k3e3 | 3*k5e3s | k3e6 k3e2.5 2*k3e2.3 | 2*k3e6s | 3*k5e6s"
    ),
    "mobilenet_v3_small": ("mobilenet_v3_small", "k3e4.5 k3e3.67 | k5e4s 2*k5e6s | 2*k5e3s | 3*k5e6s"),
}  # fmt: skip


@SPACES.register("mobile", small={"width": 0.1, "last": 16})
def mobile(
    *,
    skeleton: Skeletons = "mnasnet_a1",
    width: float = 1.0,
    round_to: int = 8,
    last: int | None = None,
    expands: tuple[int | float, ...] | None = None,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
) -> SearchSpace:
    """Mobile networks: kernel, expansion, squeeze-excite of 21 inverted residuals, 5 depths (Tan et al. 2019)

    Args:
        skeleton: the published network whose widths, strides, stem, head and activations are taken.
        width: multiplies all widths.
        round_to: widths are rounded to multiples of this, to at most a tenth too few.
        last: channels that the classifier reads, instead of the skeleton's.
        expands: options of the expansion, instead of the skeleton's: (3, 4, 6) in Once-for-All (Cai et al.
            2020).
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
    """
    form = SKELETONS[skeleton]
    form = replace(form, expands=expands or form.expands)
    decisions: list[Decision] = []
    b = Builder(input)
    stem = form.stem if width < form.fixed_stem else rounded(form.stem * width, round_to)
    x = b("stem", "conv_bn", "input", out=stem, stride=2, kernel=3, act=form.act)
    for stage, (channels, stride) in enumerate(zip(form.widths, form.strides, strict=True), start=1):
        out = rounded(channels * width, round_to)
        if stage == 1:
            x = _block(b, "stage1.layer0", x, form, stage, out=out, stride=stride, expand=1, se=form.first_se)
            continue
        decisions += _decisions(form, stage)
        x = _stage(b, form, stage, x, out, stride)
    if form.conv:
        x = b("conv", "conv_bn", x, out=rounded(form.conv * width, round_to), kernel=1, act=form.act)
    features = last or (rounded(form.last * width, round_to) if _follows(form, width) else form.last)
    _head(b, form, x, features, classes)
    return SearchSpace(tuple(decisions), b.graph(), known=_known(form), known_scale=KNOWN_SCALE)


def rounded(channels: float, to: int = 8) -> int:
    """The multiple of `to` nearest to `channels`, or the next one if that is more than a tenth too few.

    MobileNet's rule for widths (Sandler et al. 2018). Raises ValueError if `channels` is not positive.
    """
    if channels <= 0:
        raise ValueError(f"a width is positive, not {channels}: give a multiplier above 0")
    nearest = max(to, int(channels + to / 2) // to * to)
    return nearest + to if nearest < 0.9 * channels else nearest


def _follows(form: Skeleton, width: float) -> bool:
    return form.grows == "always" or (form.grows == "above" and width > 1)


def _decisions(form: Skeleton, stage: int) -> list[Decision]:
    depths, name = form.depths(stage), f"stage{stage}"
    rows = max(depths)
    choices = {"kernel": KERNELS, "expand": form.expands, "se": SQUEEZES}
    found = [Decision(f"{name}.depth", depths)] if len(depths) > 1 else []
    return found + [
        Decision(f"{name}.{each}", options, rows=rows, keep=rows) for each, options in choices.items()
    ]


def _stage(b: Builder, form: Skeleton, stage: int, x: str, out: int, stride: int) -> str:
    name, depths = f"stage{stage}", form.depths(stage)
    states: dict[int | float | str, str] = {}
    for row in range(max(depths)):
        chosen = {each: Hole(f"{name}.{each}", row, sliced=True) for each in ("kernel", "expand", "se")}
        x = _block(b, f"{name}.layer{row}", x, form, stage, out=out, stride=1 if row else stride, **chosen)
        states[row + 1] = x
    return b.exits(name, f"{name}.depth", states) if len(depths) > 1 else x


def _block(b: Builder, name: str, x: str, form: Skeleton, stage: int, **attrs: Any) -> str:
    return b(name, "inverted_residual", x, act=form.act_of(stage), **dict(form.block), **attrs)


def _head(b: Builder, form: Skeleton, x: str, features: int, classes: int) -> None:
    if not form.conv:
        x = b("last", "conv_bn", x, out=features, kernel=1, act=form.act)
    x = b("pool", "global_avg_pool", x)
    if form.conv:
        x = b("act", form.act, b("last", "linear", x, out=features))
    b("classifier", "linear", x, out=classes)


# --- published points ---------------------------------------------------------------------------------------

KNOWN_SCALE = {
    name: {"skeleton": skeleton, "classes": 1000, "input": (3, 224, 224)}
    for name, (skeleton, _) in POINTS.items()
}


def _known(form: Skeleton) -> dict[str, str]:
    """The literals of the points that the decisions of this skeleton can express."""
    found = {}
    for name, (skeleton, stages) in POINTS.items():
        own = SKELETONS[skeleton]
        if (len(own.widths), own.tail) == (len(form.widths), form.tail):
            blocks = [_blocks(text) for text in stages.split("|")]
            if {block[1] for stage in blocks for block in stage} <= {str(each) for each in form.expands}:
                found[name] = _literal(form, blocks)
    return found


def _blocks(text: str) -> list[tuple[str, str, str]]:
    """Kernel, expansion and squeeze-excite of each block of a stage."""
    tokens = re.findall(r"(?:(\d)\*)?k(\d)e([\d.]+)(s?)", text)
    return [
        (kernel, expand, str(SQUEEZES[bool(squeeze)]))
        for times, kernel, expand, squeeze in tokens
        for _ in range(int(times or 1))
    ]


def _literal(form: Skeleton, stages: list[list[tuple[str, str, str]]]) -> str:
    unused = (str(KERNELS[0]), str(form.expands[0]), str(SQUEEZES[0]))
    groups: list[str] = []
    for stage, blocks in enumerate(stages, start=2):
        depths = form.depths(stage)
        groups += [f"{len(blocks)}~0"] if len(depths) > 1 else []
        rows = blocks + [unused] * (max(depths) - len(blocks))
        groups += [
            "|".join(f"{option}~{row}" for row, option in enumerate(column))
            for column in zip(*rows, strict=True)
        ]
    return "+".join(f"|{group}|" for group in groups)
