"""Surgery: channels taken out of a network, as data: what is cut can be written down, and cut again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.pruning.book import Bundle


@dataclass(frozen=True)
class Surgery:
    """What is removed.

    Attributes:
        cuts: tensor -> dimension -> the indices that go, ascending.
        fewer: module -> attribute -> by how much the number falls.
    """

    cuts: Mapping[str, Mapping[int, tuple[int, ...]]]
    fewer: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, removed: Iterable[Bundle]) -> Surgery:
        """The surgery that removes these channels."""
        cuts: dict[str, dict[int, set[int]]] = {}
        fewer: dict[str, dict[str, int]] = {}
        for bundle in removed:
            for name, dim, index in bundle.places:
                cuts.setdefault(name, {}).setdefault(dim, set()).add(index)
            for module, attribute in bundle.attributes:
                counts = fewer.setdefault(module, {})
                counts[attribute] = counts.get(attribute, 0) + 1
        sorted_cuts = {
            name: {dim: tuple(sorted(found)) for dim, found in dims.items()} for name, dims in cuts.items()
        }
        return cls(sorted_cuts, fewer)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for `from_dict`."""
        cuts = {name: {dim: list(found) for dim, found in dims.items()} for name, dims in self.cuts.items()}
        return {"cuts": cuts, "fewer": {module: dict(counts) for module, counts in self.fewer.items()}}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Surgery:
        """What `to_dict` gave."""
        cuts = {
            name: {int(dim): tuple(found) for dim, found in dims.items()}
            for name, dims in content["cuts"].items()
        }
        return cls(cuts, content["fewer"])

    def operate(self, network: nn.Module) -> None:
        """Remove the channels from `network`, in place: every tensor becomes a smaller one."""
        for path, counts in self.fewer.items():
            module = network.get_submodule(path)
            for attribute, count in counts.items():
                setattr(module, attribute, getattr(module, attribute) - count)
        touched: dict[str, None] = {}
        for name, dims in self.cuts.items():
            path, _, leaf = name.rpartition(".")
            module, tensor = network.get_submodule(path), _tensor(network, name)
            with torch.no_grad():
                smaller = tensor.detach()
                for dim, gone in dims.items():
                    smaller = smaller.index_select(dim, _kept(smaller, dim, gone))
                smaller = smaller.clone(memory_format=torch.contiguous_format)
            if isinstance(tensor, nn.Parameter):
                setattr(module, leaf, nn.Parameter(smaller, requires_grad=tensor.requires_grad))
            else:
                setattr(module, leaf, smaller)
            touched[path] = None
        for path in touched:
            _recount(network.get_submodule(path))

    @torch.no_grad()
    def blank(self, network: nn.Module) -> None:
        """Set the channels to zero in place, in all tensors that they run through: the same function."""
        for name, dims in self.cuts.items():
            tensor = _tensor(network, name)
            for dim, gone in dims.items():
                tensor.index_fill_(dim, torch.tensor(gone, device=tensor.device), 0)


def _tensor(network: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    found: Tensor = getattr(network.get_submodule(path), leaf)
    return found


def _kept(tensor: Tensor, dim: int, gone: tuple[int, ...]) -> Tensor:
    keep = torch.ones(tensor.shape[dim], dtype=torch.bool)
    keep[list(gone)] = False
    return keep.nonzero()[:, 0].to(tensor.device)


def _recount(module: nn.Module) -> None:
    """What a layer says of itself, by its tensors."""
    if isinstance(module, nn.Conv2d):
        outs, inward = module.weight.shape[:2]
        if module.groups > 1 and module.groups == module.in_channels:  # depthwise: as many groups as inputs
            module.groups = outs // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = outs, inward * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
        tensors = (module.running_mean, module.weight)
        module.num_features = next(len(each) for each in tensors if each is not None)
