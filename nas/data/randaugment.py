"""RandAugment on tensors (E. Cubuk, B. Zoph, J. Shlens, Q. Le, arXiv:1909.13719, 2020): its 14 operations.

Images are uint8 (B, H, W, C) with any number of channels, on any device. The ranges are AutoAugment's
(E. Cubuk et al., arXiv:1805.09501, table 6). An operation with a magnitude leaves an image as it is at 0, and
is at the end of its range at 10; AutoAugment counts posterize and solarize the other way round. Whatever has
two directions draws one. Turned, sheared and shifted images are sampled bilinearly, on grey (128).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Operation = Callable[[Tensor, float, Tensor], Tensor]  # pixels, magnitude / 10, directions (B,) of 1 and -1

GREY = 128.0


def randaugment(pixels: Tensor, choices: Tensor, magnitude: float) -> Tensor:
    """One operation on each image after another: uint8 (B, H, W, C) in and out.

    `choices`: (B, rounds) int64 on the CPU, 2 * the number of the operation + the direction (0 or 1).
    """
    for column in choices.unbind(1):
        for number, operation in enumerate(OPERATIONS.values()):
            chosen = (column // 2 == number).nonzero()[:, 0]
            if len(chosen) and operation is not _identity:
                direction = (column[chosen] % 2 * 2 - 1).to(pixels.device)
                chosen = chosen.to(pixels.device)
                pixels = pixels.index_copy(
                    0, chosen, operation(pixels.index_select(0, chosen), magnitude / 10, direction)
                )
    return pixels


def grey(pixels: Tensor) -> Tensor:
    """(..., 1), float: brightness of red, green and blue as in ITU-R 601; the mean of other channels."""
    values = pixels.float()
    if values.shape[-1] == 3:
        return (values * values.new_tensor([0.299, 0.587, 0.114])).sum(-1, keepdim=True)
    return values.mean(-1, keepdim=True)


def bytes_of(values: Tensor) -> Tensor:
    """Rounded and cut to 0..255."""
    return values.round().clamp(0, 255).to(torch.uint8)


def _identity(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    return pixels


def autocontrast(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Each channel stretched to 0..255; a channel of one value stays."""
    values = pixels.float()
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    stretched = (values - low) * 255 / (high - low).clamp(min=1)
    return torch.where(high > low, stretched, values).clamp(0, 255).to(torch.uint8)


def equalize(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Each channel's values spread so that their cumulative histogram is linear."""
    batch, height, width, channels = pixels.shape
    flat = pixels.permute(0, 3, 1, 2).reshape(batch * channels, -1).long().contiguous()
    every = torch.arange(256, device=pixels.device).expand(len(flat), -1).contiguous()
    below = torch.searchsorted(flat.sort(1).values, every)  # how many pixels have less than each value
    step = below.gather(1, flat.amax(1, keepdim=True)) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    spread = torch.where(step > 0, table.gather(1, flat), flat)
    return spread.reshape(batch, channels, height, width).permute(0, 2, 3, 1).to(torch.uint8)


def posterize(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """8 bits of each value are kept, down to 4."""
    return torch.bitwise_and(pixels, 256 - 2 ** round(4 * part))


def solarize(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Values from a threshold on are inverted, which falls from 256 to 0."""
    return torch.where(pixels.float() >= 256 * (1 - part), 255 - pixels, pixels)


def blended(base: Tensor, pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """`base` and the image, the image 1 +- 0.9 times."""
    factor = 1 + 0.9 * part * direction[:, None, None, None]
    return bytes_of(base + factor * (pixels.float() - base))


def color(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Towards grey, or away from it."""
    return blended(grey(pixels), pixels, part, direction)


def contrast(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Towards the mean brightness, or away from it."""
    return blended(grey(pixels).round().mean((1, 2), keepdim=True).round(), pixels, part, direction)


def brightness(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Towards black, or away from it."""
    return blended(torch.zeros_like(pixels, dtype=torch.float32), pixels, part, direction)


def sharpness(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Towards a smoothed image (3x3, the centre 5 times; the border stays), or away from it."""
    values = pixels.permute(0, 3, 1, 2).float()
    smooth = values.clone()
    if min(values.shape[2:]) >= 3:
        around = nn.functional.avg_pool2d(values, 3, 1) * 9
        smooth[:, :, 1:-1, 1:-1] = ((around + 4 * values[:, :, 1:-1, 1:-1]) / 13).round()
    return blended(smooth.permute(0, 2, 3, 1), pixels, part, direction)


def warped(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Each image sampled elsewhere: `matrix` (B, 2, 3) maps a pixel's (x, y, 1), counted from the centre, to
    the place of its value.
    """
    _, height, width, _ = pixels.shape
    down = torch.arange(height, device=pixels.device) - (height - 1) / 2
    right = torch.arange(width, device=pixels.device) - (width - 1) / 2
    y, x = torch.meshgrid(down, right, indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1)  # (H, W, 3)
    grid = torch.einsum("hwk,bjk->bhwj", points, matrix) / points.new_tensor([width / 2, height / 2])
    values = pixels.permute(0, 3, 1, 2).float() - GREY
    sampled = nn.functional.grid_sample(values, grid, padding_mode="zeros", align_corners=False)
    return bytes_of(sampled.permute(0, 2, 3, 1) + GREY)


def _matrix(direction: Tensor, entries: Callable[[float], tuple[tuple[float, ...], ...]]) -> Tensor:
    """(B, 2, 3): `entries` for either direction."""
    both = torch.tensor([entries(-1.0), entries(1.0)], device=direction.device)
    return both[(direction > 0).long()]


def rotate(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """By up to 30 degrees about the centre."""
    angle = math.radians(30 * part)
    cos, sin = math.cos(angle), math.sin(angle)
    return warped(pixels, _matrix(direction, lambda sign: ((cos, sign * sin, 0.0), (-sign * sin, cos, 0.0))))


def shear_x(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Rows moved by up to 0.3 of their distance from the centre."""
    return warped(pixels, _matrix(direction, lambda sign: ((1.0, 0.3 * part * sign, 0.0), (0.0, 1.0, 0.0))))


def shear_y(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """Columns moved by up to 0.3 of their distance from the centre."""
    return warped(pixels, _matrix(direction, lambda sign: ((1.0, 0.0, 0.0), (0.3 * part * sign, 1.0, 0.0))))


def translate_x(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """By up to 150 of 331 parts of the width."""
    shift = pixels.shape[2] * 150 / 331 * part
    return warped(pixels, _matrix(direction, lambda sign: ((1.0, 0.0, sign * shift), (0.0, 1.0, 0.0))))


def translate_y(pixels: Tensor, part: float, direction: Tensor) -> Tensor:
    """By up to 150 of 331 parts of the height."""
    shift = pixels.shape[1] * 150 / 331 * part
    return warped(pixels, _matrix(direction, lambda sign: ((1.0, 0.0, 0.0), (0.0, 1.0, sign * shift))))


OPERATIONS: dict[str, Operation] = {
    "identity": _identity,
    **{
        operation.__name__: operation
        for operation in (
            *(autocontrast, equalize, posterize, solarize, color, contrast, brightness, sharpness),
            *(rotate, shear_x, shear_y, translate_x, translate_y),
        )
    },
}
