"""outline(): the outline of an architecture, found in its filled graph without knowing the space.

Wires (identities that the space writes itself, sums of one) are contracted. Cells that the space repeats, and
groups of nodes that branch inside, become one item with a picture of its own; everything else is an item a
node.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.graph import JOINS, Graph, Node
from nas.registry import label
from nas.report.cell import Cell, kinds_of, lettered, operation, owners
from nas.report.inside import BLOCKS, Block, insides
from nas.report.items import Figures, Item, Line, Outline, Shape, folded, told_once
from nas.report.kinds import kind_of
from nas.report.painter import Painter, formulas
from nas.report.plain import Plain
from nas.report.units import Unit, units
from nas.search_space.architecture import Architecture
from nas.search_space.joint import told
from nas.search_space.space import SearchSpace

if TYPE_CHECKING:
    pass

Costs = Mapping[str, tuple[Figures, Shape]]


def outline(space: SearchSpace, architecture: Architecture) -> Outline:
    """The outline of an architecture at the scale of `space`. Torch is imported here."""
    network = Plain(space.fill(architecture), space.graph)
    found = units(network)
    cells = pictured(found, network)
    costs = node_costs(network.filled)
    place = {unit.name: i for i, unit in enumerate(found)}
    items = [_item(unit, network, costs, place) for unit in found]
    cells += insides(_blocks(found, items, costs))
    return Outline(_title(space.name, architecture), tuple(told_once(folded(items))), tuple(cells))


def _title(address: str, architecture: Architecture) -> str:
    """A space's name, with its arguments where it has them, and what was chosen of the recipe."""
    arguments = address.partition("?")[2].replace('"', "").split("&")
    shown = [each for each in arguments if each and each.partition("=")[0] not in architecture.recipe]
    shown += [told(architecture.recipe)] if architecture.recipe else []
    return f"{label(address)} ({', '.join(shown)})" if shown else label(address)


def _blocks(found: Sequence[Unit], items: Sequence[Item], costs: Costs) -> Iterator[tuple[str, Block]]:
    """The units that are one operation with parts of its own."""
    for unit, item in zip(found, items, strict=True):
        node = unit.nodes[0]
        if item.kind in BLOCKS and item.label == operation(node):
            channels, *_ = costs[node.inputs[0]][1]
            out = node.out if isinstance(node.out, int) else channels
            yield item.label, Block(str(node.op), channels, out, node.stride, node.attrs)


def node_costs(graph: Graph) -> dict[str, tuple[Figures, Shape]]:
    """The cost of each node of a filled graph, and the shape of its output."""
    from nas.counting import node_cost

    found: dict[str, tuple[Figures, Shape]] = {}
    for node in graph.nodes:
        shapes = [found[source][1] for source in node.inputs]
        if not shapes:
            found[node.name] = Figures(), graph.input
        elif node.op in JOINS:
            channels = sum(c for c, *_ in shapes) if node.op == "concat" else shapes[0][0]
            found[node.name] = Figures(), (channels, *shapes[0][1:])
        else:
            c, h, w = shapes[0]
            out = node.out if isinstance(node.out, int) else c
            params, *macs, shape = node_cost(str(node.op), (c, h, w), out, node.stride, node.attrs, True)
            told = [0, 0] if node.name in graph.auxiliary else macs
            found[node.name] = Figures(params, *told), shape
    return found


# --- pictures and items---------------------------------------------------------------------------------


def pictured(found: Sequence[Unit], network: Plain) -> list[Cell]:
    """The different pictures of the units that have one; each such unit learns the name of its own."""
    siblings, _ = kinds_of(network.graph)
    kinds: dict[object, list[Unit]] = {}
    for unit in found:
        if unit.group is not None:
            key = unit.kind if unit.kind is not None else _looks(Painter(unit.group, network))
            kinds.setdefault(key, []).append(unit)
    shown: dict[object, tuple[Painter, list[Unit]]] = {}
    for members in kinds.values():
        # The first cells of a network read the stem: the one that reads most of its fellows shows most.
        groups = [unit.group for unit in members if unit.group is not None]
        best = max(groups, key=lambda g: len(set(owners(g.externals(), siblings)) - {""}))
        painter = Painter(best, network, siblings)
        shown.setdefault(_looks(painter), (painter, []))[1].extend(members)
    names = lettered([members[0].base for _, members in shown.values()])
    cells = []
    for name, (painter, members) in zip(names, shown.values(), strict=True):
        cells.append(Cell(name, painter.picture(), len(members)))
        for unit in members:
            unit.picture, unit.lines = name, _lines(painter, unit.name)
    return cells


def _looks(painter: Painter) -> object:
    """Equal for groups whose pictures look the same."""
    picture = painter.picture()
    states = [
        (painter.group.relative(name) if fields["role"] != "input" else "", fields["label"], fields["detail"])
        for name, fields in picture.nodes(data=True)
    ]
    place = {name: i for i, name in enumerate(picture)}
    edges = [(place[a], place[b], d["label"], d["detail"]) for a, b, d in picture.edges(data=True)]
    return tuple(states), tuple(edges)


def _lines(painter: Painter, prefix: str) -> list[tuple[str, tuple[str, ...], str]]:
    """The formulas of a picture, about the nodes of another group of its kind."""
    group = painter.group
    return [
        (text, tuple(f"{prefix}.{group.relative(n)}" for n in nodes), f"{prefix}.{group.relative(name)}")
        for text, nodes, name in formulas(painter.picture())
    ]


def _item(unit: Unit, network: Plain, costs: Costs, place: Mapping[str, int]) -> Item:
    own = {node.name for node in unit.nodes}
    first, last = unit.nodes[0], _result(unit, network)
    came = tuple(costs[s][1] for node in unit.nodes for s in node.inputs if s not in own)
    shape = costs[last.name][1]
    side = min((height for _, height, *_ in came), default=shape[1])
    common: dict[str, Any] = {
        "name": unit.name,
        "shape": shape,
        "reads": tuple(place[source] for source in unit.sources),
        "stride": max(1, round(side / shape[1])) if shape[1] > 1 else 1,
        "cost": sum((costs[name][0] for name in own), Figures()),
        "residual": unit.residual,
    }
    if unit.group is not None:
        lines = tuple(
            Line(text, costs[name][1], sum((costs[n][0] for n in nodes), Figures()))
            for text, nodes, name in unit.lines
        )
        repeats = unit.kind is not None
        key = (unit.picture, shape, common["stride"], unit.residual, None if repeats else came)
        return Item(label=unit.picture, kind="cell", lines=lines, key=key, chained=not repeats, **common)
    if unit.is_join or not first.inputs:
        kind = "join" if unit.is_join else "input"
        return Item(label=operation(first), kind=kind, **common)
    row = [node for node in unit.nodes if node.op not in JOINS][: None if unit.states == 1 else 1]
    chosen = [node for node in row if network.before(node).holes()] or row
    details = [network.detail(chosen[-1]), f"each of {unit.states} states" if unit.states > 1 else ""]
    made = tuple((node.op, node.attrs, node.out, node.stride) for node in row)
    return Item(
        label=" → ".join(operation(node) for node in row),
        detail=", ".join(filter(None, details)),
        kind=kind_of(str(chosen[-1].op)),
        key=(made, came, unit.residual) if unit.states == 1 else None,
        minor=unit.states == 1 and all(network.beside_choice(node) for node in row),
        **common,
    )


def _result(unit: Unit, network: Plain) -> Node:
    """The node of a unit that others read."""
    own = {node.name for node in unit.nodes}
    read = [
        node
        for node in unit.nodes
        if node.name == network.output or any(n.name not in own for n in network.readers.get(node.name, ()))
    ]
    return read[-1] if read else unit.nodes[-1]
