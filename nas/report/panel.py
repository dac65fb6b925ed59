"""panel(): the picture of one cell. Data flow to the right; operations are boxes in their colours."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nas.report.cell import Cell
from nas.report.kinds import Kind, look
from nas.report.layout import Point, Size, layout
from nas.report.scene import DARK, GREY, Box, Edge, Label, Scene, measured

NAME = 8.5  # points
DETAIL = 6.8
LINE = 0.15  # inches: the height of a line
TITLE = 0.32
ROLES = {  # of states that are no operation
    "input": Kind("", "#eef3ee", "#4d4d4d"),
    "join": Kind("", "#ffffff", "#4d4d4d"),
    "op": Kind("", "#ffffff", "#4d4d4d"),
    "output": Kind("", "#fff6dd", "#1a1a1a"),
}


def panel(cell: Cell) -> Scene:
    """The scene of a cell, with its name and how often it is in the network."""
    graph = cell.graph
    boxes = {
        name: _size(fields["label"], fields["detail"], least=0.3) for name, fields in graph.nodes(data=True)
    }
    pills = {
        key: _size(fields["label"], fields["detail"])
        for *ends, number, fields in graph.edges(keys=True, data=True)
        if fields["label"]
        for key in [(ends[0], ends[1], number)]
    }
    placed = layout(graph, boxes=boxes, labels=pills)
    scene = Scene(placed.size[0], placed.size[1] + TITLE)
    drawn = {
        name: _operation(scene, placed.states[name], boxes[name], fields)
        for name, fields in graph.nodes(data=True)
    }
    for key, points in placed.routes.items():
        path = [(x, y + TITLE) for x, y in points]
        a, b = drawn[key[0]], drawn[key[1]]
        if key not in pills:
            scene.edges.append(_edge(path, a, b))
            continue
        pill = _operation(scene, placed.labels[key], pills[key], graph.edges[key])
        left, _, right, _ = pill.extent
        scene.edges.append(_edge([*(p for p in path if p[0] < left - 1e-6), (left, pill.y)], a, pill))
        behind = [p for p in path if p[0] > right + 1e-6]
        scene.edges.append(_edge([(right, pill.y), *behind], pill, b))
    times = f"  ×{cell.count}" if cell.count > 1 else ""
    scene.labels.append(Label(cell.name + times, 0.0, 0.1, 10.5, "left", bold=True))
    if cell.note:
        x = scene.labels[-1].extent[2] + 0.15
        scene.labels.append(Label(cell.note, x, 0.1, DETAIL, "left", colour=GREY))
    scene.width = max(scene.width, scene.labels[-1].extent[2])
    return scene


def _size(name: str, detail: str, *, least: float = 0.0) -> Size:
    width = max(measured(_typeset(name), NAME)[0], measured(detail, DETAIL)[0] if detail else 0.0)
    return max(width + 0.16, least), (2 if detail else 1) * LINE + 0.09


def _operation(scene: Scene, at: Point, size: Size, fields: Mapping[str, Any]) -> Box:
    """The box of a state or of an edge's operation, with what is written in it."""
    x, y = at[0], at[1] + TITLE
    role = fields.get("role", "op")
    key = fields["kind"]
    scene.kinds |= {key} - {""}
    shown = look(key) if key else ROLES[role]
    box = Box(x, y, *size, fill=shown.fill, line=shown.line, round=0.09 if role == "op" else 0.05)
    scene.boxes.append(box)
    shift = LINE / 2 if fields["detail"] else 0.0
    scene.labels.append(Label(_typeset(str(fields["label"])), x, y - shift, NAME))
    if fields["detail"]:
        scene.labels.append(Label(fields["detail"], x, y + shift, DETAIL, colour=DARK))
    return box


def _typeset(label: str) -> str:
    return re.sub(r"^c\[(.*)\]$", r"$c_{\1}$", label)


def _edge(points: Sequence[Point], a: Box, b: Box) -> Edge:
    """From box to box: straight where the height stays, else a curve in the gap between two layers."""
    pieces: list[tuple[Point, ...]] = []
    for (x, y), (u, v) in itertools.pairwise(points):
        if abs(x - u) < 1e-6:  # the box is as thick as its layer
            continue
        half = (x + u) / 2
        pieces.append(((u, v),) if abs(y - v) < 1e-6 else ((half, y), (half, v), (u, v)))
    return Edge(points[0], tuple(pieces), (a, b))
