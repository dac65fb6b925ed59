"""Mixture: the options of one node, mixed or selected. The plain, obviously right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nas.graph import Hole, Node, Option

Weights = Mapping[str, Sequence[Sequence[Tensor]]]  # decision -> rows -> options -> a scalar
Pick = tuple[tuple[Hole, int], ...]  # each hole of the node, and the index of the option in its decision


class Mixture(nn.Module):
    """All options of a node with holes: sum over options of (product of weights) x (that option's output).

    Args:
        picks: for each option, the holes and the index picked in each.
        modules: the option's module, or None where there is no connection (``none``): its weight counts in
            the softmax, its output is zero and is not computed.
        keys: a name for each option, for the parameters.
    """

    mixed = True

    def __init__(
        self, picks: Sequence[Pick], modules: Sequence[nn.Module | None], keys: Sequence[str]
    ) -> None:
        super().__init__()
        self.entries: list[tuple[Pick, nn.Module]] = []
        for pick, module, key in zip(picks, modules, keys, strict=True):
            if module is not None:
                self.add_module(key, module)
                self.entries.append((pick, module))

    def forward(self, *inputs: Tensor, weights: Weights) -> Tensor:
        """Inputs and output: (batch, channels, height, width). `weights`: scalars by decision, row and
        option.
        """
        total: Tensor | None = None
        for pick, module in self.entries:
            term = module(*inputs) * _product(pick, weights)
            total = term if total is None else total + term
        assert total is not None
        return total


class Gate(nn.Module):
    """A node that is there with the weight of one option: its output times that weight (`when`)."""

    mixed = True

    def __init__(self, module: nn.Module, when: Hole, index: int) -> None:
        super().__init__()
        self.module = module
        self.pick: Pick = ((when, index),)

    def forward(self, *inputs: Tensor, weights: Weights) -> Tensor:
        mixed = isinstance(self.module, Mixture)
        output: Tensor = self.module(*inputs, weights=weights) if mixed else self.module(*inputs)
        return output * _product(self.pick, weights)


class Join(nn.Module):
    """A sum, mean or concatenation as a module, so that a gate can hold it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        joined: Tensor = self.function(*inputs)
        return joined


def _product(pick: Pick, weights: Weights) -> Tensor:
    first, *rest = [weights[hole.decision][hole.row][index] for hole, index in pick]
    return torch.stack([first, *rest]).prod() if rest else first


def option_key(op: str, attrs: Mapping[str, Option]) -> str:
    """A name for an option that can be part of a parameter's name."""
    parts = [op, *(f"{name}_{value}" for name, value in attrs.items())]
    return "-".join(parts).replace(".", "_").replace("/", "_")


def hole_attributes(node: Node) -> dict[str, Hole]:
    """The attributes of the node that are holes."""
    return {name: value for name, value in node.attrs if isinstance(value, Hole)}
