"""Mixture and its kin: how the options of one node are mixed. The plain, obviously right formulation.

Each is a callable of the node's inputs and of `weights`: scalars by decision, row and option.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nas.graph import Hole, Option
from nas.network import Runner, drop_path, is_identity
from nas.search_space import Architecture, SearchSpace
from nas.supernet.norms import norms

Pick = tuple[tuple[Hole, int], ...]  # each hole of the node, and the index of the option in its decision


class Weights(dict[str, list[list[Tensor]]]):
    """The weights of one pass: decision -> rows -> options -> a scalar.

    Args:
        tables: decision -> (rows, options).
        active: the same shapes, true for the options that are run; None: all of them are.
        drop: the probability with which an option that is no identity is dropped, for each example.
    """

    def __init__(
        self, tables: Mapping[str, Tensor], active: Mapping[str, Tensor] | None = None, drop: float = 0.0
    ) -> None:
        super().__init__()
        self.tables = tables
        self.kept: dict[object, Any] = {}  # what is worked out once a pass
        self.active = None if active is None else {name: table.tolist() for name, table in active.items()}
        self.drop = drop

    def __missing__(self, name: str) -> list[list[Tensor]]:
        rows = self[name] = [list(row.unbind(0)) for row in self.tables[name].unbind(0)]
        return rows

    def runs(self, pick: Pick) -> bool:
        """Whether an option is run."""
        active = self.active
        return active is None or all(active[hole.decision][hole.row][index] for hole, index in pick)


class Options(nn.Module):
    """The modules of one node, an option each, by `option_key`."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for key, module in modules.items():
            self.add_module(key, module)


class Mixture:
    """All options of a node with holes: sum over options of (product of weights) x (that option's output).

    `entries`: for each option that computes something, the holes and the index picked in each, and the
    option. ``none`` has no entry: its weight counts in the softmax, its output is zero and is not computed.
    """

    mixed = True

    def __init__(self, entries: Sequence[tuple[Pick, Runner]]) -> None:
        self.entries = entries

    def __call__(self, *inputs: Tensor, weights: Weights) -> Tensor:
        """Inputs and output: (batch, channels, height, width)."""
        total: Tensor | None = None
        for pick, option in self.running(weights.runs):
            output = run(option, inputs, weights)
            if weights.drop and not is_identity(option):
                output = drop_path(output, weights.drop)
            term = output * product_of(pick, weights)
            total = term if total is None else total + term
        assert total is not None
        return total

    def idle(self, runs: Callable[[Pick], bool]) -> bool:
        """Whether none of the options is run."""
        return not any(runs(pick) for pick, _ in self.entries)

    def running(self, runs: Callable[[Pick], bool]) -> Sequence[tuple[Pick, Runner]]:
        """The options that are run. Where `none` alone is, any other, of weight zero, tells the shape."""
        return [entry for entry in self.entries if runs(entry[0])] or self.entries[:1]


class Recomputed:
    """A mixture whose inner values are computed again for the gradient, instead of being kept till then.

    Activation checkpointing (Chen, Xu, Zhang, Guestrin 2016): the memory of one mixture at a time, for one
    more forward pass. The second one moves no running statistics.

    Args:
        mixture: the operations of one node.
        module: what holds their tensors.
    """

    mixed = True

    def __init__(self, mixture: Runner, module: nn.Module) -> None:
        self.mixture = mixture
        self.module = module

    def __call__(self, *inputs: Tensor, weights: Weights) -> Tensor:
        if not torch.is_grad_enabled():
            return run(self.mixture, inputs, weights)
        found: Tensor = checkpoint(
            lambda *x: run(self.mixture, x, weights),
            *inputs,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), self._still()),
        )
        return found

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Without moving running statistics, but with all tensors that the first pass kept, these too."""
        own = [norm for norm in norms(self.module) if norm.track_running_stats]
        momenta = [norm.momentum for norm in own]
        counts = [norm.num_batches_tracked.clone() for norm in own if norm.num_batches_tracked is not None]
        for norm in own:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(own, momenta, strict=True):
                norm.momentum = momentum
            counted = (norm.num_batches_tracked for norm in own if norm.num_batches_tracked is not None)
            for count, before in zip(counted, counts, strict=True):
                count.copy_(before)


class Gate:
    """A node that is there with the weight of one option: its output times that weight (`when`)."""

    mixed = True

    def __init__(self, runner: Runner, pick: Pick) -> None:
        self.runner = runner
        self.pick = pick

    def __call__(self, *inputs: Tensor, weights: Weights) -> Tensor:
        return run(self.runner, inputs, weights) * product_of(self.pick, weights)


class Masked:
    """A choice of width, softly: channel c has the weight of all widths above c (FBNetV2, Wan et al. 2020).

    `own`: the node itself chooses its width; otherwise it keeps the channels of a node that does, and only
    those without any weight are closed again (a batch norm gives them a value).
    """

    mixed = True

    def __init__(self, runner: Runner, hole: Hole, sizes: Sequence[int], *, own: bool) -> None:
        self.runner = runner
        self.hole = hole
        self.below = torch.tensor([[float(c < size) for c in range(max(sizes))] for size in sizes])
        self.own = own

    def __call__(self, *inputs: Tensor, weights: Weights) -> Tensor:
        output = run(self.runner, inputs, weights)
        row = torch.stack(list(weights[self.hole.decision][self.hole.row]))
        self.below = self.below.to(row)  # (options, channels); moved once
        mask = row @ self.below
        if not self.own:
            mask = (mask > 0).to(output.dtype)
        return output * mask.reshape(1, -1, *[1] * (output.dim() - 2))


class Either:
    """An operation with one form where the width stays and another where it changes, both mixed.

    `pairs`: the options (of the width before, of the width after) that are equal widths.
    """

    mixed = True

    def __init__(
        self, same: Runner, changed: Runner, holes: tuple[Hole, Hole], pairs: Sequence[tuple[int, int]]
    ) -> None:
        self.same = same
        self.changed = changed
        self.holes = holes
        self.pairs = pairs

    def __call__(self, *inputs: Tensor, weights: Weights) -> Tensor:
        before, after = (weights[hole.decision][hole.row] for hole in self.holes)
        equal = torch.stack([before[i] * after[j] for i, j in self.pairs]).sum()
        total = sum(before[1:], before[0]) * sum(after[1:], after[0])
        same, changed = self.same(*inputs), self.changed(*inputs)
        return equal * same + (total - equal) * changed[:, : same.shape[1]]


def run(runner: Runner, inputs: Sequence[Tensor], weights: Weights) -> Tensor:
    """Call a runner, with the weights if it mixes."""
    return runner(*inputs, weights=weights) if getattr(runner, "mixed", False) else runner(*inputs)


def product_of(pick: Pick, weights: Weights) -> Tensor:
    """The product of the weights of the picked options; of one that is not active it is 0."""
    first, *rest = [weights[hole.decision][hole.row][index] for hole, index in pick]
    found = torch.stack([first, *rest]).prod() if rest else first
    return found if weights.runs(pick) else 0 * found


def option_key(op: str, attrs: Mapping[str, Option]) -> str:
    """A name for an option that can be part of a parameter's name; other options have other names."""
    parts = [op, *(f"{name}_{value}" for name, value in attrs.items())]
    plain = "-".join(parts)
    key = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in plain)
    if "/" not in op:
        return key
    path = hashlib.sha256(op.encode()).hexdigest()[:8]  # of one's own: the file's name, and which file
    return option_key(op.rpartition("/")[2], attrs) + "-" + path


def hard(space: SearchSpace, weights: Mapping[str, Tensor]) -> Architecture:
    """The architecture that tables of 0 and 1 describe. Raises ValueError for other tables."""
    tables = {d.name: weights[d.name].tolist() for d in space.decisions}
    choices = {d.name: d.project(tables[d.name]) for d in space.decisions}
    for decision in space.decisions:
        if decision.mask(choices[decision.name]) != tables[decision.name]:
            raise ValueError(
                f"the wiring of {space.name!r} decides its widths, so its options cannot be mixed: give an "
                f"architecture (a path), or a table of 0 and 1 for {decision.name!r}"
            )
    return space.architecture(choices)
