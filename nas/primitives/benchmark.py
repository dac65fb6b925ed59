"""Operations of tabular benchmarks: truncation, 2x2 max pooling, NAS-Bench-101's names (Ying et al. 2019)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from nas.primitives.conv import conv_bn
from nas.primitives.pool import max_pool
from nas.primitives.primitive import PRIMITIVES, Build, Tally, primitive

VERTICES: dict[
    str, tuple[Build, dict[str, Any]]
] = {  # NAS-Bench-101's name -> the operation, and the attributes that the name fixes
    "conv3x3-bn-relu": (conv_bn, {"kernel": 3, "act": "relu"}),
    "conv1x1-bn-relu": (conv_bn, {"kernel": 1, "act": "relu"}),
    "maxpool3x3": (max_pool, {"kernel": 3}),
}
for name, (build, fixed) in VERTICES.items():
    known = PRIMITIVES[build.__name__]
    PRIMITIVES.register(name)(replace(known, name=name, fixed=fixed, attributes={}))


class Truncate(nn.Module):
    """The first `channels` channels, and zeros for those that there are not.

    (batch, c, h, w) -> (batch, channels, h, w).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        missing = self.channels - x.shape[1]
        return nn.functional.pad(x, (0, 0, 0, 0, 0, missing)) if missing > 0 else x[:, : self.channels]

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def _truncated(t: Tally, c: int, stride: int, affine: bool) -> None:
    t.c = c


@primitive("truncate", cost=_truncated, strides=(1,))
def truncate(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """The first c_out channels of the input; zeros where there are fewer"""
    return nn.Identity() if c_in == c_out else Truncate(c_out)


@primitive("max_pool_2x2", cost=lambda t, c, s, a: t.pool(s), keeps=True)
def max_pool_2x2(c_in: int, c_out: int, stride: int = 2, affine: bool = True) -> nn.Module:
    """2x2 max pooling of stride 2, of an odd last row or column what is there; at stride 1 the input"""
    return nn.Identity() if stride == 1 else nn.MaxPool2d(2, stride, ceil_mode=True)
