"""baseline(): what makes a function a family of networks; and what the families share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

Family = TypeVar("Family", bound=Callable[..., nn.Module])
Fill = Callable[[Tensor], Any]


def baseline(*, small: Mapping[str, Any]) -> Callable[[Family], Family]:
    """Decorator: the function is a family, and `small` are arguments of a member that runs in a moment.

    A family takes keywords only, `classes` and `input` (channels, height, width) among them, and its defaults
    make the published network. `small` names an `input` (and may name `classes`).
    """

    def mark(build: Family) -> Family:
        build.small = dict(small)  # type: ignore[attr-defined]
        return build

    return mark


def one_of(name: str, value: Any, legal: Collection[Any]) -> None:
    """Raises ValueError that lists what is legal."""
    if value not in legal:
        raise ValueError(f"{name} must be one of {list(legal)}, not {value!r}")


def smallest(input: Sequence[int], side: int) -> None:
    """Raises ValueError for a picture from which nothing would be left."""
    if min(input[1:]) < side:
        raise ValueError(f"the input must have at least {side}x{side} pixels, not {input[1]}x{input[2]}")


def initialise(network: nn.Module, *, conv: Fill | None = None, linear: Fill | None = None) -> None:
    """Fill the weights of convolutions and of linear layers as a paper says; their biases become zero.

    What is not given keeps PyTorch's start (He et al. 2015 for a leaky ReLU of slope sqrt(5), uniform).
    """
    for module in network.modules():
        fill = conv if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) else None
        fill = linear if isinstance(module, nn.Linear) else fill
        if fill is not None:
            fill(module.weight)  # type: ignore[arg-type]
            if module.bias is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def he(weight: Tensor) -> None:
    """N(0, 2 / fan out), He et al. 2015, equation 14: the backward form, which their code uses."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")


def he_in(weight: Tensor) -> None:
    """N(0, 2 / fan in), He et al. 2015, equation 10: the forward form."""
    nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")


def xavier(weight: Tensor) -> None:
    """U(-a, a) with a = sqrt(6 / (fan in + fan out)), Glorot & Bengio 2010, equation 16."""
    nn.init.xavier_uniform_(weight)


def caffe_xavier(weight: Tensor) -> None:
    """U(-a, a) with a = sqrt(3 / fan in): what Caffe calls Xavier's."""
    nn.init.kaiming_uniform_(weight, nonlinearity="linear")


def normal(std: float) -> Fill:
    """N(0, std^2)."""
    return lambda weight: nn.init.normal_(weight, std=std)


def truncated(std: float) -> Fill:
    """N(0, std^2) within two standard deviations."""
    return lambda weight: nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
