"""Mixup (H. Zhang et al., arXiv:1710.09412, 2018) and CutMix (S. Yun et al., arXiv:1905.04899, 2019): every
image of a batch is mixed with the one before it, which is any other, since the batch is in random order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from nas.seeding import generator


@dataclass(frozen=True)
class Mix:
    """How one batch is mixed: the share of an image's own label, and the box (top, bottom, left, right) that
    is the other's; without a box all pixels are mixed by the share.
    """

    share: float
    box: tuple[int, int, int, int] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Mixed images (B, C, H, W)."""
        other = x.roll(1, 0)
        if self.box is None:
            return x.lerp(other, 1 - self.share)
        top, bottom, left, right = self.box
        x = x.clone()
        x[:, :, top:bottom, left:right] = other[:, :, top:bottom, left:right]
        return x


def mixes(*, mixup: float, cutmix: float, size: tuple[int, int], key: tuple[object, ...]) -> Iterator[Mix]:
    """Mixes of one batch after another, drawn for `key`: shares from Beta(mixup, mixup) or from cutmix's.

    size: (height, width) of the images. With both above 0 each batch draws which. A box has the part
    1 - share of the image and a centre anywhere in it; it is cut at the border, and the share follows.
    """
    rng = generator(*key)
    height, width = size
    while True:
        pasted = rng.random() < 0.5 if mixup and cutmix else bool(cutmix)
        alpha = cutmix if pasted else mixup
        share = rng.betavariate(alpha, alpha)
        y, x = rng.randrange(height), rng.randrange(width)
        if not pasted:
            yield Mix(share)
            continue
        side = math.sqrt(1 - share) / 2
        top, bottom = max(0, y - round(height * side)), min(height, y + round(height * side))
        left, right = max(0, x - round(width * side)), min(width, x + round(width * side))
        yield Mix(1 - (bottom - top) * (right - left) / (height * width), (top, bottom, left, right))
