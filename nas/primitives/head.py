"""Ends of a network: the last norm, global pooling, classifiers."""

from __future__ import annotations

from torch import Tensor, nn

from nas.primitives.primitive import Tally, primitive


@primitive("bn_relu", cost=lambda t, c, s, a: t.norm(a), strides=(1,), keeps=True)
def bn_relu(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """Batch norm, then ReLU"""
    return nn.Sequential(nn.BatchNorm2d(c_out, affine=affine), nn.ReLU())


class GlobalAveragePool(nn.Module):
    """(batch, channels, h, w) -> (batch, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def _global(t: Tally, c: int, stride: int, affine: bool) -> None:
    t.h = t.w = 1


@primitive("global_avg_pool", cost=_global, strides=(1,), keeps=True)
def global_avg_pool(c_in: int, c_out: int, stride: int = 1, affine: bool = True) -> nn.Module:
    """The mean over height and width: (batch, channels)"""
    return GlobalAveragePool()


@primitive(
    "linear",
    cost=lambda t, c, s, a, bias=True: t.linear(c, bias),
    strides=(1,),
    flat=True,
    attributes={"bias": (True, False)},
)
def linear(c_in: int, c_out: int, stride: int = 1, affine: bool = True, bias: bool = True) -> nn.Module:
    """Linear layer on (batch, channels)"""
    return nn.Linear(c_in, c_out, bias)


class AuxiliaryHead(nn.Module):
    """A second classifier (Szegedy 2015) as in the DARTS code: (batch, c_in, h, w) -> (batch, classes).

    An average pooling of 5, a 1x1 convolution to 128 and a 2x2 one to 768 channels; what remains of the
    picture is averaged. On the published sizes (8x8 with stride 3, 7x7 with stride 2) one pixel remains. The
    ImageNet form has no second norm, as in the published code.
    """

    def __init__(
        self, c_in: int, classes: int, stride: int, affine: bool = True, second_norm: bool = True
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride, count_include_pad=False),
            nn.Conv2d(c_in, 128, 1, bias=False),
            nn.BatchNorm2d(128, affine=affine),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768, affine=affine) if second_norm else nn.Identity(),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def _auxiliary(t: Tally, c: int, stride: int, affine: bool, second_norm: bool = True) -> None:
    t.h, t.w = (t.h - 5) // stride + 1, (t.w - 5) // stride + 1
    t.conv(128).norm(affine)
    side_h, side_w = t.h - 1, t.w - 1
    t.params += 128 * 768 * 4 + (2 * 768 if affine and second_norm else 0)
    t.macs += 128 * 768 * 4 * side_h * side_w
    t.c, t.h, t.w = 768, 1, 1
    t.linear(c)


@primitive("auxiliary_head", cost=_auxiliary, strides=(2, 3), least=lambda stride: 5 + stride)
def auxiliary_head(
    c_in: int, c_out: int, stride: int = 3, affine: bool = True, second_norm: bool = True
) -> nn.Module:
    """A second classifier for training, as in the DARTS networks"""
    return AuxiliaryHead(c_in, c_out, stride, affine, second_norm)
