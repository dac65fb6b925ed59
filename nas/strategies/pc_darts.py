"""PC-DARTS (Xu, Xie, Zhang, Chen, Qi, Tian, Xiong, ICLR 2020): a part of the channels is searched."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.graph import JOINS, Hole
from nas.search_space import SearchSpace
from nas.search_space.decision import Decision
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import Count, Positive, Rate, Share
from nas.strategies.strategy import STRATEGIES, Task
from nas.supernet import Supernet


@STRATEGIES.register("pc_darts", budget="50epochs")
@dataclass(eq=False)
class PCDarts(Differentiable):
    """PC-DARTS: a part of the channels is searched, and inputs compete by weights of their own

    Only one of `partial` channels passes through the mixture (equation 2), so that memory and time fall and
    batches can grow. What that loses in stability, edge normalisation gives back: each row of a decision has
    one more alpha, and the softmax over the rows that one join reads is multiplied into the table (equation
    3), in the derivation too. Rows that no join brings together, layers of a chain, are no edges.

    The defaults are the paper's for CIFAR-10: 15 of 50 epochs train the weights alone.

    Args:
        partial: k; where the channels are no multiple of it, all are searched.
    """

    warmup: Share = 0.3
    batch: Count = 256
    lr: Positive = 0.1
    lr_min: Rate = 0.0
    alpha_lr: Positive = 6e-4
    partial: Count = 4

    def prepare(self, task: Task) -> None:
        self.edges = edges(task.space)
        super().prepare(task)

    def build(self) -> Supernet:
        return Supernet(self.task.space, partial=self.partial, **self.form)

    def start(self, decision: Decision) -> Tensor:
        """The alphas of a decision at the start: of its options, and in a last column of its rows."""
        return 1e-3 * torch.randn(decision.rows, len(decision.options) + 1)

    def table(self, decision: Decision, alpha: Tensor) -> Tensor:
        """The softmax over options times the softmax over rows; where one row is kept, both sum to 1."""
        options = alpha[:, :-1].softmax(1)
        if decision.name in self.edges or decision.keep < decision.rows:
            return options * alpha[:, -1:].softmax(0)
        return options


def edges(space: SearchSpace) -> set[str]:
    """The decisions of which one join reads the operations of several rows."""
    nodes = {node.name: node for node in space.graph.nodes}
    found: set[str] = set()
    for node in space.graph.nodes:
        if node.op in JOINS:
            holes = {nodes[name].op for name in node.inputs}
            rows = Counter(hole.decision for hole in holes if isinstance(hole, Hole))
            found |= {name for name, count in rows.items() if count > 1}
    return found
