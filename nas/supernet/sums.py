"""Sums of weighted, normalised tensors: what a group of mixtures comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.kernels import mixing
from nas.kernels.mixing import Norm, Term


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

    def wide(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(batch, lanes x channels, ...) normalised, times a weight a channel."""
        scale, shift = self.affine()
        if weight is not None:
            scale = weight if scale is None else scale * weight
            shift = None if shift is None else shift * weight
        norm = self.norm()
        mean, var = (norm.mean, norm.var) if self.batch else (self.mean, self.var)
        mean, var = (None if each is None else each.flatten() for each in (mean, var))
        return F.batch_norm(x, mean, var, scale, shift, self.batch, norm.momentum, norm.eps)

    def shared(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """One tensor (batch, channels, ...) that all norms read, as another one; and what each makes of that
        times its weight: a scale and a shift, (lanes x channels).
        """
        scale, shift = self.affine()
        scale = weight if scale is None else scale * weight
        shift = None if shift is None else shift * weight
        if self.batch:
            norm, own = self.norm(), x.new_zeros(2, x.shape[1])
            x = F.batch_norm(x, own[0], own[1], None, None, True, 1.0, norm.eps)
            if norm.mean is not None and norm.var is not None:
                norm.mean.lerp_(own[0], norm.momentum)
                norm.var.lerp_(own[1], norm.momentum)
            return x, scale, shift
        assert self.mean is not None
        assert self.var is not None
        scale = torch.rsqrt(self.var.flatten() + self.first.eps) * scale
        offset = self.mean.flatten() * scale
        return x, scale, -offset if shift is None else shift - offset


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
    values = [value._replace(weight=value.weight.to(value.x.dtype)) for value in values]
    if any(value.x.dim() != 4 for value in values):
        return _alone(values, targets)
    whole = _compiled(values, targets) if _fits(values) else _composed(values, targets)
    return list(whole.chunk(targets, 1))


def _alone(values: Sequence[Value], targets: int) -> list[Tensor]:
    """Of what has no height and width, and so comes of operations of which nothing is known."""
    found: dict[int, Tensor] = {}
    for value in values:
        (target,), y = value.targets, value.x * value.weight[0]
        found[target] = found[target] + y if target in found else y
    return [found[target] for target in range(targets)]


def _fits(values: Sequence[Value]) -> bool:
    """Whether the kernel computes with these values: of one size and type, a weight for each channel."""
    first = values[0].x
    return mixing.usable(first) and all(
        (value.x.dtype, value.x.device) == (first.dtype, first.device)
        and (value.x.shape[0], *value.x.shape[2:]) == (first.shape[0], *first.shape[2:])
        and value.x.shape[1] * (len(value.targets) if value.shared else 1) == value.weight.numel()
        and (value.norms is None or value.norms.batch)
        for value in values
    )


def _compiled(values: Sequence[Value], targets: int) -> Tensor:
    terms, bias = [], None
    for value in values:
        weight, norm = value.weight, None
        if value.norms is not None:
            norm = value.norms.norm()
            scale, shift = value.norms.affine()
            if scale is not None and shift is not None:
                offset = _to_targets(value, shift * weight, targets)
                weight, bias = scale * weight, offset if bias is None else bias + offset
        terms.append(Term(value.x, weight, value.targets, value.shared, norm))
    found = mixing.mixed(terms, targets)
    return found if bias is None else found + bias[:, None, None]


def _composed(values: Sequence[Value], targets: int) -> Tensor:
    """By PyTorch's own operations; what is wide first, so that sums have the layout of channels-last."""
    total: Tensor | None = None
    for value in sorted(values, key=lambda value: value.shared):
        x, weight, shift, lanes = value.x, value.weight, None, len(value.targets)
        if value.shared and value.norms is not None:
            x, weight, shift = value.norms.shared(x, weight)
        if value.shared and total is not None and value.targets == tuple(range(targets)):
            whole = total.unflatten(1, (targets, -1))  # type: ignore[no-untyped-call]
            total = torch.addcmul(whole, x.unsqueeze(1), weight.view(lanes, -1, 1, 1)).flatten(1, 2)
            total = total if shift is None else total + shift[:, None, None]
            continue
        if not value.shared and value.norms is not None:
            y = value.norms.wide(x, weight)
        else:
            y = (torch.cat([x] * lanes, 1) if value.shared else x) * weight[:, None, None]
            y = y if shift is None else y + shift[:, None, None]
        y = _to_targets(value, y, targets, 1)
        total = y if total is None else total + y
    assert total is not None
    return total


def _to_targets(value: Value, y: Tensor, targets: int, dim: int = 0) -> Tensor:
    """The channels of all lanes added up by target: lanes x channels -> targets x channels."""
    if value.targets == tuple(range(targets)):
        return y
    parts = y.unflatten(dim, (len(value.targets), -1))  # type: ignore[no-untyped-call]
    size = list(parts.shape)
    size[dim] = targets
    index = torch.tensor(value.targets, device=y.device)
    return y.new_zeros(size).index_add(dim, index, parts).flatten(dim, dim + 1)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
