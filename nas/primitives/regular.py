"""Regularisers: normalisation of responses across channels, dropout of values and of whole paths."""

from __future__ import annotations

from torch import Tensor, nn

from nas.primitives.primitive import Tally, primitive


def _free(t: Tally, c: int, s: int, a: bool, **attributes: object) -> Tally:
    return t


def _window(c_in: int, c_out: int, stride: int, size: int = 5, **others: object) -> str | None:
    return None if size >= 1 else f"a sum over {size} channels is none: size must be at least 1"


def _probability(c_in: int, c_out: int, stride: int, rate: float = 0.5) -> str | None:
    return None if 0 <= rate < 1 else f"rate is the probability of zero, in [0, 1), not {rate}"


@primitive(
    "lrn",
    cost=_free,
    strides=(1,),
    keeps=True,
    rule=_window,
    attributes={"size": (5, 3), "alpha": (1e-4, 1e-3), "beta": (0.75, 0.5), "k": (2.0, 1.0)},
)
def lrn(
    c_in: int,
    c_out: int,
    stride: int = 1,
    affine: bool = True,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
) -> nn.Module:
    """Local response normalisation (Krizhevsky et al. 2012): x / (k + alpha * sum of squares) ** beta

    The sum is over `size` neighbouring channels at the same position.
    """
    return nn.LocalResponseNorm(size, alpha * size, beta, k)  # PyTorch takes the mean of the squares


@primitive(
    "dropout", cost=_free, strides=(1,), keeps=True, rule=_probability, attributes={"rate": (0.5, 0.0)}
)
def dropout(c_in: int, c_out: int, stride: int = 1, affine: bool = True, rate: float = 0.5) -> nn.Module:
    """In training, each value is zero with probability `rate` (Srivastava et al. 2014)"""
    return nn.Dropout(rate)


class DropPath(nn.Module):
    """In training, zeroes whole examples with probability `rate` and scales the others so that the mean stays
    (Huang et al. 2016; Larsson et al. 2017): (batch, ...), same shape.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0], *[1] * (x.dim() - 1))).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


@primitive(
    "drop_path", cost=_free, strides=(1,), keeps=True, rule=_probability, attributes={"rate": (0.2, 0.0)}
)
def drop_path(c_in: int, c_out: int, stride: int = 1, affine: bool = True, rate: float = 0.2) -> nn.Module:
    """In training, a whole example is zero with probability `rate`: placed at the end of a branch"""
    return DropPath(rate)
