"""NASWOT: J. Mellor, J. Turner, A. Storkey, E. Crowley, Neural Architecture Search without Training (ICML
2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.evaluators.proxies.functions import ACTIVATIONS
from nas.evaluators.proxies.proxy import operand, proxy


@proxy("naswot")
def naswot(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Log-determinant of how often two images agree on which units are active (Mellor et al. 2021)

    Of every activation function in the network, wherever it is called, each unit says whether what enters it
    is positive. The score is -inf if two images cannot be told apart by that.
    """
    with torch.no_grad(), Codes(len(images)) as codes:
        network(images)
    sign, logarithm = torch.linalg.slogdet(codes.agreements)
    return logarithm.item() if sign > 0 else -torch.inf


class Codes(TorchFunctionMode):
    """Counts, for every two images, the units on which they agree."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.agreements = torch.zeros(images, images, dtype=torch.float64)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in ACTIVATIONS:
            code = (operand(args, kwargs) > 0).flatten(1).float()
            signs = 2 * code - 1  # their products: agreements less disagreements
            self.agreements += (signs @ signs.T + signs.shape[1]).double().cpu() / 2
        return func(*args, **(kwargs or {}))
