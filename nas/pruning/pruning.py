"""PRUNINGS: the ways to make a trained network smaller, by name."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from nas.counting import Cost
from nas.graph import Shape
from nas.pruning.surgery import Surgery
from nas.registry import Registry


class Pruning(Protocol):
    """One way to prune. A step is `cut`, training, `release`, in this order; parts are cumulative."""

    def cut(self, network: nn.Module, *, before: float, after: float, example: Tensor) -> Surgery | None:
        """Remove the part `after` of what the first network had, of which `before` is gone; in place.

        Args:
            network: in evaluation mode; not the caller's only copy.
            before, after: parts in [0, 1), before < after.
            example: normalised images (n, channels, height, width) on the network's device.

        Gives the surgery, if tensors changed their shapes. What is removed stays removed in training until
        `release`. Raises ValueError for a network that this way does not apply to.
        """
        ...

    def release(self, network: nn.Module) -> None:
        """Take away what kept removed weights at zero during the training: a plain network remains."""
        ...

    def size(self, network: nn.Module, input: Shape) -> Cost:
        """What is left of it, for images (channels, height, width)."""
        ...


#: The ways, as objects.
PRUNINGS: Registry[Pruning] = Registry("kind of pruning")
