"""Presence: how much of a node is there under a mixture of choices. An absent node is 0, a certain one 1."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from nas.graph import JOINS, Graph, Hole, Node
from nas.network import Runner
from nas.search_space import SearchSpace
from nas.supernet.mixture import Pick, Weights, product_of, run


class Presence:
    """The presence of every node that some legal choice leaves out; `maybe` are their names.

    A node is there with the sum of the weights of what keeps it, times the presence of what it reads; a join
    unless all its inputs are absent; a loose end unless something else reads it.
    """

    def __init__(self, space: SearchSpace, graph: Graph, picks: Callable[[Node], list[Pick]]) -> None:
        self.space = space
        self.nodes = {node.name: node for node in graph.nodes}
        self.picks = {node.name: picks(node) for node in graph.nodes[1:]}
        self.readers: dict[str, list[str]] = defaultdict(list)
        for node in graph.nodes:
            for source in dict.fromkeys(node.inputs):
                self.readers[source].append(node.name)
        self.maybe: set[str] = set()
        for node in graph.nodes[1:]:
            if self._may_be_absent(node):
                self.maybe.add(node.name)

    def _may_be_absent(self, node: Node) -> bool:
        if self._optional(node):
            return True
        if node.op not in JOINS:
            return node.inputs[0] in self.maybe
        if node.loose:
            return all(n in self.maybe or self.readers[n] != [node.name] for n in node.inputs)
        return all(n in self.maybe for n in node.inputs) and not self._one_is_there(node)

    def _optional(self, node: Node) -> bool:
        """Whether a node's own choices may leave it out."""
        if node.when is not None:
            return True
        decisions = [(self.space.decision(hole.decision), hole) for hole in node.holes()]
        return any(d.keep < d.rows or (h == node.op and "none" in d.legal) for d, h in decisions)

    def _one_is_there(self, join: Node) -> bool:
        """Whether the inputs of a join are alternatives of which every legal value keeps one."""
        covered: dict[str, dict[int, set[object]]] = defaultdict(lambda: defaultdict(set))
        for node in (self.nodes[name] for name in join.inputs):
            if not node.inputs or any(source in self.maybe for source in node.inputs):
                continue
            hole = node.when or (node.op if isinstance(node.op, Hole) else None)
            if hole is not None:
                options = (hole.option,) if node.when else self.space.decision(hole.decision).legal
                covered[hole.decision][hole.row] |= set(options) - {"none"}
        for name, rows in covered.items():
            decision = self.space.decision(name)
            full = [row for row, options in rows.items() if options >= set(decision.legal)]
            if decision.rows - len(full) < decision.keep:
                return True
        return False

    def of(self, name: str, weights: Weights) -> Tensor | float:
        """The presence of a node under `weights`; worked out once for each `weights`."""
        if name not in self.maybe:
            return 1.0
        known: dict[str, Tensor | float] = weights.kept.setdefault(self, {})
        if name not in known:
            known[name] = self._of(self.nodes[name], weights)
        return known[name]

    def _of(self, node: Node, weights: Weights) -> Tensor | float:
        if node.op not in JOINS:
            return self.own(node.name, weights) * self.of(node.inputs[0], weights)
        absent: Tensor | float = 1.0
        for source in node.inputs:
            there = self.of(source, weights)
            if node.loose:
                there = there * self.unread(source, node.name, weights)
            absent = absent * (1 - there)
        return (1 - absent) * self.own(node.name, weights)

    def own(self, name: str, weights: Weights) -> Tensor | float:
        """The weight of the node's own choices that keep it; of choices that do not compete, 1 at most."""
        if not self._optional(self.nodes[name]):
            return 1.0
        return torch.stack([product_of(pick, weights) for pick in self.picks[name]]).sum().clamp(max=1.0)

    def unread(self, name: str, concat: str, weights: Weights) -> Tensor | float:
        """The chance that nothing but `concat` reads a node."""
        free: Tensor | float = 1.0
        for reader in self.readers[name]:
            if reader != concat:
                free = free * (1 - self.own(reader, weights))
        return free


class LooseEnds:
    """A concatenation of loose ends, softly: each input times the chance that nothing else reads it."""

    mixed = True

    def __init__(self, presence: Presence, node: Node) -> None:
        self.presence = presence
        self.node = node

    def __call__(self, *inputs: Tensor, weights: Weights) -> Tensor:
        pairs = zip(inputs, self.node.inputs, strict=True)
        free = [x * self.presence.unread(name, self.node.name, weights) for x, name in pairs]
        return torch.cat(free, dim=1)


class Mean:
    """The mean of what is there, softly: the sum divided by how much of it is there."""

    mixed = True

    def __init__(self, presence: Presence, node: Node) -> None:
        self.presence = presence
        self.node = node

    def __call__(self, *inputs: Tensor, weights: Weights) -> Tensor:
        there = sum(self.presence.of(name, weights) for name in self.node.inputs)
        return sum(inputs[1:], inputs[0]) / torch.as_tensor(there).clamp_min(1e-12)


class There:
    """An operation on what may be absent: its output times the presence of what it reads.

    Of a zero a norm or a bias would make something; of what is absent nothing is made.
    """

    mixed = True

    def __init__(self, runner: Runner, presence: Presence, source: str) -> None:
        self.runner = runner
        self.presence = presence
        self.source = source

    def __call__(self, *inputs: Tensor, weights: Weights) -> Tensor:
        return run(self.runner, inputs, weights) * self.presence.of(self.source, weights)
