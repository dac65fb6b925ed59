"""What a data set is: two parts of images and labels in memory, and the cuts that a search makes of them.

A cut is always stratified (every class in proportion), keyed by its seed alone, and never touches the test
part: the search sees a hold-out of the training part, the test part is for the last number only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from nas.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Images = NDArray[np.uint8]
    Indices = NDArray[np.int64]

#: Sources of data: functions ``(*, root: Path, download: bool = False, **options) -> Dataset``. Facts beside
#: each: `recipe`, the name of its default recipe, and `augment`, its default augmentation.
DATA: Registry[Callable[..., Dataset]] = Registry("data")


@dataclass(frozen=True, eq=False)
class Split:
    """Images (N, C, H, W) uint8 and their class numbers (N,) int64. Raises ValueError for any other shape."""

    images: Images
    labels: Indices

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype.name != "uint8" or images.ndim != 4:
            raise ValueError(f"images must be uint8 of shape (N, C, H, W), not {images.dtype} {images.shape}")
        if labels.dtype.name != "int64" or labels.shape != images.shape[:1]:
            raise ValueError(
                f"labels must be int64, one an image ({len(images)},), not {labels.dtype} {labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Indices) -> Split:
        """The examples at `indices`, in that order."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True)
class Holdout:
    """A cut of the training part; `digest`: SHA-256 of the sorted indices of the valid part (int64, LE)."""

    train: Split
    valid: Split
    digest: str


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory. `mean` and `std` are per channel, in units of 1 (pixel / 255).

    Raises ValueError if a part is empty, the parts differ in image size, or a label names no class.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for part, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise ValueError(f"data {self.name!r}: the {part} part has no images; it needs at least one")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                raise ValueError(
                    f"data {self.name!r}: {part} labels must be 0..{len(self.classes) - 1} "
                    f"({len(self.classes)} classes), found {low}..{high}"
                )
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ValueError(
                f"data {self.name!r}: training images are {self.train.images.shape[1:]} (C, H, W), "
                f"test images {self.test.images.shape[1:]}; both parts need one size"
            )
        if not len(self.mean) == len(self.std) == self.input[0]:
            raise ValueError(f"data {self.name!r}: mean and std need {self.input[0]} values, one a channel")

    @classmethod
    def measured(cls, name: str, *, train: Split, test: Split, classes: tuple[str, ...]) -> Dataset:
        """A data set whose `mean` and `std` are those of all of `train`."""
        mean, std = statistics(train.images)
        return cls(name, train, test, classes, mean, std)

    @property
    def input(self) -> tuple[int, int, int]:
        """The shape of one image, (C, H, W)."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that training sees: both parts, class names, mean and std; not of the name.

        So it says what the data are and not where they lie or how they were packed.
        """
        import hashlib

        import numpy as np

        total = hashlib.sha256(repr((self.classes, self.mean, self.std)).encode())
        for array in (self.train.images, self.train.labels, self.test.images, self.test.labels):
            total.update(repr((array.dtype.name, array.shape)).encode())
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()

    def limited(self, n: int) -> Dataset:
        """The first `n` training examples, class-balanced: the first of each class, the second of each, ...

        They keep their order; test part, mean and std stay those of the whole. Raises ValueError if `n` is
        not in 1..len(train).
        """
        import numpy as np

        labels = self.train.labels
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= len(labels):
            raise ValueError(
                f"data.limit must be in 1..{len(labels)} (the training images of {self.name!r}), not {n!r}"
            )
        by_class = np.argsort(labels, kind="stable")
        starts = np.searchsorted(labels[by_class], labels)
        place = np.empty_like(by_class)
        place[by_class] = np.arange(len(labels))
        rank = place - starts  # how many of its class come before it
        return replace(self, train=self.train.take(np.sort(np.lexsort((labels, rank))[:n])))

    def shrunk(self, factor: int) -> Dataset:
        """Images of a `factor`-th of the side: means over squares of `factor` x `factor` pixels, rounded.

        Downsampled as in Chrabaszcz, Loshchilov, Hutter (2017), section 3 (`box`); mean and std are measured
        anew. Raises ValueError if the sides are no multiples of `factor`.
        """
        if factor < 1 or any(side % factor for side in self.input[1:]):
            raise ValueError(
                f"data.shrink must divide the sides of {self.name!r}, {self.input[1]} x {self.input[2]} "
                f"pixels; {factor} does not"
            )
        train, test = (Split(_box(part.images, factor), part.labels) for part in (self.train, self.test))
        return Dataset.measured(self.name, train=train, test=test, classes=self.classes)

    def split(self, valid: float | int, *, seed: int) -> Holdout:
        """Cut the training part: `valid` is a fraction in (0, 1) or a number of examples in 1..len(train)-1.

        The same seed gives the same cut, whatever else was drawn before. Raises ValueError for another
        `valid` or a negative seed.
        """
        import hashlib

        total = len(self.train)
        counted = isinstance(valid, int) and not isinstance(valid, bool)
        count = int(valid) if counted else round(valid * total) if 0 < valid < 1 else 0
        if not 1 <= count < total:
            raise ValueError(
                f"the valid part must be a fraction in (0, 1) or 1..{total - 1} of the {total} training "
                f"images of {self.name!r}, with at least one left on each side; not {valid!r}"
            )
        drawn = stratified(self.train.labels, count=count, seed=seed)
        train, held = divide(self.train, drawn)
        return Holdout(train, held, hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest())


def stratified(labels: Indices, *, count: int, seed: int) -> Indices:
    """Sorted indices of `count` examples drawn by `seed`, every class in proportion (largest remainders).

    Raises ValueError if the seed is negative.
    """
    import numpy as np

    if seed < 0:
        raise ValueError(f"a seed must be 0 or more, not {seed}")
    generator = np.random.Generator(np.random.PCG64(seed))
    names, sizes = np.unique(labels, return_counts=True)
    quota, remainder = np.divmod(sizes * count, len(labels))
    quota[np.argsort(-remainder, kind="stable")[: count - quota.sum()]] += 1
    drawn = [
        generator.permutation(np.flatnonzero(labels == name))[:number]
        for name, number in zip(names, quota, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _box(images: Images, factor: int) -> Images:
    """The mean of every square of pixels, to the nearest level; halves go up."""
    import numpy as np

    n, channels, height, width = images.shape
    squares = images.reshape(n, channels, height // factor, factor, width // factor, factor)
    total = squares.sum(axis=(3, 5), dtype=np.uint32)
    means: Images = ((2 * total + factor**2) // (2 * factor**2)).astype(np.uint8)
    return means


def divide(split: Split, indices: Indices) -> tuple[Split, Split]:
    """The examples that are not at `indices`, and those that are; both in their order."""
    import numpy as np

    kept = np.setdiff1d(np.arange(len(split)), indices, assume_unique=True)
    return split.take(kept), split.take(indices)


def statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in units of 1, from exact counts of the 256 values."""
    import numpy as np

    channels = images.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), 1024):  # bincount widens its input to 8 bytes: a block at a time
        for channel in range(channels):
            counts[channel] += np.bincount(images[start : start + 1024, channel].ravel(), minlength=256)
    values = np.arange(256, dtype=np.float64) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    std[std == 0] = 1.0  # a constant channel stays constant instead of becoming infinite
    return tuple(mean.tolist()), tuple(std.tolist())
