"""A layered layout of a small directed graph (after Sugiyama, Tagawa & Toda 1981). No drawing, no torch.

States stand on even layers by their longest path from an input; every edge owns a slot on each layer that it
crosses, and its label fills one near the middle. What stands on one layer keeps its distance: labels never
overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx as nx

Edge = tuple[str, str, int]
Slot = str | tuple[Edge, int]  # a state, or an edge's place on a layer
Size = tuple[float, float]  # along the flow, across it
Point = tuple[float, float]  # along, across

GAP_ALONG = 0.3
GAP_ACROSS = 0.12
SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """Where everything stands, in the unit of the sizes given. A route's points lead from box to box.

    `labels` has the centre of every label; `size` is the extent along and across.
    """

    states: Mapping[str, Point]
    routes: Mapping[Edge, Sequence[Point]]
    labels: Mapping[Edge, Point]
    size: Size


def layout(graph: nx.MultiDiGraph[str], *, boxes: Mapping[str, Size], labels: Mapping[Edge, Size]) -> Layout:
    """The layout of an acyclic multigraph whose states and edges have these `boxes` and `labels`."""
    level = _levels(graph)
    chains = {edge: _chain(edge, level) for edge in graph.edges(keys=True)}
    layers = _ordered(graph, level, chains)
    sizes: dict[Slot, Size] = {name: boxes[name] for name in level}
    for edge, chain in chains.items():
        sizes.update(dict.fromkeys(chain, (0.0, 0.04)))
        if edge in labels:
            sizes[_middle(chain)] = labels[edge]
    across = _across(layers, _neighbours(chains), sizes)
    thickness = [max((sizes[slot][0] for slot in layer), default=0.0) for layer in layers]
    centre, edge_of = [], 0.0
    for width in thickness:
        centre.append(edge_of + width / 2)
        edge_of += width + GAP_ALONG
    place = {slot: (centre[i], across[slot]) for i, layer in enumerate(layers) for slot in layer}
    routes = {edge: _route(edge, chain, place, boxes, thickness, level) for edge, chain in chains.items()}
    return Layout(
        states={name: place[name] for name in level},
        routes=routes,
        labels={edge: place[_middle(chains[edge])] for edge in labels},
        size=(edge_of - GAP_ALONG, max(across[slot] + sizes[slot][1] / 2 for slot in across)),
    )


def _levels(graph: nx.MultiDiGraph[str]) -> dict[str, int]:
    """The layer of each state: twice the longest path to it; other sources stand before their reader."""
    import networkx as nx

    level: dict[str, int] = {}
    for name in nx.topological_sort(graph):
        level[name] = max((level[source] + 2 for source in graph.predecessors(name)), default=0)
    for name in graph:
        readers = [level[reader] for reader in graph.successors(name)]
        if not graph.in_degree(name) and readers and graph.nodes[name]["role"] != "input":
            level[name] = min(readers) - 2
    last = max(level.values())
    for name in graph:
        if graph.nodes[name]["role"] == "output" and not graph.out_degree(name):
            level[name] = last
    return level


def _chain(edge: Edge, level: Mapping[str, int]) -> list[Slot]:
    return [(edge, layer) for layer in range(level[edge[0]] + 1, level[edge[1]])]


def _middle(chain: Sequence[Slot]) -> Slot:
    """The slot for a label: between two layers of states, so that the states' layers stay thin."""
    half = len(chain) // 2
    return chain[half + half % 2]


def _neighbours(chains: Mapping[Edge, Sequence[Slot]]) -> dict[Slot, tuple[list[Slot], list[Slot]]]:
    """Slot -> (slots it is joined to on the layer before, on the layer after)."""
    found: dict[Slot, tuple[list[Slot], list[Slot]]] = {}
    for edge, chain in chains.items():
        path = [edge[0], *chain, edge[1]]
        for a, b in itertools.pairwise(path):
            found.setdefault(a, ([], []))[1].append(b)
            found.setdefault(b, ([], []))[0].append(a)
    return found


def _ordered(
    graph: nx.MultiDiGraph[str], level: Mapping[str, int], chains: Mapping[Edge, Sequence[Slot]]
) -> list[list[Slot]]:
    """The slots of each layer in the order with the fewest crossings that barycentre sweeps find."""
    layers: list[list[Slot]] = [[] for _ in range(max(level.values()) + 1)]
    for name in graph:
        layers[level[name]].append(name)
    for edge, chain in chains.items():
        for layer, slot in enumerate(chain, start=level[edge[0]] + 1):
            layers[layer].append(slot)
    near = _neighbours(chains)
    best, fewest = layers, _crossings(layers, near)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        layers = [list(layer) for layer in layers]
        side, steps = (0, range(1, len(layers))) if sweep % 2 == 0 else (1, range(len(layers) - 2, -1, -1))
        for i in steps:
            fixed = {slot: place for place, slot in enumerate(layers[i - 1 if side == 0 else i + 1])}
            layers[i].sort(key=_barycentres(layers[i], fixed, near, side).__getitem__)
        crossings = _crossings(layers, near)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _barycentres(
    layer: Sequence[Slot],
    fixed: Mapping[Slot, int],
    near: Mapping[Slot, tuple[list[Slot], list[Slot]]],
    side: int,
) -> dict[Slot, float]:
    """The mean place of each slot's neighbours on one side; a slot without any stays where it is."""
    places = {}
    for place, slot in enumerate(layer):
        joined = [fixed[other] for other in near.get(slot, ([], []))[side]]
        places[slot] = sum(joined) / len(joined) if joined else float(place)
    return places


def _crossings(layers: Sequence[Sequence[Slot]], near: Mapping[Slot, tuple[list[Slot], list[Slot]]]) -> int:
    total = 0
    for layer, following in itertools.pairwise(layers):
        place = {slot: i for i, slot in enumerate(following)}
        ends = [sorted(place[other] for other in near.get(slot, ([], []))[1]) for slot in layer]
        flat = [end for each in ends for end in each]
        total += sum(a > b for i, a in enumerate(flat) for b in flat[i + 1 :])
    return total


def _across(
    layers: Sequence[Sequence[Slot]],
    near: Mapping[Slot, tuple[list[Slot], list[Slot]]],
    sizes: Mapping[Slot, Size],
) -> dict[Slot, float]:
    """Coordinates across the flow: each slot near the mean of its neighbours, order and distances kept."""
    across: dict[Slot, float] = {}
    for layer in layers:
        across.update(zip(layer, _spaced(layer, [(0.0, 1.0)] * len(layer), sizes), strict=True))
    for sweep in range(6 * SWEEPS):
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            wanted = [_wanted(slot, near, across) for slot in layer]
            across.update(zip(layer, _spaced(layer, wanted, sizes), strict=True))
    low = min(across[slot] - sizes[slot][1] / 2 for slot in across)
    return {slot: value - low for slot, value in across.items()}


def _wanted(
    slot: Slot, near: Mapping[Slot, tuple[list[Slot], list[Slot]]], across: Mapping[Slot, float]
) -> tuple[float, float]:
    """Where a slot would stand, and its weight: long edges pull themselves straight (Gansner et al. 1993)."""
    total = weight = 0.0
    for side in near.get(slot, ([], [])):
        for other in side:
            pull = (1.0, 2.0, 8.0)[isinstance(slot, tuple) + isinstance(other, tuple)]
            total, weight = total + pull * across[other], weight + pull
    return (total / weight, weight) if weight else (across[slot], 1.0)


def _spaced(
    layer: Sequence[Slot], wanted: Sequence[tuple[float, float]], sizes: Mapping[Slot, Size]
) -> list[float]:
    """The places closest to `wanted` (place, weight) that keep order and distance: isotonic regression."""
    offsets, at = [], 0.0
    for i, slot in enumerate(layer):
        at += (sizes[layer[i - 1]][1] + sizes[slot][1]) / 2 + GAP_ACROSS if i else 0.0
        offsets.append(at)
    pools: list[tuple[float, float, int]] = []  # (mean, weight, count), means ascending
    for (target, weight), offset in zip(wanted, offsets, strict=True):
        mean, count = target - offset, 1
        while pools and pools[-1][0] >= mean:
            before, heavy, number = pools.pop()
            mean = (mean * weight + before * heavy) / (weight + heavy)
            weight, count = weight + heavy, count + number
        pools.append((mean, weight, count))
    flat = [mean for mean, _, count in pools for _ in range(count)]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=True)]


def _route(
    edge: Edge,
    chain: Sequence[Slot],
    place: Mapping[Slot, Point],
    boxes: Mapping[str, Size],
    thickness: Sequence[float],
    level: Mapping[str, int],
) -> list[Point]:
    """From the far side of the source to the near side of the target, straight through each layer."""
    start, end = place[edge[0]], place[edge[1]]
    points = [(start[0] + boxes[edge[0]][0] / 2, start[1])]
    for layer, slot in enumerate(chain, start=level[edge[0]] + 1):
        along, across = place[slot]
        points += [(along - thickness[layer] / 2, across), (along + thickness[layer] / 2, across)]
    points.append((end[0] - boxes[edge[1]][0] / 2, end[1]))
    return points
