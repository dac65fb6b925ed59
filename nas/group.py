"""Group: processes that train one supernet together, each on its part of every batch.

All of them do the same, from the same seeds; what depends on images is averaged over the group: gradients of
weights and alphas, statistics of batch norms, accuracies. So the group computes what one process would with
the whole batch, but for the order of its sums; and for what is drawn for each image in the network, as
dropout, which is drawn alike for every part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

MOST = dist.ReduceOp.MAX


class Group:
    """A process alone."""

    rank, size = 0, 1

    @property
    def share(self) -> tuple[int, int]:
        """Which part of a batch is this process's, of how many."""
        return self.rank, self.size

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace the tensors by their means over the group."""

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The means over the group, through which gradients flow."""
        return list(tensors)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the group."""
        return tensor

    def agree(self, tensors: Sequence[Tensor], what: str) -> None:
        """Raises RuntimeError if the tensors are not the same, to the bit, in all processes."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within it batch norms see the whole batch."""
        yield


class _Sum(torch.autograd.Function):
    """The sum over the group, whose gradient is the sum over the group of gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _sum(tensor: Tensor) -> Tensor:
    summed: Tensor = _Sum.apply(tensor.contiguous())  # type: ignore[no-untyped-call]
    return summed


class Ranks(Group):
    """The processes of `torch.distributed`."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def average(self, tensors: Sequence[Tensor]) -> None:
        if not tensors:
            return
        with torch.no_grad():
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat)
            flat /= self.size
            for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def mean(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        flat = _sum(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for tensor, part in zip(tensors, parts, strict=True)]

    def total(self, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    def agree(self, tensors: Sequence[Tensor], what: str) -> None:
        if not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        extremes = torch.stack([flat, -flat])
        dist.all_reduce(extremes, MOST)
        if not torch.equal(extremes[0], -extremes[1]) and not flat.isnan().any():
            raise RuntimeError(f"the {what} are not the same in all {self.size} processes of the group")

    @contextmanager
    def together(self) -> Iterator[None]:
        with _WholeBatch(self):
            yield


_BATCH_NORM = signature(nn.functional.batch_norm)


class _WholeBatch(TorchFunctionMode):
    """Batch norms in training normalise by the statistics of the group's whole batch.

    Parts are of one size, so the mean is that of the parts' means, and the variance the mean of theirs plus
    that of their means (Chan, Golub, LeVeque 1979).
    """

    of_a_group = True  # norms that are no call of `batch_norm` must not be used

    def __init__(self, group: Ranks) -> None:
        super().__init__()
        self.group = group

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is nn.functional.batch_norm:
            given = _BATCH_NORM.bind(*args, **(kwargs or {}))
            given.apply_defaults()
            if given.arguments["training"]:
                return self._normalised(**given.arguments)
        return func(*args, **(kwargs or {}))

    def _normalised(
        self, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
        weight: Tensor | None, bias: Tensor | None, training: bool, momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        size, channels = self.group.size, input.shape[1]
        dims = [d for d in range(input.dim()) if d != 1]
        exact = input.to(torch.promote_types(input.dtype, torch.float32))  # as the running statistics
        var, mean = torch.var_mean(exact, dims, correction=0)
        own = torch.zeros(size, 1, 1, dtype=exact.dtype, device=input.device)
        own[self.group.rank] = 1.0
        means, variances = _sum(own * torch.stack([mean, var])).unbind(1)
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)
        if running_mean is not None and running_var is not None:
            count = size * input.numel() // channels
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_var.lerp_(var * count / max(1, count - 1), momentum)
        scale = torch.rsqrt(var + eps) * (1.0 if weight is None else weight)
        shift = (0.0 if bias is None else bias) - mean * scale
        shape = [1, channels] + [1] * (input.dim() - 2)
        normalised: Tensor = exact * scale.view(shape) + shift.view(shape)
        return normalised.to(input.dtype)
