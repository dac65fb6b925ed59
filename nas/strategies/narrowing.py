"""Narrowing: what progressive searches are made of: fewer options, deeper spaces, few skip connections."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.strategies.collapse import is_skip

Kept = Annotated[float, Field(gt=0, le=1)]  # a share of the options
Place = tuple[str, int, int]  # decision, row, option
Scores = dict[str, list[list[float]]]  # decision, row, option


def left(decision: Decision, share: float) -> int:
    """How many options a `share` of them is, rounded up. Two at least: giving up alone decides nothing."""
    return min(len(decision.options), max(2, math.ceil(share * len(decision.options))))


def strongest(decision: Decision, table: Tensor, count: int) -> Tensor:
    """The places (rows, count) of the strongest options of each row; one of them is legal."""
    legal = torch.tensor([option not in decision.never for option in decision.options], device=table.device)
    best = table.masked_fill(~legal, -math.inf).argmax(-1, keepdim=True)
    return table.scatter(-1, best, math.inf).topk(count, dim=-1).indices.sort(-1).values


def truths(decision: Decision, places: Tensor) -> Tensor:
    """Places (rows, count) as truth values (rows, options), on the CPU: a supernet asks them in Python."""
    return torch.zeros(decision.rows, len(decision.options), dtype=torch.bool).scatter_(1, places.cpu(), True)


def deepened(space: SearchSpace, share: float) -> SearchSpace:
    """The space with a `share` of its cells; with more of them, up to its own, where so few are illegal."""
    own = space.scale.get("cells")
    if own is None:
        return space
    wanted = max(1, round(share * own))
    for cells in range(wanted, max(wanted, own) + 1):
        try:
            resized = space.resized(cells=cells)
        except ValueError:  # too few for a cell of every kind
            continue
        if resized.decisions == space.decisions:
            return resized
    return space


def few_skips(space: SearchSpace, tables: Scores, limit: int) -> Architecture:
    """The strongest options, with at most `limit` skip connections in each kind of cell.

    The weakest of too many is given up, one after another, where its row has another option with a weight;
    its weight becomes -1 in `tables`. Decisions whose names begin alike, up to a dot, are of one kind.
    """
    while True:
        found = space.project(tables)
        kinds: dict[str, list[Place]] = defaultdict(list)
        for d in space.decisions:
            kind, dot, _ = d.name.partition(".")
            kinds[kind if dot else ""] += [
                (d.name, row, d.options.index(option))
                for row, option in found.choices[d.name]
                if is_skip(space, option)
            ]
        many = [place for places in kinds.values() if len(places) > limit for place in places]
        spare = [place for place in many if _replaceable(space, tables, place)]
        if not spare:
            return found
        name, row, option = min(spare, key=lambda place: tables[place[0]][place[1]][place[2]])
        tables[name][row][option] = -1.0


def _replaceable(space: SearchSpace, tables: Scores, place: Place) -> bool:
    """Whether a skip connection is not yet given up, and its row has another option left."""
    name, row, skip = place
    decision, weights = space.decision(name), tables[name][row]
    return weights[skip] >= 0 and any(
        weights[decision.options.index(o)] > 0 and not is_skip(space, o) for o in decision.legal
    )
