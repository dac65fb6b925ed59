"""DARTS-PT (Wang, Cheng, Chen, Tang, Hsieh, ICLR 2021): operations are chosen by what their removal costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from nas.search_space import Architecture
from nas.search_space.decision import Decision
from nas.seeding import generator
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import TINY, Count, Mixing, Tensors, cosine
from nas.strategies.strategy import STRATEGIES, Task
from nas.supernet.norms import Policy


@STRATEGIES.register("darts_pt", budget="80epochs")
@dataclass(eq=False)
class DartsPT(Differentiable):
    """DARTS-PT: after a DARTS search, the operations whose removal hurts the supernet most are kept

    The size of an alpha says little about an operation's worth. So, row after row in random order, each
    option is taken out in turn, and the one is kept without which the validation accuracy of the supernet is
    lowest; then the supernet is tuned. Where rows compete (the inputs of a node of DARTS), the one that is
    missed least is taken out until as many are left as a value keeps (algorithm 1). Of equal accuracies, the
    loss decides.

    Supernets are compared by the running statistics, as in the published code. At the end these are those of
    the network that is left; until then they say little of the derived one, whose gap is wide. The search is
    that of DARTS; to tune, the learning rate begins anew at a tenth, as in the published code.
    What differs: one row is decided at a time in the whole space, not one in each kind of cell.

    Args:
        tune: epochs of training after each choice, while half of the budget is enough for all of them; else
            half of the budget is shared out evenly.
    """

    epochs: Count = 80
    norm: Policy = "tracked"
    tune: Count = 5

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.compile:
            yield "darts_pt gives options up one after another, which strategy.compile cannot follow"

    def prepare(self, task: Task) -> None:
        super().prepare(task)
        decisions = task.space.decisions
        self.active = {d.name: torch.ones(d.rows, len(d.options), dtype=torch.bool) for d in decisions}
        self.chosen = 0  # how many of the steps are done
        rows = [(d.name, row) for d in decisions for row in range(d.rows) if len(d.legal) > 1]
        kept = [(d.name, None) for d in decisions if d.keep < d.rows]
        rng = generator(task.seed, "order of selection")
        self.steps: list[tuple[str, int | None]] = [
            *rng.sample(rows, len(rows)),
            *rng.sample(kept, len(kept)),
        ]
        self.tuning = min(self.tune * len(self.steps), self.horizon // 2)  # epochs, the last ones

    @property
    def left(self) -> Tensors:
        """The options that are left, by decision."""
        assert self.active is not None
        return self.active

    def rate_at(self, number: int) -> float:
        search = self.horizon - self.tuning
        if number < search:
            return cosine(number / search, self.lr, self.lr_min)
        return cosine((number - search) / self.tuning, self.lr / 10, min(self.lr_min, self.lr / 10))

    def begin_epoch(self, number: int) -> None:
        """The choices that are due before this epoch."""
        tuned = number - (self.horizon - self.tuning)
        if self.tuning and tuned >= 0:
            while self.chosen < len(self.steps) and self.chosen * self.tuning // len(self.steps) <= tuned:
                self.choose(*self.steps[self.chosen])
                self.chosen += 1

    def choose(self, name: str, row: int | None) -> None:
        """Keep one option of a row; or, without a row, as many rows as a value keeps."""
        decision, left = self.task.space.decision(name), self.left[name]
        if row is not None:
            columns = [decision.options.index(option) for option in decision.legal]
            best = min(columns, key=lambda column: self.without(name, row, column))
            left[row] = False
            left[row, best] = True
            return
        rows = list(range(decision.rows))
        while len(rows) > decision.keep:
            least = max(rows, key=lambda each: self.without(name, each))
            rows.remove(least)
            left[least] = False

    def without(self, name: str, row: int, column: int | None = None) -> tuple[float, float]:
        """Validation accuracy, and minus the loss, of the supernet without an option, or a whole row."""
        place = row if column is None else (row, column)
        tables = self.mixing(detached=True)
        active = {each: table.clone() for each, table in self.left.items()}
        tables[name] = tables[name].clone()
        tables[name][place] = 0.0
        active[name][place] = False
        found = self.checked(Mixing(tables, active))
        return found["accuracy"], -found["loss"]

    def table(self, decision: Decision, alpha: Tensor) -> Tensor:
        """The softmax, in each row given to the options that are left."""
        table = super().table(decision, alpha)
        left = table * self.left[decision.name].to(table.device)
        left = left / left.sum(-1, keepdim=True).clamp_min(TINY)
        if decision.keep > 1:
            return left
        left = left * table.sum(-1, keepdim=True)  # a row keeps its share of the one choice
        return left / left.sum()

    def random(self, rng: Random) -> Architecture:
        """Of all options: they were trained until the selection began."""
        return self.task.space.sample(rng)

    def state(self) -> dict[str, Any]:
        return super().state() | {"chosen": self.chosen}

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.chosen = state["chosen"]
