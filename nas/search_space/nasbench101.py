"""NAS-Bench-101 (Ying et al., ICML 2019): 423,624 cells of at most seven vertices and nine edges.

A vertex applies one of three operations to the sum of what its edges bring; the vertices that lead to the
output are concatenated there. Edges out of the input are 1x1 convolutions. The benchmark's own example of a
cell, which resembles an inception module, has 2,694,282 parameters.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import partial

from nas.graph import JOINS, Builder, Graph, Hole, Shape, Value
from nas.registry import unknown
from nas.search_space.architecture import Architecture
from nas.search_space.decision import Decision
from nas.search_space.space import SPACES, Count, SearchSpace

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
PROJECTION = "conv1x1-bn-relu"
MOST = 9  # edges
FORM = "[[0,1,0],[0,0,1],[0,0,0]] input maxpool3x3 output"

KNOWN = {  # in the benchmark's notation, as `read` takes it
    "inception-like": "[[0,1,1,1,0,1,0],[0,0,0,0,0,0,1],[0,0,0,0,0,0,1],[0,0,0,0,1,0,0],[0,0,0,0,0,0,1],"
    "[0,0,0,0,0,0,1],[0,0,0,0,0,0,0]] input conv1x1-bn-relu conv3x3-bn-relu conv3x3-bn-relu conv3x3-bn-relu "
    "maxpool3x3 output",
    "resnet-like": "[[0,1,0,1],[0,0,1,0],[0,0,0,1],[0,0,0,0]] input conv3x3-bn-relu conv3x3-bn-relu output",
    "one-pool": FORM,
}


@SPACES.register("nasbench101", small={"channels": 8, "cells": 1})
def nasbench101(
    *,
    channels: Count = 128,
    cells: Count = 3,
    stacks: Count = 3,
    vertices: Count = 7,
    classes: Count = 10,
    input: Shape = (3, 32, 32),
) -> SearchSpace:
    """NAS-Bench-101: a cell of up to 7 vertices and 9 edges, 3 operations; 423,624 cells (Ying et al. 2019)

    What is on no path from the input of a cell to its output is neither built nor counted.

    Args:
        channels: of the cells in the first stack; they double from stack to stack.
        cells: in each stack.
        stacks: of cells, with a pooling of stride 2 between them.
        vertices: of a cell, its input and its output included.
        classes: outputs of the classifier.
        input: (channels, height, width) of one image.

    Raises ValueError if there is no vertex between the input and the output.
    """
    if vertices < 3:
        raise ValueError(
            f"a cell has an input, an output and a vertex between them: 3 or more, not {vertices}"
        )
    rows = len(pairs(vertices))
    decisions = (
        Decision("ops", OPERATIONS, rows=vertices - 2, keep=vertices - 2),
        Decision("edges", (0, 1), rows=rows, keep=rows),
    )
    b = Builder(input)
    x = b("stem", "conv3x3-bn-relu", "input", out=channels)
    for stack in range(stacks):
        if stack:
            x = b(f"pools.{stack - 1}", "max_pool_2x2", x, stride=2)
        for index in range(cells):
            x = _cell(b, f"cells.{stack * cells + index}", x, channels * 2**stack, vertices)
    x = b("pool", "global_avg_pool", x)
    b("classifier", "linear", x, out=classes)
    return SearchSpace(
        decisions,
        b.graph(),
        known=_known(vertices),
        rules=(partial(few_edges, vertices=vertices),),
        finish=divided,
        read=partial(read, vertices=vertices),
    )


def pairs(vertices: int) -> list[tuple[int, int]]:
    """The possible edges, from a vertex to a later one, in the order of the rows of the decision ``edges``.

    That is the upper triangle of the adjacency matrix, row by row.
    """
    return [(i, j) for i in range(vertices) for j in range(i + 1, vertices)]


def _cell(b: Builder, name: str, x: str, channels: int, vertices: int) -> str:
    there = {edge: Hole("edges", row, option=1) for row, edge in enumerate(pairs(vertices))}
    states: dict[int, str] = {}
    for j in range(1, vertices):
        edges = [b(f"{name}.edge{i}_{j}", "truncate", state, when=there[i, j]) for i, state in states.items()]
        projected = b(f"{name}.project{j}", PROJECTION, x, out=channels, when=there[0, j])
        if j < vertices - 1:
            joined = b(f"{name}.sum{j}", "sum", *edges, projected)
            states[j] = b(f"{name}.vertex{j}", Hole("ops", j - 1), joined, out=channels)
    joined = b(f"{name}.concat", "concat", *edges)
    # Of a filled graph this is all (see `divided`); where every vertex leads here, as in a supernet, a part.
    whole = b(f"{name}.whole", "truncate", joined, out=channels)
    return b(f"{name}.output", "sum", whole, projected)


def divided(graph: Graph) -> Graph:
    """The filled graph with the benchmark's channels.

    Those of the cell are divided among the vertices that lead to its output, of which the first have one more
    where a rest remains. Every other vertex has as many as the widest that it leads to; where that is more
    than a reader has, the reader takes the first of them.
    """
    asked: dict[str, int] = {}  # the channels that a node's readers ask for
    nodes = []
    for node in reversed(graph.nodes):
        part = node.name.rpartition(".")[2]
        width = node.out if part == "whole" else asked.get(node.name)
        shares: list[int] = []
        if isinstance(width, int) and node.op == "concat":
            share, rest = divmod(width, len(node.inputs))
            shares = [max(1, share + (place < rest)) for place in range(len(node.inputs))]
        elif isinstance(width, int) and not part.startswith("project"):
            shares = [width] * len(node.inputs)
        for source, share in zip(node.inputs if shares else (), shares, strict=True):
            asked[source] = max(asked.get(source, 0), share)
        nodes.append(node if width is None or node.op in JOINS else node._replace(out=width))
    return graph.rewritten(reversed(nodes))


def few_edges(architecture: Architecture, *, vertices: int) -> str | None:
    """The benchmark's rule on the number of edges. Those on no path from input to output do not count."""
    value = architecture.choices["edges"]
    edges = [edge for edge, (_, there) in zip(pairs(vertices), value, strict=True) if there]
    behind, ahead = {0}, {vertices - 1}
    for i, j in edges:
        behind |= {j} if i in behind else set()
    for i, j in reversed(edges):
        ahead |= {i} if j in ahead else set()
    used = sum(i in behind and j in ahead for i, j in edges)
    return None if used <= MOST else f"a cell has at most {MOST} edges, not {used}"


def read(text: str, *, vertices: int) -> Mapping[str, Value] | None:
    """Choices from the benchmark's notation: an adjacency matrix, then the operations of all vertices.

    A cell of fewer vertices leaves the last ones before the output without edges. Raises ValueError for a
    matrix that is no upper triangle of 0 and 1, and for operations that do not fit it.
    """
    if not text.startswith("[["):
        return None
    rows, bracket, names = text.rpartition("]]")
    try:
        matrix = ast.literal_eval(rows + bracket)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"not a matrix followed by operations, as in {FORM}: {text[:80]!r}") from error
    operations = re.findall(r"[\w-]+", names)
    size = len(matrix)
    if not 2 <= size <= vertices or any(len(row) != size for row in matrix):
        raise ValueError(f"a cell's matrix is square, with 2 to {vertices} rows: {matrix}")
    if any(matrix[i][j] not in ((0, 1) if i < j else (0,)) for i in range(size) for j in range(size)):
        raise ValueError(f"a cell's matrix has 0 and 1 above its diagonal and 0 elsewhere: {matrix}")
    if len(operations) != size or (operations[0], operations[-1]) != ("input", "output"):
        raise ValueError(f"{size} vertices are input, {size - 2} operations and output, not {operations}")
    for op in operations[1:-1]:
        if op not in OPERATIONS:
            raise ValueError("a vertex: " + unknown("operation", op, OPERATIONS))
    place = [*range(size - 1), vertices - 1]  # of its vertices in the space's cell: the output is the last
    there = {(place[i], place[j]) for i, j in pairs(size) if matrix[i][j]}
    spare = [OPERATIONS[0]] * (vertices - size)
    return {
        "ops": tuple(enumerate([*operations[1:-1], *spare])),
        "edges": tuple((row, int(edge in there)) for row, edge in enumerate(pairs(vertices))),
    }


def _known(vertices: int) -> dict[str, str]:
    """The literals of those known cells that have so many vertices or fewer."""
    literals = {}
    for name, text in KNOWN.items():
        if text.count("]") - 1 <= vertices:
            choices = read(text, vertices=vertices)
            assert choices is not None
            groups = ("|".join(f"{option}~{row}" for row, option in value) for value in choices.values())
            literals[name] = "+".join(f"|{group}|" for group in groups)
    return literals
