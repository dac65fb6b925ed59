"""Batches of data that live on the device: no workers, no files, nothing read back from the device.

All images are one uint8 tensor there, (N, H, W, C); a batch is one gather that crops, flips and picks at
once. Whatever is random is drawn on the CPU from a key (seed, epoch), so that an epoch draws the same on
every device and whenever it is asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.augment import Augment
from nas.data.dataset import Split
from nas.data.randaugment import OPERATIONS, randaugment
from nas.data.windows import erased, holes, resized, windows


@dataclass(frozen=True)
class Draws:
    """Random numbers of n images: window offset, mirrored or not, centre of the square, int64 (n,) each.

    And, None where they are off: `window`, float32 (n, 4), top, left, height and width of the window that is
    resized; `hole`, int64 (n, 5), the same of the rectangle that becomes noise, and the noise's key;
    `operations`, int64 (n, rounds), see `randaugment`.
    """

    top: Tensor
    left: Tensor
    mirrored: Tensor
    row: Tensor
    column: Tensor
    window: Tensor | None = None
    hole: Tensor | None = None
    operations: Tensor | None = None

    def to(self, device: torch.device) -> Draws:
        """The same on `device`, but for `operations`: to pick images by them is this process's work."""
        return self._each(lambda name, values: values if name == "operations" else values.to(device))

    def __getitem__(self, part: slice) -> Draws:
        return self._each(lambda _, values: values[part])

    def _each(self, change: Callable[[str, Tensor], Tensor]) -> Draws:
        there = {name: values for name, values in vars(self).items() if values is not None}
        return Draws(**{name: change(name, values) for name, values in there.items()})


@dataclass(frozen=True)
class Examples:
    """What a search sees: two disjoint parts of the training set, and how to prepare a batch."""

    train: Split
    valid: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment | None = None


class Batches:
    """A part of a data set in batches of normalised images.

    `mean` and `std` are per channel, in units of 1 (pixel / 255). With fewer than `batch` examples there is
    one batch, of all of them. Raises ValueError for batch < 1, an empty split, or `mean` and `std` that do
    not fit the channels.
    """

    def __init__(
        self,
        split: Split,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch: int,
        device: torch.device | str,
        seed: int,
        augment: Augment | None = None,
        shuffle: bool,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if batch < 1:
            raise ValueError(f"a batch must hold 1 image or more, not {batch}")
        if not len(split):
            raise ValueError("there are no images to make batches of; the split must hold at least one")
        _, channels, height, width = split.images.shape
        if not len(mean) == len(std) == channels:
            raise ValueError(
                f"mean and std need {channels} values, one a channel, not {len(mean)} and {len(std)}"
            )
        self.examples = len(split)
        self.batch = min(batch, self.examples)
        self.augment = augment or Augment()
        self._device = torch.device(device)
        self._seed, self._shuffle, self._drop_last, self._dtype = seed, shuffle, drop_last, dtype
        self.size = (height, width)
        channels_last = torch.tensor(split.images).permute(0, 2, 3, 1).contiguous()  # (N, H, W, C)
        self._images = channels_last.to(self._device)
        self._labels = torch.tensor(split.labels).to(self._device)
        deviation = torch.tensor(std, dtype=torch.float64)
        self._scale = (1 / (255 * deviation)).float().to(self._device)
        self._shift = (-torch.tensor(mean, dtype=torch.float64) / deviation).float().to(self._device)
        self._rows = torch.arange(height, device=self._device)
        self._columns = torch.arange(width, device=self._device)

    def __len__(self) -> int:
        whole, rest = divmod(self.examples, self.batch)
        return whole + (rest > 0 and not self._drop_last)

    def epoch(self, number: int, share: tuple[int, int] = (0, 1)) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `number`: x (B, C, H, W) channels_last on the device, y (B,) int64.

        The same number gives the same bits, whatever was asked before and whatever the global generator did.
        `share`: of each batch the i-th of n equal parts, (i, n).
        """
        i, n = share
        order = torch.arange(self.examples)
        if self._shuffle:
            order = torch.randperm(self.examples, generator=keyed(self._seed, number, "order"))
        draws = None
        if self.augment != Augment():
            draws = draw(
                self.augment,
                self.examples,
                size=self.size,
                generator=keyed(self._seed, number, "augment"),
            ).to(self._device)
        order = order.to(self._device)
        for start in range(0, len(self) * self.batch, self.batch):
            end = min(start + self.batch, self.examples)
            part = slice(start + (end - start) * i // n, start + (end - start) * (i + 1) // n)
            yield self._take(order[part], None if draws is None else draws[part])

    def _take(self, indices: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        pixels = self._images.index_select(0, indices) if draws is None else self._augmented(indices, draws)
        x = pixels.float().mul_(self._scale).add_(self._shift)  # (B, H, W, C)
        if draws is not None and self.augment.cutout:
            x.masked_fill_(self._square(draws), 0.0)
        return x.to(self._dtype).permute(0, 3, 1, 2), self._labels.index_select(0, indices)

    def _augmented(self, indices: Tensor, draws: Draws) -> Tensor:
        """The images as they are trained on, before normalisation, uint8 (B, H, W, C)."""
        if draws.window is None:
            pixels = self._window(indices, draws)
        else:
            mirrored = draws.mirrored[:, None] == 1
            pixels = resized(self._images.index_select(0, indices), draws.window, mirrored)
        if draws.operations is not None and self.augment.randaugment is not None:
            pixels = randaugment(pixels, draws.operations, self.augment.randaugment[1])
        return pixels if draws.hole is None else erased(pixels, draws.hole)

    def _window(self, indices: Tensor, draws: Draws) -> Tensor:
        """The images cropped and mirrored, uint8 (B, H, W, C): one gather, outside of the image is black."""
        height, width = self.size
        rows = self._rows + (draws.top - self.augment.crop)[:, None]  # (B, H)
        columns = torch.where(draws.mirrored[:, None] == 1, width - 1 - self._columns, self._columns)
        columns = columns + (draws.left - self.augment.crop)[:, None]  # (B, W): cut out, then mirrored
        at_row, at_column = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        pixels = self._images[indices[:, None, None], at_row[:, :, None], at_column[:, None, :]]
        inside = (at_row == rows)[:, :, None] & (at_column == columns)[:, None, :]
        return pixels * inside[..., None]

    def _square(self, draws: Draws) -> Tensor:
        """Whether a pixel lies in its image's square, (B, H, W, 1)."""
        side = self.augment.cutout
        down = self._rows - (draws.row - side // 2)[:, None]  # rows below the square's first
        right = self._columns - (draws.column - side // 2)[:, None]
        within = ((down >= 0) & (down < side))[:, :, None] & ((right >= 0) & (right < side))[:, None, :]
        return within[..., None]


def draw(augment: Augment, n: int, *, size: tuple[int, int], generator: torch.Generator) -> Draws:
    """Random numbers for `n` images of `size` (H, W), so that no option shifts another's."""

    def uniform(high: int) -> Tensor:
        return torch.randint(high, (n,), generator=generator)

    top, left, mirrored = uniform(2 * augment.crop + 1), uniform(2 * augment.crop + 1), uniform(2)
    row, column = uniform(size[0]), uniform(size[1])
    seeds = torch.randint(2**62, (3,), generator=generator).tolist()
    own = [torch.Generator().manual_seed(seed) for seed in seeds]
    rounds = augment.randaugment[0] if augment.randaugment else 0
    return Draws(
        *(top, left, mirrored * augment.flip, row, column),
        window=windows(augment.area, n, size, own[0]) if augment.area else None,
        hole=holes(augment.erase, n, size, own[1]) if augment.erase else None,
        operations=torch.randint(2 * len(OPERATIONS), (n, rounds), generator=own[2]) if rounds else None,
    )


def keyed(seed: int, number: int, purpose: str) -> torch.Generator:
    """A generator for one purpose in one epoch, the same whatever was drawn elsewhere."""
    key = hashlib.blake2b(f"{purpose}:{seed}:{number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)
