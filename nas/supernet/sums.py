"""Sums of weighted, normalised tensors: what a group of mixtures comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.kernels import mixing
from nas.kernels.mixing import Norm, Term, to_targets


class Norms:
    """Batch norms of one shape as one, over the channels of all.

    Their statistics are parts of one tensor from `tie` on. All norms of a supernet are in one mode: that of
    the first is read.
    """

    def __init__(self, norms: Sequence[nn.BatchNorm2d]) -> None:
        self.norms = norms
        self.first = norms[0]
        self.mean: Tensor | None = None  # (lanes, channels), as the variance
        self.var: Tensor | None = None

    @property
    def batch(self) -> bool:
        """Whether the statistics of the batch are used."""
        return self.first.training or self.first.running_mean is None

    @property
    def moves(self) -> bool:
        """Whether the running statistics follow those of the batch."""
        return self.first.training and self.first.track_running_stats

    @property
    def tied(self) -> bool:
        """Whether the statistics are parts of one tensor, as far as can be seen."""
        own = self.first.running_mean
        return own is None or (self.mean is not None and own.data_ptr() == self.mean.data_ptr())

    def tie(self) -> None:
        """Lay the statistics side by side."""
        self.mean = laid(self.norms, "running_mean")
        self.var = laid(self.norms, "running_var")

    def norm(self) -> Norm:
        """The norm of this pass, for the kernels."""
        if not self.moves:
            return Norm(self.first.eps)
        momentum = self.first.momentum
        if momentum is None:  # the plain mean over batches
            momentum = 1.0 / float(self.first.num_batches_tracked)  # type: ignore[arg-type]
        return Norm(self.first.eps, momentum, self.mean, self.var)

    def affine(self) -> tuple[Tensor | None, Tensor | None]:
        """Scales and shifts of all, (lanes x channels); none if they have none."""
        if not self.first.affine:
            return None, None
        return joined([norm.weight for norm in self.norms]), joined([norm.bias for norm in self.norms])

    def wide(self, x: Tensor) -> Tensor:
        """(batch, lanes x channels, ...) normalised."""
        norm = self.norm()
        mean, var = (norm.mean, norm.var) if self.batch else (self.mean, self.var)
        mean, var = (None if each is None else each.flatten() for each in (mean, var))
        return F.batch_norm(x, mean, var, *self.affine(), self.batch, norm.momentum, norm.eps)

    def times(self, weight: Tensor) -> tuple[Norm | None, Tensor, Tensor | None]:
        """Norms times a weight (lanes x channels) as a norm without scale and shift, if the batch is to be
        normalised by its own statistics; the scale (lanes x channels) and the shift behind it.
        """
        scale, shift = self.affine()
        scale = weight if scale is None else scale * weight
        shift = None if shift is None else shift * weight
        if self.batch:
            return self.norm(), scale, shift
        assert self.mean is not None
        assert self.var is not None
        scale = torch.rsqrt(self.var.flatten() + self.first.eps) * scale
        offset = -self.mean.flatten() * scale
        return None, scale, offset if shift is None else shift + offset


def laid(norms: Sequence[nn.BatchNorm2d], name: str) -> Tensor:
    """A statistic of all norms in one tensor, of which each has its part."""
    whole = torch.stack([getattr(norm, name) for norm in norms])
    for norm, part in zip(norms, whole.unbind(0), strict=True):
        norm._buffers[name] = part
    return whole


class Value(NamedTuple):
    """A tensor on its way into the sums: of the channels of all lanes, or shared; perhaps to be normed yet.

    `targets`: which sum each lane goes to. `weight`: (lanes x channels).
    """

    targets: tuple[int, ...]
    x: Tensor
    weight: Tensor
    shared: bool
    norms: Norms | None


def summed(values: Sequence[Value], targets: int) -> list[Tensor]:
    """What the mixtures of a group come to: a tensor (batch, channels, height, width) for each target."""
    if any(value.x.dim() != 4 for value in values):
        return _alone(values, targets)
    terms, total = [], None
    for value in values:
        norm, scale, shift = (
            (None, value.weight, None) if value.norms is None else value.norms.times(value.weight)
        )
        kind = value.x.dtype if value.x.dtype.itemsize >= 4 else torch.float32  # norms have no fewer digits
        terms.append(Term(value.x, scale.to(kind), value.targets, value.shared, norm))
        if shift is not None:
            shift = to_targets(shift, value.targets, targets)
            total = shift if total is None else total + shift
    whole = mixing.mixed(terms, targets)
    if total is not None:
        whole = whole + total.to(whole.dtype)[:, None, None]
    return list(whole.chunk(targets, 1))


def _alone(values: Sequence[Value], targets: int) -> list[Tensor]:
    """Of what has no height and width, and so comes of operations of which nothing is known."""
    found: dict[int, Tensor] = {}
    for value in values:
        (target,), y = value.targets, value.x * value.weight[0].to(value.x.dtype)
        found[target] = found[target] + y if target in found else y
    return [found[target] for target in range(targets)]


def joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
