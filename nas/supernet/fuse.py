"""fuse(): the mixtures of a supernet as few wide operations, numerically the same.

All mixtures that read one node are computed together. Their operations are taken apart into layers; layers
that do the same to one tensor are done once, convolutions of one shape become one wide convolution, and batch
norms over the channels that it puts out become one norm, whose scale holds the mixing weights too: without
scale and shift of its own, w * BN(x) = (x - mean) * (w / std). Options that are parts of one widest operation
are computed once as far as they agree (`nas.supernet.nested`). ``none`` is no operation to begin with.

The parameters stay where they are, in the modules of the nodes; the statistics of norms that become one lie
side by side in one tensor, of which each module has its part. A path, and a checkpoint, see no difference.
What no rule covers is computed as ever: an operation with parts that are not known here, one with a hook.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from nas.graph import Graph, Node
from nas.network import Runner
from nas.search_space import SearchSpace
from nas.supernet.mixture import Mixture, Pick, Weights, run
from nas.supernet.nested import Nested, nested
from nas.supernet.partial import Partial
from nas.supernet.sums import Norms, laid, summed
from nas.supernet.wide import (
    STATELESS,
    Alone,
    Applied,
    Ended,
    Lane,
    Part,
    Places,
    Read,
    Wide,
    layers_of,
    signature,
)


class Fusion:
    """The rewritten graph, what computes its nodes, and the groups of mixtures among these."""

    def __init__(
        self, graph: Graph, runs: Mapping[str, Runner], groups: Sequence[Group], places: Places
    ) -> None:
        self.graph, self.runs, self.groups, self._places = graph, runs, groups, places
        parts = [part for group in groups for part in group.parts]
        self._norms = [norms for part in parts for norms in part.norms()]
        self._norms = [norms for norms in self._norms if norms.first.running_mean is not None]
        self._count: Tensor | None = None

    def untie(self) -> None:
        """Another fusion ran: the statistics lie elsewhere."""
        self._count = None

    @property
    def operations(self) -> int:
        """How many operations the mixtures have."""
        return sum(len(group.lanes) for group in self.groups)

    @property
    def fused(self) -> int:
        """How many of them are computed together with another one, in part at least."""
        return sum(len(group.fused) for group in self.groups)

    def by_operation(self, space: SearchSpace) -> dict[str, tuple[int, int]]:
        """By operation: how many of them are computed together with another one, of how many."""
        fused = Counter(_name(space, lane) for group in self.groups for lane in group.fused)
        every = Counter(_name(space, lane) for group in self.groups for lane in group.lanes)
        return {name: (fused[name], count) for name, count in sorted(every.items())}

    def begin(self, device: torch.device) -> None:
        """Before each pass: see that indices and statistics are laid out; count the batch."""
        if self.groups:
            self._places.indices_on(device)
        if not self._norms:
            return
        if self._count is None or not all(norms.tied for norms in self._norms):
            for norms in self._norms:
                norms.tie()
            self._count = laid([n for norms in self._norms for n in norms.norms], "num_batches_tracked")
        if self._norms[0].moves:
            self._count.add_(1)


def fuse(
    space: SearchSpace,
    graph: Graph,
    runs: Mapping[str, Runner],
    widths: Mapping[str, int],
    weights: Weights | None = None,
) -> Fusion:
    """Rewrite a graph with holes: the mixtures that read one node become one node.

    `runs`: what computes each node. `widths`: the channels of each. `weights`: options that are not active in
    them are left out.
    """
    runs_pick = (lambda pick: True) if weights is None else weights.runs
    places, groups = Places(space.decisions), dict[str, Group]()
    rewritten, found = [graph.nodes[0]], dict(runs)
    members = _members(graph, runs)
    group_of = {name: (key, place) for key, names in members.items() for place, name in enumerate(names)}
    for node in graph.nodes[1:]:
        if node.name not in group_of:
            rewritten.append(node)
            continue
        key, place = group_of[node.name]
        mixtures = [_inner(runs[name]) for name in members[key]]
        name = f"fused/{members[key][0]}"
        if name not in groups:
            width = widths[members[key][0]]
            group = groups[name] = Group([each for each in mixtures if each], width, places, runs_pick)
            found[name] = cast(Runner, group)  # gives all of its mixtures, for `Picked`
            rewritten.append(Node(name, "fused", node.inputs))
        rewritten.append(node._replace(inputs=(name,)))
        found[node.name] = _with_inner(runs[node.name], Picked(place))
    return Fusion(graph.rewritten(rewritten), found, list(groups.values()), places)


def _name(space: SearchSpace, lane: Lane) -> str:
    """An operation, and what is decided of it besides."""
    found = []
    for hole, index in lane.pick or ():
        option = space.decision(hole.decision).options[index]
        of = "" if isinstance(option, str) else hole.decision.rpartition(".")[2] + " "
        found.append(of + str(space.graph.operation(option)))
    return " ".join(found)


def _members(graph: Graph, runs: Mapping[str, Runner]) -> dict[tuple[Any, ...], list[str]]:
    """The nodes with a mixture, by what must be equal in those that are computed together."""
    members: dict[tuple[Any, ...], list[str]] = {}
    for node in graph.nodes[1:]:
        inner = _inner(runs[node.name])
        if inner is not None:
            share = inner.share if isinstance(inner, Partial) else 1
            members.setdefault((node.inputs[0], node.stride, node.out, share), []).append(node.name)
    return members


def _inner(runner: Any) -> Mixture | Partial | None:
    """The mixture, of all channels or of a part, within what stands around it."""
    while not isinstance(runner, Mixture | Partial):
        runner = getattr(runner, "runner", None)
        if runner is None:
            return None
    return runner if isinstance(runner, Mixture) or isinstance(runner.mixture, Mixture) else None


def _with_inner(runner: Any, inner: Runner) -> Runner:
    """The same with another mixture within."""
    if isinstance(runner, Mixture | Partial):
        return inner
    changed = copy.copy(runner)
    changed.runner = _with_inner(runner.runner, inner)
    return changed  # type: ignore[no-any-return]


class Picked:
    """One of the mixtures that a group computes."""

    def __init__(self, place: int) -> None:
        self.place = place

    def __call__(self, mixtures: Sequence[Tensor]) -> Tensor:
        return mixtures[self.place]


class Group:
    """Mixtures of one tensor, computed together.

    Args:
        mixtures: of all channels, or of the same part.
        width: the channels that they give.
        places: where the weights of operations are read.
        runs_pick: whether an option is run.
    """

    mixed = True

    def __init__(
        self,
        mixtures: Sequence[Mixture | Partial],
        width: int,
        places: Places,
        runs_pick: Callable[[Pick], bool],
    ) -> None:
        first = mixtures[0]
        channels = width // first.share if isinstance(first, Partial) else width
        self.mixtures, self._places, self._channels = mixtures, places, channels
        inner = [cast(Mixture, each.mixture if isinstance(each, Partial) else each) for each in mixtures]
        self._busy = [i for i, each in enumerate(inner) if not each.idle(runs_pick)] or [0]  # for the shape
        self.lanes: list[Lane] = []
        for target, place in enumerate(self._busy):
            for pick, option in inner[place].running(runs_pick):
                self.lanes.append(Lane(target, pick if runs_pick(pick) else None, option, layers_of(option)))
        self.parts: list[Part] = []
        rest = self.lanes
        for same, ways in nested(self.lanes):  # in their order: they move the statistics of one operation
            reads = [self._reader([lane]) for lane in same]
            self.parts += [Nested(same, ways, reads)] if ways else map(Alone, same, reads)
            rest = [lane for lane in rest if lane not in same]
        self.parts += self._parts([lane for lane in rest if lane.layers is not None], 0)
        self.parts += [Alone(each, self._reader([each])) for each in rest if each.layers is None]

    @property
    def fused(self) -> list[Lane]:
        """The operations that are computed together with another one."""
        return [lane for part in self.parts for lane in part.together]

    def __call__(self, x: Tensor, *, weights: Weights) -> list[Tensor]:
        """The mixtures of x (batch, channels, height, width)."""
        if x.dim() != 4:  # tokens or features, whose channels are elsewhere
            return [run(each, (x,), weights) for each in self.mixtures]
        first = self.mixtures[0]
        read = first.part(x) if isinstance(first, Partial) else x
        values = [value for part in self.parts for value in part(read, weights)]
        found = summed(values, len(self._busy))
        mixed: Sequence[Tensor] = found
        if len(found) < len(self.mixtures):
            mixed = [found[0].new_zeros(()).expand_as(found[0])] * len(self.mixtures)
            for place, each in zip(self._busy, found, strict=True):
                mixed[place] = each
        return [
            mixture.beside(own, x, weights) if isinstance(mixture, Partial) else own
            for mixture, own in zip(self.mixtures, mixed, strict=True)
        ]

    def _reader(self, lanes: Sequence[Lane]) -> Read:
        return self._places.reader(lanes, self._channels)

    def _parts(self, lanes: Sequence[Lane], depth: int) -> Iterator[Part]:
        """What takes lanes that agree in their first layers from there to the end."""
        alike: dict[object, list[Lane]] = {}
        for lane in lanes:
            assert lane.layers is not None
            rest = tuple(map(signature, lane.layers[depth:]))
            known = not rest or isinstance(lane.layers[depth], STATELESS)
            alike.setdefault(rest[:1] if known else rest, []).append(lane)
        for same in alike.values():
            layers = same[0].layers or ()
            if depth == len(layers):
                yield Ended(same, None, self._reader(same))
            elif isinstance(layers[depth], STATELESS):
                yield Applied(layers[depth], list(self._parts(same, depth + 1)), same)
            elif isinstance(layers[depth], nn.Conv2d):
                columns = zip(*((lane.layers or ())[depth:] for lane in same), strict=True)
                yield Wide(same, list(columns), self._reader(same))
            else:
                norms = [(lane.layers or ())[depth] for lane in same]
                yield Ended(same, Norms(norms), self._reader(same))  # type: ignore[arg-type]
