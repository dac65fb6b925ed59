"""Elastic widths: options that share one tensor, of which each takes a part.

A path runs every operation at its own shapes. Its parameters are parts of the widest operation's: of channels
the first, of kernels the centre (Cai et al. 2020; Chen et al. 2021), of a concatenation with missing members
the columns of those present. No primitive needs code for this, only the layout that a prefix of its tensors
is its narrower self.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nas.graph import JOINS, Graph, Hole, Node


class Columns(NamedTuple):
    """Which channels of a wider input are there: `there` (a vector of places) of `full`."""

    there: Tensor
    full: int


def part(whole: Tensor, shape: torch.Size, columns: Columns | None = None) -> Tensor:
    """The part of `whole` that has `shape`: a view, or a copy where columns are picked.

    Raises ValueError if some size is larger than the whole's.
    """
    for dim, (size, wanted) in enumerate(zip(whole.shape, shape, strict=True)):
        if wanted == size:
            continue
        if columns is not None and size == columns.full and wanted == len(columns.there):
            whole = whole.index_select(dim, columns.there.to(whole.device))
        elif wanted > size:
            raise ValueError(f"a tensor of {tuple(whole.shape)} has no part of {tuple(shape)}")
        else:
            whole = whole.narrow(dim, (size - wanted) // 2 if whole.dim() == 4 and dim >= 2 else 0, wanted)
    return whole


class Sliced:
    """A narrower operation that computes with parts of a wider one's tensors.

    Args:
        template: the narrower operation, without storage (meta device).
        whole: the wider operation.
        columns: which of the wider input's channels are there, if they are not the first ones.

    Raises ValueError if the narrower operation has a parameter that the wider one lacks, or a larger one.
    """

    def __init__(self, template: nn.Module, whole: nn.Module, columns: Columns | None = None) -> None:
        self.template = template
        self.whole = whole
        self.columns = columns
        self.shapes = {name: tensor.shape for name, tensor in _tensors(template).items()}
        wide = _tensors(whole)
        for name, shape in self.shapes.items():
            if name not in wide:
                raise ValueError(f"the narrower form has {name!r}, which the wider one lacks")
            part(wide[name], shape, columns)
        wholes = dict(whole.named_modules())
        self._pairs = [(own, wholes.get(name, whole)) for name, own in template.named_modules()]

    def tensors(self) -> dict[str, Tensor]:
        """The parts, by their names in the narrower operation."""
        wide = _tensors(self.whole)
        return {name: part(wide[name], shape, self.columns) for name, shape in self.shapes.items()}

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, wide in self._pairs:  # each by itself: norms may be in another mode than what holds them
            own.training = wide.training
            if isinstance(own, nn.modules.batchnorm._BatchNorm):
                own.momentum, own.track_running_stats = wide.momentum, wide.track_running_stats
        parts = self.tensors()
        output: Tensor = functional_call(self.template, parts, inputs)
        if self.columns is not None and any(own.training for own, _ in self._pairs):
            self._write_back(parts)
        return output

    def _write_back(self, parts: Mapping[str, Tensor]) -> None:
        """Running statistics of picked columns were updated in a copy: put them where they belong."""
        assert self.columns is not None
        for name, buffer in self.whole.named_buffers():
            if name in parts and buffer.dim() and buffer.shape != parts[name].shape:
                buffer.index_copy_(0, self.columns.there.to(buffer.device), parts[name])


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def names(module: nn.Module) -> frozenset[str]:
    """The names of a module's tensors: its form."""
    return frozenset(_tensors(module))


def columns_of(
    graph: Graph, whole: Mapping[str, Node], widths: Mapping[str, int], widest: Mapping[str, int]
) -> dict[str, Columns | None]:
    """Which channels of the supernet's value a narrower one has, behind concatenations.

    Args:
        graph: filled, wholly or in its widths.
        whole: the nodes of the unfilled graph.
        widths, widest: the channels of every node here, and at the most.
    """
    columns: dict[str, Columns | None] = {}
    for node in graph.nodes[1:]:
        if node.op == "concat":
            starts, start = {}, 0
            for name in whole[node.name].inputs:
                starts[name] = start
                start += widest[name]
            there = [torch.arange(widths[n]) + starts[n] for n in node.inputs]
            if widths[node.name] != start:
                columns[node.name] = Columns(torch.cat(there), start)
        elif node.op in JOINS or node.out is None:
            columns[node.name] = columns.get(node.inputs[0])
    return columns


def width_holes(graph: Graph) -> dict[str, Hole | None]:
    """For each node, the hole that decides the channels of its value; None if they are fixed."""
    holes: dict[str, Hole | None] = {}
    for node in graph.nodes:
        if isinstance(node.out, Hole):
            holes[node.name] = node.out
        elif node.out is not None or not node.inputs or node.op == "concat":
            holes[node.name] = None
        else:
            holes[node.name] = holes[node.inputs[0]]
    return holes
