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

GAP_ALONG = 0.34
GAP_ACROSS = 0.12
SWEEPS = 24
THIN = 0.04  # what a long edge takes of a layer that it crosses
STRAIGHT = (1.0, 2.0, 8.0)  # what a bend costs between two states, at the end of a long edge, inside it
CENTRING = 0.6


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
        sizes.update(dict.fromkeys(chain, (0.0, THIN)))
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
    """Coordinates across the flow, order and distances kept: a linear program (after Gansner et al. 1993).

    Long edges are straight above all; then every slot stands in the middle between its outermost neighbours.
    """
    import numpy as np
    from scipy.optimize import linprog  # type: ignore[import-untyped]
    from scipy.sparse import coo_array  # type: ignore[import-untyped]

    slots = [slot for layer in layers for slot in layer]
    column = {slot: i for i, slot in enumerate(slots)}
    costs = [0.0] * len(slots)
    entries: list[tuple[int, int, float]] = []  # row, column, factor: rows are "sum <= bound"
    bounds: list[float] = []

    def at_most(bound: float, *terms: tuple[int, float]) -> None:
        entries.extend((len(bounds), place, factor) for place, factor in terms)
        bounds.append(bound)

    for layer in layers:
        for a, b in itertools.pairwise(layer):
            distance = (sizes[a][1] + sizes[b][1]) / 2 + GAP_ACROSS
            at_most(-distance, (column[a], 1.0), (column[b], -1.0))
    for slot, sides in near.items():
        for number, side in enumerate(sides):
            if not side:
                continue
            farthest = len(costs)  # the distance of the farthest neighbour on this side
            costs.append(CENTRING)
            for other in side:
                apart = len(costs)
                firm = 2.0 if sizes[slot][1] == THIN and number == _firm_side(slot, near) else 1.0
                costs.append(firm * STRAIGHT[isinstance(slot, tuple) + isinstance(other, tuple)] / 2)
                for sign in (1.0, -1.0):
                    at_most(0.0, (column[slot], sign), (column[other], -sign), (apart, -1.0))
                at_most(0.0, (apart, 1.0), (farthest, -1.0))
    rows, columns, factors = zip(*entries, strict=True) if entries else ((), (), ())
    matrix = coo_array((factors, (rows, columns)), shape=(len(bounds), len(costs)))
    found = linprog(np.array(costs), A_ub=matrix, b_ub=np.array(bounds), bounds=(0, None), method="highs")
    across = {slot: float(found.x[place]) for slot, place in column.items()}
    low = min(across[slot] - sizes[slot][1] / 2 for slot in across)
    return {slot: value - low for slot, value in across.items()}


def _firm_side(slot: Slot, near: Mapping[Slot, tuple[list[Slot], list[Slot]]]) -> int:
    """On which side a long edge is straight: it bends where it meets more edges, at its start or its end."""
    assert not isinstance(slot, str)
    (start, end, _), _ = slot
    return 0 if len(near[end][0]) >= len(near[start][1]) else 1


def _route(
    edge: Edge,
    chain: Sequence[Slot],
    place: Mapping[Slot, Point],
    boxes: Mapping[str, Size],
    thickness: Sequence[float],
    level: Mapping[str, int],
) -> list[Point]:
    """From the far side of the source to the near side of the target, straight through each layer."""
    (x, y), (u, v) = place[edge[0]], place[edge[1]]
    points = [(x + boxes[edge[0]][0] / 2, y), (x + thickness[level[edge[0]]] / 2, y)]
    for layer, slot in enumerate(chain, start=level[edge[0]] + 1):
        along, across = place[slot]
        points += [(along - thickness[layer] / 2, across), (along + thickness[layer] / 2, across)]
    return [*points, (u - thickness[level[edge[1]]] / 2, v), (u - boxes[edge[1]][0] / 2, v)]
