"""ConvNeXt: a convolutional network arranged like a transformer (Liu et al. 2022).

At 224x224 pixels ConvNeXt-T has 28,589,128 parameters and 4,455,531,264 multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn

from nas.primitives.convnext import convnext_block
from nas.primitives.layers import LayerNorm

from .family import baseline, initialise, one_of, truncated
from .vit import dropping, rising

Variant = Literal[
    "atto", "femto", "pico", "nano", "tiny", "small", "base", "large", "xlarge", "xxlarge"
]  # fmt: skip


class Form(NamedTuple):
    """Channels and blocks of the stages, and the rate of dropped branches."""

    dims: tuple[int, ...]
    depths: tuple[int, ...]
    drop_path: float = 0.0


FORMS = {
    # Woo et al. 2023, table 9: the sizes, here without global response normalisation; as in timm
    "atto": Form((40, 80, 160, 320), (2, 2, 6, 2)),
    "femto": Form((48, 96, 192, 384), (2, 2, 6, 2)),
    "pico": Form((64, 128, 256, 512), (2, 2, 6, 2)),
    "nano": Form((80, 160, 320, 640), (2, 2, 8, 2)),
    # Liu et al. 2022, section 3; rates: table 5
    "tiny": Form((96, 192, 384, 768), (3, 3, 9, 3), 0.1),
    "small": Form((96, 192, 384, 768), (3, 3, 27, 3), 0.4),
    "base": Form((128, 256, 512, 1024), (3, 3, 27, 3), 0.5),
    "large": Form((192, 384, 768, 1536), (3, 3, 27, 3), 0.5),
    "xlarge": Form((256, 512, 1024, 2048), (3, 3, 27, 3), 0.5),
    "xxlarge": Form((384, 768, 1536, 3072), (3, 4, 30, 3)),  # OpenCLIP's
}
PATCH = 4  # pixels of a side of the first patches


class ConvNeXt(nn.Module):
    """Patches, stages of blocks that begin with a halving, the mean, a last norm and a classifier.

    (batch, channels, height, width) -> (batch, classes).
    """

    def __init__(self, stem: nn.Module, blocks: Sequence[nn.Module], *, width: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.Sequential(*blocks)
        self.norm = LayerNorm(width)
        self.classifier = nn.Linear(width, classes)
        initialise(self, conv=truncated(0.02), linear=truncated(0.02))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.blocks(self.stem(x)).mean(dim=(2, 3), keepdim=True)
        return self.classifier(self.norm(pooled).flatten(1))


@baseline(
    small={"dims": (8, 16), "depths": (1, 2), "drop_path": 0.0, "classes": 5, "input": (3, 32, 32)},
)
def convnext(
    *,
    variant: Variant = "tiny",
    dims: Sequence[int] | None = None,
    depths: Sequence[int] | None = None,
    layer_scale: float = 1e-6,
    drop_path: float | None = None,
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """ConvNeXt (section 2): 7x7 depthwise convolutions, perceptrons of four times the channels, layer norms.

    variant: says what the arguments below it do not. dims, depths: channels and blocks of each stage.
    layer_scale: what each channel of a block's branch is multiplied by at first, a parameter; 0: no such
    factor. drop_path: the rate at which the last block's branch is dropped in training; it rises from 0.
    Weights start as in the authors' code, N(0, 0.02^2). Patches and halvings cut off what is left over of a
    size. Raises ValueError for stages whose channels and blocks differ in number, and for an `input` smaller
    than one position of the last stage.
    """
    one_of("variant", variant, get_args(Variant))
    form = FORMS[variant]
    dims, depths = dims or form.dims, depths or form.depths
    if len(dims) != len(depths):
        raise ValueError(f"dims {list(dims)} and depths {list(depths)} need a number for each stage")
    least = PATCH * 2 ** (len(dims) - 1)
    if min(input[1:]) < least:
        raise ValueError(f"{len(dims)} stages need pictures of {least}x{least} or more, not {tuple(input)}")
    rates = iter(rising(form.drop_path if drop_path is None else drop_path, sum(depths)))
    stem = nn.Sequential(nn.Conv2d(input[0], dims[0], PATCH, PATCH), LayerNorm(dims[0]))
    layers: list[nn.Module] = []
    for number, (width, blocks) in enumerate(zip(dims, depths, strict=True)):
        if number:
            before = dims[number - 1]
            layers.append(nn.Sequential(LayerNorm(before), nn.Conv2d(before, width, 2, 2)))
        for _ in range(blocks):
            block = convnext_block(width, width, layer_scale=layer_scale)
            block.mlp = dropping(block.mlp, next(rates))
            layers.append(block)
    return ConvNeXt(stem, layers, width=dims[-1], classes=classes)
