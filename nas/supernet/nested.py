"""Nested operations: options that are parts of one widest operation, computed once as far as they agree.

Inverted residuals that differ in kernel and expansion all begin with the same expansion, of which the
narrower ones take the first channels. So it is computed once, as wide as the widest, and so is each kernel
behind it; what mixes channels, a squeeze-excite or the projection, is computed for each option alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.primitives.gates import SqueezeExcite
from nas.primitives.layers import Residual
from nas.supernet.elastic import Sliced
from nas.supernet.mixture import Weights
from nas.supernet.sums import Norms, Value
from nas.supernet.wide import Lane, Read, Signature, hooked, signature

OWN = {"in_channels", "out_channels", "groups", "num_features", "momentum", "track_running_stats"}
Seen = tuple[Tensor, Tensor] | None  # mean and variance that a norm has seen


class Step:
    """A layer of one option.

    Args:
        layer: at the option's own shape.
        whole: the layer of the widest operation, of which it computes with a part.
        alike: equal for layers of which the narrower gives the first channels of what the wider gives, if
            it reads the first channels of what that reads; None: for no other layer.
        inputs, outputs: channels; None where no step can be shared any more.
    """

    def __init__(
        self,
        layer: nn.Module,
        whole: nn.Module,
        alike: Signature | None,
        inputs: int | None,
        outputs: int | None,
    ) -> None:
        self.alike, self.inputs, self.outputs = alike, inputs, outputs
        self._part = Sliced(layer, whole)
        self._norms: Norms | None = None
        if isinstance(layer, nn.BatchNorm2d):
            assert isinstance(whole, nn.BatchNorm2d)
            self._norms, self._eps = Norms([whole]), layer.eps

    def __call__(self, x: Tensor) -> tuple[Tensor, Seen]:
        """(batch, channels, height, width) -> the same, and what a norm has seen if it is by the batch."""
        if self._norms is None:
            return self._part(x), None
        own = self._part.tensors()
        affine, eps = (own.get("weight"), own.get("bias")), self._eps
        if not self._norms.batch:
            return F.batch_norm(x, own["running_mean"], own["running_var"], *affine, False, 0.0, eps), None
        kind = torch.promote_types(x.dtype, torch.float32)
        mean, var = x.new_zeros(2, x.shape[1], dtype=kind).unbind()  # the batch's, with a momentum of 1
        return F.batch_norm(x, mean, var, *affine, True, 1.0, eps), (mean, var)

    def move(self, seen: Seen) -> None:
        """Move the running statistics towards those that were seen, as this option does."""
        if self._norms is None or not self._norms.moves or seen is None:
            return
        own = self._part.tensors()
        own["num_batches_tracked"].add_(1)
        momentum = self._norms.norm().momentum
        for name, new in zip(("running_mean", "running_var"), seen, strict=True):
            own[name].lerp_(new[: len(own[name])], momentum)


class Nested:
    """Options that are parts of one operation. They move its running statistics in their order."""

    def __init__(self, lanes: Sequence[Lane], ways: Sequence[Sequence[Step]], reads: Sequence[Read]) -> None:
        forms = [_form(lane) for lane in lanes]
        adds = [isinstance(form, Residual) and form.residual for form in forms]
        self._lanes = list(zip(lanes, adds, reads, strict=True))
        numbers: dict[object, int] = {}
        self._ways: list[list[tuple[int, Step]]] = []
        self._widest: dict[int, Step] = {}
        for i, way in enumerate(ways):
            place, numbered = -1, []
            for step in way:
                place = numbers.setdefault((place, step.alike or i), len(numbers))
                numbered.append((place, step))
                before = self._widest.setdefault(place, step)
                if (before.outputs or 0) < (step.outputs or 0):
                    self._widest[place] = step
            self._ways.append(numbered)
        first = [way[0][0] for way in self._ways]
        self.together = [lane for lane, place in zip(lanes, first, strict=True) if first.count(place) > 1]

    def __call__(self, x: Tensor, weights: Weights) -> Iterator[Value]:
        known: dict[int, tuple[Tensor, Seen]] = {}
        for (lane, adds, read), way in zip(self._lanes, self._ways, strict=True):
            y = x
            for place, step in way:
                if place not in known:
                    widest = self._widest[place]
                    known[place] = widest(_first(y, widest.inputs))
                y, seen = known[place]
                step.move(seen)
            y = _first(y, way[-1][1].outputs)
            yield Value((lane.target,), x + y if adds else y, read(weights), False, None)

    def norms(self) -> Iterator[Norms]:
        return iter(())  # it moves them itself, one by one


def _first(x: Tensor, channels: int | None) -> Tensor:
    """The first channels, or all of them."""
    return x if channels in (None, x.shape[1]) else x[:, :channels]


def nested(lanes: Sequence[Lane]) -> Iterator[tuple[Sequence[Lane], Sequence[Sequence[Step]]]]:
    """Those that are parts of one operation, and the steps of each; none, if they are not all known."""
    by_whole: dict[nn.Module, list[Lane]] = {}
    for lane in lanes:
        if isinstance(lane.run, Sliced | nn.Module):
            by_whole.setdefault(_whole(lane), []).append(lane)
    for whole, same in by_whole.items():
        if len(same) > 1:
            known = type(whole) in (nn.Sequential, Residual) and not any(map(hooked, whole.modules()))
            ways = [steps_of(lane) for lane in same] if known else []
            yield same, ways if all(ways) else []


def steps_of(lane: Lane) -> list[Step]:
    """The layers of an option, in order; none, if they are not all known."""
    whole, found = _whole(lane), []
    shared = True
    channels: int | None = None
    for name, layer in _leaves(_form(lane)):
        known = signature(layer)
        if known is None and type(layer) is not SqueezeExcite:  # it might write into what others read
            return []
        alike = _alike(name, layer, known) if shared and known else None
        shared, inputs = alike is not None, channels
        if isinstance(layer, nn.Conv2d):
            channels = layer.out_channels
        channels = channels if shared else None
        found.append(Step(layer, whole.get_submodule(name), alike, inputs, channels))
    return found


def _form(lane: Lane) -> nn.Module:
    """An option at its own shape."""
    form = lane.run.template if isinstance(lane.run, Sliced) else lane.run
    assert isinstance(form, nn.Module)
    return form


def _whole(lane: Lane) -> nn.Module:
    """The widest operation, of which an option is a part."""
    return lane.run.whole if isinstance(lane.run, Sliced) else _form(lane)


def _leaves(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers that do something, by their names; one that is there twice comes twice."""
    for name, child in module._modules.items():
        if type(child) is nn.Sequential:
            yield from _leaves(child, f"{prefix}{name}.")
        elif child is not None and type(child) is not nn.Identity:
            yield prefix + name, child


def _alike(name: str, layer: nn.Module, known: Signature) -> Signature | None:
    """What layers of one place have in common of which one gives a part of what the other gives."""
    kind, *facts = known
    reads: object = None  # all channels, or each its own
    if isinstance(layer, nn.Conv2d):
        if layer.groups == 1:
            reads = layer.in_channels
        elif not layer.groups == layer.in_channels == layer.out_channels:
            return None
    return (name, kind, reads, *(fact for fact in facts if fact[0] not in OWN))  # type: ignore[index]
