"""Augment: what is done to training images, as numbers. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Augment:
    """What is done to a training image, in this order. Raises ValueError for numbers that mean nothing.

    crop:   pixels of black border (before normalisation) that a window of the image's size is cut from
    area:   least part of the image that a resized window has, 0 for none; in place of `crop` (C. Szegedy et
            al., arXiv:1409.4842, 2015, section 6; see `nas.data.windows`)
    flip:   mirror left to right, one time in two
    randaugment: (rounds, magnitude 0..10), operations drawn for each image; see `nas.data.randaugment`
    erase:  probability that a rectangle becomes noise (Z. Zhong et al., arXiv:1708.04896, 2020)
    cutout: side of a square that is set to 0 after normalisation, its centre uniform over the image and the
            square cut off at the border (T. DeVries, G. Taylor, arXiv:1708.04552, 2017)
    """

    crop: int = 0
    area: float = 0.0
    flip: bool = False
    randaugment: tuple[int, float] | None = None
    erase: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("crop", "cutout"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"data.augment.{name} must be a number of pixels, 0 or more, not {value!r}")
        if not isinstance(self.flip, bool):
            raise ValueError(f"data.augment.flip must be true or false, not {self.flip!r}")
        for name in ("area", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.augment.{name} must lie in 0..1, not {getattr(self, name)!r}")
        if self.area and self.crop:
            raise ValueError(
                f"data.augment.area={self.area} and crop={self.crop} both cut a window: set one of them to 0"
            )
        if self.randaugment is not None:
            rounds, magnitude = self.randaugment
            if rounds < 1 or not 0 <= magnitude <= 10:
                raise ValueError(
                    "data.augment.randaugment must be [rounds, magnitude], 1 or more and 0 to 10, "
                    f"not {list(self.randaugment)}"
                )
