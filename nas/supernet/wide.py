"""Wide operations: the same layers of many small operations, computed at once.

A lane is one operation of one mixture. Lanes begin at one tensor, which they share; behind a convolution each
has channels of its own, side by side in one wide tensor: (batch, lanes x channels, height, width).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.kernels import convolution, mixing
from nas.network import Runner
from nas.search_space import Decision
from nas.supernet.mixture import Pick, Weights, run
from nas.supernet.sums import Norms, Value, joined

Signature = tuple[object, ...]
STATELESS = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh,
    nn.LeakyReLU, nn.ELU, nn.MaxPool2d, nn.AvgPool2d,
)  # fmt: skip  # what two of them compute is equal where their descriptions are, and channel by channel


class Lane(NamedTuple):
    """One operation: into which mixture it goes, by whose weights (None: 0), and its layers; none if it is
    opaque.
    """

    target: int
    pick: Pick | None
    run: Runner
    layers: tuple[nn.Module, ...] | None


def targets_of(lanes: Sequence[Lane]) -> tuple[int, ...]:
    """The mixtures into which lanes go."""
    return tuple(lane.target for lane in lanes)


def several(lanes: Sequence[Lane]) -> Sequence[Lane]:
    """These lanes, if there is more than one of them."""
    return lanes if len(lanes) > 1 else ()


def signature(layer: nn.Module) -> Signature | None:
    """What layers have in common that can be computed together; None if nothing is known of it."""
    known = (nn.Conv2d, nn.BatchNorm2d, *STATELESS)
    if type(layer) not in known or hooked(layer) or getattr(layer, "inplace", False):
        return None
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return None
    facts = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    facts["bias"] = getattr(layer, "bias", None) is not None
    return (type(layer), *sorted((name, value) for name, value in facts.items() if name != "training"))


def hooked(module: nn.Module) -> bool:
    """Whether somebody wants to be told of what the module does."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def layers_of(operation: object) -> tuple[nn.Module, ...] | None:
    """The layers of an operation, in order; None if some are not known, or in an order that has no rule: a
    norm before the first convolution is the last layer.
    """
    found = _flat(operation)
    if found is not None:
        kinds = [type(layer) for layer in found]
        early = kinds[: kinds.index(nn.Conv2d)] if nn.Conv2d in kinds else kinds[:-1]
        if nn.BatchNorm2d in early:
            return None
    return found


def _flat(operation: object) -> tuple[nn.Module, ...] | None:
    if type(operation) is nn.Sequential and not hooked(operation):
        parts = [_flat(each) for each in operation]
        return None if None in parts else tuple(layer for part in parts for layer in part or ())
    known = isinstance(operation, nn.Module) and signature(operation) is not None
    return (operation,) if known else None  # type: ignore[return-value]


class Places:
    """Where the weights of lanes stand in the tables, so that all of a pass are read at once."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.names = [decision.name for decision in decisions]
        sizes = [decision.rows * len(decision.options) for decision in decisions]
        self._starts = {name: sum(sizes[:i]) for i, name in enumerate(self.names)}
        self._options = {decision.name: len(decision.options) for decision in decisions}
        self._one = sum(sizes)  # behind the tables stand a 1, for picks with fewer factors than others, and
        self._zero = self._one + 1  # a 0, for what is run for its shape alone
        self._picks: list[list[int]] = []
        self._sizes: list[int] = []
        self._indices: list[Tensor] = []

    def reader(self, lanes: Sequence[Lane], channels: int) -> Read:
        """What gives the weights of these lanes in a pass, each `channels` times."""
        for lane in lanes:
            self._picks += [self._places_of(lane.pick)] * channels
        self._sizes.append(len(lanes) * channels)
        return Read(self, len(self._sizes) - 1)

    def _places_of(self, pick: Pick | None) -> list[int]:
        if pick is None:
            return [self._zero]
        places = [self._starts[h.decision] + h.row * self._options[h.decision] + i for h, i in pick]
        return places or [self._one]

    def read(self, weights: Weights) -> Sequence[Tensor]:
        """The weights of all lanes, in the order in which they were asked for."""
        found: Sequence[Tensor] | None = weights.kept.get(self)
        if found is None:
            tables = [weights.tables[name] for name in self.names]
            constants = tables[0].new_ones(1), tables[0].new_zeros(1)
            vector = torch.cat([*(table.flatten() for table in tables), *constants])
            product = None
            for index in self.indices_on(vector.device):
                factor = vector.index_select(0, index)
                product = factor if product is None else product * factor
            assert product is not None
            found = weights.kept[self] = product.split(self._sizes)  # type: ignore[no-untyped-call]
        return found

    def indices_on(self, device: torch.device) -> list[Tensor]:
        """One index for each factor of the picks."""
        if not self._indices or self._indices[0].device != device:
            most = max(map(len, self._picks))
            filled = [[*places, *[self._one] * (most - len(places))] for places in self._picks]
            self._indices = [torch.tensor(column, device=device) for column in zip(*filled, strict=True)]
        return self._indices


class Read(NamedTuple):
    """Gives the weights of some lanes in a pass."""

    places: Places
    slot: int

    def __call__(self, weights: Weights) -> Tensor:
        return self.places.read(weights)[self.slot]


class Part(Protocol):
    """Some lanes, from a tensor that they share to what is summed up."""

    @property
    def together(self) -> Sequence[Lane]:
        """The operations that are computed together with another one, in part at least."""
        ...

    def __call__(self, x: Tensor, weights: Weights) -> Iterator[Value]: ...

    def norms(self) -> Iterator[Norms]: ...


class Applied:
    """A layer without parameters, computed once for all lanes behind it."""

    def __init__(self, layer: nn.Module, then: Sequence[Part], lanes: Sequence[Lane]) -> None:
        self.layer, self.then, self.together = layer, then, several(lanes)

    def __call__(self, x: Tensor, weights: Weights) -> Iterator[Value]:
        y = self.layer(x)
        for part in self.then:
            yield from part(y, weights)

    def norms(self) -> Iterator[Norms]:
        for part in self.then:
            yield from part.norms()


class Ended:
    """Lanes that end with the tensor that they share, or with a norm of it each."""

    def __init__(self, lanes: Sequence[Lane], norms: Norms | None, read: Read) -> None:
        self.targets, self._norms, self.read = targets_of(lanes), norms, read
        self.together = several(lanes)

    def __call__(self, x: Tensor, weights: Weights) -> Iterator[Value]:
        yield Value(self.targets, x, self.read(weights), True, self._norms)

    def norms(self) -> Iterator[Norms]:
        if self._norms is not None:
            yield self._norms


class Wide:
    """Lanes of equal layers from a convolution on: each layer of all lanes is one operation."""

    def __init__(self, lanes: Sequence[Lane], layers: Sequence[Sequence[nn.Module]], read: Read) -> None:
        self.targets, self.read = targets_of(lanes), read
        self.together = several(lanes)
        self.layers = [
            Norms(layer) if isinstance(layer[0], nn.BatchNorm2d) else layer  # type: ignore[arg-type]
            for layer in layers
        ]

    def __call__(self, x: Tensor, weights: Weights) -> Iterator[Value]:
        last, rectify = self.layers[-1], False
        for i, layer in enumerate(self.layers):
            if rectify:  # done with the norm before it
                rectify = False
            elif isinstance(layer, Norms):
                rectify = self._rectified(i)
                if rectify:
                    x = mixing.rectified(x, layer.norm())
                elif layer is not last:
                    x = layer.wide(x)
            elif isinstance(layer[0], nn.Conv2d):
                x = convolved(x, layer, shared=i == 0)  # type: ignore[arg-type]
            else:
                x = layer[0](x)
        yield Value(self.targets, x, self.read(weights), False, last if isinstance(last, Norms) else None)

    def _rectified(self, i: int) -> bool:
        """Whether the norm at a place and the layer behind it are one operation."""
        norms, behind = self.layers[i], self.layers[i + 1] if i + 1 < len(self.layers) else None
        if isinstance(behind, Norms | None) or not isinstance(norms, Norms):
            return False
        return type(behind[0]) is nn.ReLU and norms.batch and not norms.first.affine

    def norms(self) -> Iterator[Norms]:
        yield from (layer for layer in self.layers if isinstance(layer, Norms))


class Alone:
    """An operation of which nothing is known."""

    together: Sequence[Lane] = ()

    def __init__(self, lane: Lane, read: Read) -> None:
        self.operation, self.targets, self.read = lane.run, (lane.target,), read

    def __call__(self, x: Tensor, weights: Weights) -> Iterator[Value]:
        yield Value(self.targets, run(self.operation, (x,), weights), self.read(weights), False, None)

    def norms(self) -> Iterator[Norms]:
        return iter(())


def convolved(x: Tensor, layers: Sequence[nn.Conv2d], *, shared: bool) -> Tensor:
    """Convolutions of one shape, of one tensor that they share or of the channels of each, as one."""
    first, lanes = layers[0], len(layers)
    weight = joined([layer.weight for layer in layers])
    form = _depthwise(first, lanes, shared) or _pointwise(first, lanes, shared)
    if form is not None:
        return convolution.convolved(x, weight, form)
    bias = None if first.bias is None else joined([layer.bias for layer in layers])  # type: ignore[misc]
    groups = first.groups if shared and first.groups == 1 else lanes * first.groups
    if shared and first.groups > 1 and lanes > 1:
        x = torch.cat([x] * lanes, 1)
    return F.conv2d(x, weight, bias, first.stride, first.padding, first.dilation, groups)


def _depthwise(layer: nn.Conv2d, lanes: int, shared: bool) -> convolution.Depthwise | None:
    """Convolutions like this one, if they go channel by channel and along both sides alike."""
    channels, (kernel, other) = layer.in_channels, layer.kernel_size
    square = kernel == other > 1 and all(
        isinstance(each, tuple) and each[0] == each[1]
        for each in (layer.stride, layer.padding, layer.dilation)
    )
    if not square or layer.bias is not None or not channels == layer.groups == layer.out_channels:
        return None
    padding = int(layer.padding[0])
    return convolution.Depthwise(lanes, channels, shared, kernel, layer.stride[0], padding, layer.dilation[0])


def _pointwise(layer: nn.Conv2d, lanes: int, shared: bool) -> convolution.Pointwise | None:
    """Convolutions of 1x1, each of its own channels; alone, or of one tensor, PyTorch's are fast."""
    dense = (layer.kernel_size, layer.stride, layer.padding) == ((1, 1), (1, 1), (0, 0)) and layer.groups == 1
    if not dense or layer.bias is not None or shared or lanes == 1:
        return None
    return convolution.Pointwise(lanes, layer.in_channels, layer.out_channels)
