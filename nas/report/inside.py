"""insides(): what is in the blocks of a network that are one operation each: pictures of their modules."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from nas.graph import Hole, Scalar
from nas.report.cell import Cell
from nas.report.traced import traced

if TYPE_CHECKING:
    import networkx as nx

BLOCKS = frozenset({"mobile", "residual", "inception", "dense", "gates", "attention", "own"})
LEAST = 4  # states that make a picture: less would say no more than the block's name


class Block(NamedTuple):
    """What a block is built from."""

    op: str
    channels: int
    out: int
    stride: int
    attrs: tuple[tuple[str, Scalar | Hole], ...]


def insides(blocks: Iterable[tuple[str, Block]]) -> list[Cell]:
    """A picture for each name among `blocks`.

    Blocks of one name share the picture of the richest; a number in which they differ is left out.
    """
    members: dict[str, list[Block]] = {}
    for name, block in blocks:
        members.setdefault(name, []).append(block)
    cells = []
    for name, each in members.items():
        drawn = [graph for graph in map(_recorded, dict.fromkeys(each)) if graph is not None]
        if not drawn:
            continue
        richest = max(drawn, key=_riches).copy()
        same = [graph for graph in drawn if _structure(graph) == _structure(richest)]
        for state, fields in richest.nodes(data=True):
            first, *others = [str(graph.nodes[state]["detail"]).split(", ") for graph in same]
            fields["detail"] = ", ".join(word for word in first if all(word in other for other in others))
        if len(richest) >= LEAST:
            note = "" if len(same) == len(drawn) == len(dict.fromkeys(each)) else "the fullest of its forms"
            cells.append(Cell(name, richest, len(each), note))
    return cells


@lru_cache(maxsize=512)
def _recorded(block: Block) -> nx.MultiDiGraph[str] | None:
    import torch

    from nas.primitives import resolve

    given = {name: value for name, value in block.attrs if name != "affine"}
    try:
        with torch.device("meta"):
            module = resolve(block.op)(block.channels, block.out, block.stride, True, **given)
    except Exception:  # a constructor of one's own that needs real tensors: no picture
        return None
    return traced(module)


def _riches(graph: nx.MultiDiGraph[str]) -> tuple[bool, int]:
    """Pictures with a join tell more than chains; then more states tell more."""
    return any(number > 1 for _, number in graph.in_degree()), len(graph)


def _structure(graph: nx.MultiDiGraph[str]) -> object:
    states = tuple((name, fields["label"]) for name, fields in graph.nodes(data=True))
    return states, tuple(graph.edges())
