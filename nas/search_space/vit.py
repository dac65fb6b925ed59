"""Vision transformers: width, depth, heads and perceptrons are chosen (AutoFormer, Chen et al. 2021).

The blocks are those of the plain ViT (Dosovitskiy et al. 2021; DeiT, Touvron et al. 2021), which is a point:
deit_small has 22,050,664 parameters and 4,241,218,560 multiply-adds, and 357,663,744 in attention. AutoFormer
adds relative positions to attention and scales the branches of narrower blocks; that is left out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from nas.graph import Builder, Hole, Option, Shape, Value
from nas.search_space.decision import Decision
from nas.search_space.space import SPACES, Choices, Count, SearchSpace


class Options(NamedTuple):
    """What may be chosen: channels of the tokens, blocks, heads of a block, inner width of its perceptron in
    units of the tokens'.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    ratios: tuple[float, ...]


SIZES = {
    # the three supernets of Chen et al. 2021, table 1
    "tiny": Options((192, 216, 240), (12, 13, 14), (3, 4), (3.5, 4)),
    "small": Options((320, 384, 448), (12, 13, 14), (5, 6, 7), (3, 3.5, 4)),
    "base": Options((528, 576, 624), (14, 15, 16), (8, 9, 10), (3, 3.5, 4)),
    # in their manner, up to ViT-B and ViT-L
    "vit_base": Options((576, 672, 768), (10, 11, 12), (8, 10, 12), (3, 3.5, 4)),
    "vit_large": Options((768, 896, 1024), (20, 22, 24), (12, 14, 16), (3, 3.5, 4)),
}
# width, depth, heads and ratio of published networks
KNOWN = {
    "vit_tiny": (192, 12, 3, 4),
    "vit_small": (384, 12, 6, 4),
    "vit_base": (768, 12, 12, 4),
    "vit_large": (1024, 24, 16, 4),
}
ALIASES = {f"deit_{size}": f"vit_{size}" for size in ("tiny", "small", "base")}  # one architecture
KNOWN_SCALE = {name: {"classes": 1000, "input": (3, 224, 224)} for name in (*KNOWN, *ALIASES)}


@SPACES.register("vit", small={"width": 0.125, "head_dim": 8})
def vit(
    *,
    size: Literal["tiny", "small", "base", "vit_base", "vit_large"] = "tiny",
    widths: tuple[int, ...] | None = None,
    depths: tuple[int, ...] | None = None,
    heads: tuple[int, ...] | None = None,
    ratios: tuple[int | float, ...] | None = None,
    head_dim: int = 64,
    width: float = 1.0,
    patch: int | None = None,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
) -> SearchSpace:
    """Vision transformer: width, depth, heads and MLP ratio of every block (AutoFormer, Chen et al. 2021)

    Args:
        size: the set of options: AutoFormer's tiny, small and base, or sets that reach to ViT-B and ViT-L.
        widths, depths, heads, ratios: other options than those of `size`.
        head_dim: channels of a head, for any width of the tokens.
        width: multiplies the tokens' channels; they stay multiples of 8.
        patch: pixels of a patch's side; by default 16 from 128 pixels on, 4 from 32 on, and 2 below.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.
    """
    base = SIZES[size]
    options = Options(
        widths or base.widths, depths or base.depths, heads or base.heads, ratios or base.ratios
    )
    deepest = max(options.depths)
    decisions = (
        Decision("width", options.widths),
        Decision("depth", options.depths),
        Decision("heads", options.heads, rows=deepest, keep=deepest),
        Decision("ratio", options.ratios, rows=deepest, keep=deepest),
    )
    b = Builder(input)
    side = patch or _patch(min(input[1:]))
    patches = -(-input[1] // side) * -(-input[2] // side)
    x = b(
        "patches",
        "patch_embed",
        "input",
        out=Hole("width", times=width, multiple=8),
        patch=side,
        positions=patches,
    )
    states: dict[Option, str] = {}
    for row in range(deepest):
        many, ratio = Hole("heads", row, sliced=True), Hole("ratio", row, sliced=True)
        x = b(f"blocks.{row}", "vit_block", x, head_dim=head_dim, heads=many, mlp_ratio=ratio)
        if row + 1 in options.depths:
            states[row + 1] = x
    x = b("norm", "layer_norm", b.exits("blocks", "depth", states))
    b("classifier", "linear", b("token", "class_token", x), out=classes)
    points = {name: _choices(options, *point) for name, point in KNOWN.items() if _has(options, *point)}
    return SearchSpace(
        decisions,
        b.graph(),
        known={name: _literal(choices) for name, choices in points.items()},
        known_scale=KNOWN_SCALE,
        read=lambda text: points.get(ALIASES.get(text, "")),
    )


def _patch(side: int) -> int:
    return 16 if side >= 128 else 4 if side >= 32 else 2


def _has(options: Options, *point: float) -> bool:
    return all(value in each for value, each in zip(point, options, strict=True))


def _choices(options: Options, width: int, depth: int, heads: int, ratio: int) -> Choices:
    def rows(value: Option, unused: Option) -> Value:
        return tuple((row, value if row < depth else unused) for row in range(max(options.depths)))

    return {
        "width": ((0, width),),
        "depth": ((0, depth),),
        "heads": rows(heads, options.heads[0]),
        "ratio": rows(ratio, options.ratios[0]),
    }


def _literal(choices: Mapping[str, Value]) -> str:
    groups = ("|".join(f"{option}~{row}" for row, option in value) for value in choices.values())
    return "+".join(f"|{group}|" for group in groups)
