"""Windows that are resized (C. Szegedy et al., arXiv:1409.4842, 2015, section 6) and rectangles that are
erased (Z. Zhong et al., arXiv:1708.04896, 2020): drawn on the CPU, applied wherever the images are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from nas.data.randaugment import bytes_of


def windows(least: float, n: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(n, 4), float: top, left, height, width of windows of images of `size` (H, W).

    The first of ten that lies in the image, the whole image if none does. The area is uniform from `least`
    (a part of the image) to the whole, the ratio of the sides log-uniform in 3/4..4/3.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 10, generator=generator)

    side = torch.tensor(size)
    area = uniform(least, 1.0) * side[0] * side[1]
    ratio = torch.exp(uniform(-math.log(4 / 3), math.log(4 / 3)))
    height, width = torch.sqrt(area / ratio), torch.sqrt(area * ratio)
    top, left = uniform(0, 1) * (side[0] - height), uniform(0, 1) * (side[1] - width)
    fits = (height <= side[0]) & (width <= side[1])
    first = fits.long().argmax(1, keepdim=True)
    windows = torch.stack([top, left, height, width], -1)  # (n, 10, 4)
    chosen = windows.gather(1, first[..., None].expand(-1, -1, 4))[:, 0]
    whole = torch.tensor([0.0, 0.0, *size])
    return torch.where(fits.any(1, keepdim=True), chosen, whole)


def holes(probability: float, n: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(n, 5), int64: top, left, height, width of rectangles, and the key of their noise.

    The first of 20 that lies in the image; the height is 0 if none does or none is wanted. The area is
    uniform in 2 to 40 % of the image, the ratio of the sides in 0.3..1/0.3: the paper's algorithm 1.
    """

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 20, generator=generator)

    wanted = torch.rand(n, generator=generator) < probability
    area, ratio = uniform(0.02, 0.4) * size[0] * size[1], uniform(0.3, 1 / 0.3)
    height, width = torch.sqrt(area * ratio).long(), torch.sqrt(area / ratio).long()
    top, left = uniform(0, size[0]).long(), uniform(0, size[1]).long()
    fits = (top + height <= size[0]) & (left + width <= size[1]) & (height > 0) & (width > 0)
    first = fits.long().argmax(1, keepdim=True)
    holes = torch.stack([top, left, height * (fits & wanted[:, None]), width], -1)  # (n, 20, 4)
    key = torch.randint(2**31, (n, 1), generator=generator)
    return torch.cat([holes.gather(1, first[..., None].expand(-1, -1, 4))[:, 0], key], 1)


def resized(images: Tensor, window: Tensor, mirrored: Tensor) -> Tensor:
    """Each image's window, a row of `windows`, at the image's size, bilinear; uint8 (B, H, W, C).

    `mirrored`: (B, 1) bool.
    """
    _, height, width, _ = images.shape
    down = torch.arange(height, device=images.device) + 0.5
    right = torch.arange(width, device=images.device) + 0.5
    right = torch.where(mirrored, width - right, right)  # (B, W)
    y = (window[:, 0, None] + down * window[:, 2, None] / height - 0.5).clamp(0, height - 1)  # (B, H)
    x = (window[:, 1, None] + right * window[:, 3, None] / width - 0.5).clamp(0, width - 1)
    above, before = y.long(), x.long()
    after, below = (before + 1).clamp(max=width - 1), (above + 1).clamp(max=height - 1)
    image = torch.arange(len(images), device=images.device)[:, None, None]

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        return images[image, rows[:, :, None], columns[:, None, :]].float()

    across = (x - before)[:, None, :, None]
    upper = torch.lerp(at(above, before), at(above, after), across)
    lower = torch.lerp(at(below, before), at(below, after), across)
    return bytes_of(torch.lerp(upper, lower, (y - above)[:, :, None, None]))


def erased(images: Tensor, hole: Tensor) -> Tensor:
    """Each image with noise in its rectangle, a row of `holes`.

    The noise is a hash of key and place, uniform in 0..255: equal on every device, and none is stored.
    """
    _, height, width, channels = images.shape
    down = torch.arange(height, device=images.device) - hole[:, 0, None]
    right = torch.arange(width, device=images.device) - hole[:, 1, None]
    rows, columns = (down >= 0) & (down < hole[:, 2, None]), (right >= 0) & (right < hole[:, 3, None])
    place = torch.arange(height * width * channels, device=images.device).reshape(1, height, width, channels)
    noise = hole[:, 4, None, None, None] ^ (place * 0x9E3779B1 & 0xFFFFFFFF)
    for _ in range(2):
        noise = (noise ^ (noise >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    within = (rows[:, :, None] & columns[:, None, :])[..., None]
    return torch.where(within, (noise >> 16 & 255).to(torch.uint8), images)
