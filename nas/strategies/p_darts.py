"""P-DARTS (Chen, Xie, Wu, Tian, ICCV 2019): a search in stages, deeper each time, with fewer options."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nas.graph import Hole
from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.strategies.collapse import is_skip
from nas.strategies.differentiable import Differentiable
from nas.strategies.narrowing import Kept, deepened, few_skips, left, strongest, truths
from nas.strategies.shared_weights import Count, Epochs, Positive, Rate, Share, cosine
from nas.strategies.strategy import STRATEGIES, Task
from nas.supernet import Supernet
from nas.supernet.mixture import option_key


@STRATEGIES.register("p_darts", budget="75epochs")
@dataclass(eq=False)
class PDarts(Differentiable):
    """P-DARTS: three stages, each with more cells and fewer options, against the gap in depth

    Every stage begins anew with a deeper supernet (where the space has `cells`) and the options that were
    strongest in the stage before (section 3.2). Skip connections, which a shallow search favours, are
    dropped out at a rate that decays within the stage, and at the end only the strongest `skips` of them
    are kept in each kind of cell (section 3.3), where a row has another option left.

    The defaults are the paper's for CIFAR-10: 5, 11 and 17 cells, given here as shares of the 8 of DARTS; 8,
    5 and 3 options, as shares too; 10 of 25 epochs of a stage train the weights alone. What differs: the
    dropout decays exponentially over the whole stage (the published code: linearly in the warm-up), and the
    skip connections of every kind of cell are limited (the published code: of the normal cell).

    Args:
        depths: the cells of each stage, as shares of the space's own.
        kept: the share of its options that each row has in the second stage, and in the third.
        dropout: of the skip connections, at the beginning of each stage.
        skips: how many are kept in each kind of cell: in decisions whose names begin alike, up to a dot.
    """

    epochs: Count = 75
    warmup: Share = 0.4
    batch: Count = 96
    lr_min: Rate = 0.0
    alpha_lr: Positive = 6e-4
    depths: tuple[Positive, Positive, Positive] = (0.625, 1.375, 2.125)
    kept: tuple[Kept, Kept] = (0.625, 0.375)
    dropout: tuple[Share, Share, Share] = (0.0, 0.4, 0.7)
    skips: Epochs = 2

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.compile:
            yield "p_darts drops skip connections at changing rates, which strategy.compile cannot follow"

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        if self.kept[1] > self.kept[0]:
            raise ValueError(
                f"strategy.kept = {self.kept}: the third stage has options of the second alone, so the last "
                "share is not the larger one"
            )

    def prepare(self, task: Task) -> None:
        self.stage, self.dropped = 0, 0.0
        super().prepare(task)

    def place(self, number: int) -> tuple[int, int, int]:
        """The stage of an epoch, from 0; the epochs of it that are done, and all of them."""
        starts = [math.ceil(i * self.horizon / 3) for i in range(4)]
        stage = max(i for i in range(3) if starts[i] <= number)
        return stage, number - starts[stage], starts[stage + 1] - starts[stage]

    def rate_at(self, number: int) -> float:
        _, done, whole = self.place(number)
        return cosine(done / whole, self.lr, self.lr_min)

    def warming(self, number: int) -> bool:
        _, done, whole = self.place(number)
        return done < int(self.warmup * whole)

    def begin_epoch(self, number: int) -> None:
        stage, done, whole = self.place(number)
        if stage > self.stage:
            tables = self.mixing(detached=True)
            self.active = {
                d.name: truths(d, strongest(d, tables[d.name], left(d, self.kept[stage - 1])))
                for d in self.task.space.decisions
            }
            self.stage = stage
            self.renew(stage)
        self.dropped = self.dropout[stage] * math.exp(-3 * done / whole)  # as the published code: to 5 %

    def build(self) -> Supernet:
        """The supernet of the stage, with dropout behind its skip connections."""
        space = deepened(self.task.space, self.depths[self.stage])
        supernet = Supernet(space, **self.form)
        for node in space.graph.nodes:
            if isinstance(node.op, Hole):
                options = space.decision(node.op.decision).options
                keys = [option_key(space.graph.operation(o), {}) for o in options if is_skip(space, o)]
                for key, module in supernet.nodes[node.name].named_children():
                    if any(key == each or key.startswith(f"{each}-") for each in keys):
                        module.register_forward_hook(self._drop)
        return supernet

    def _drop(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return nn.functional.dropout(output, self.dropped, module.training)

    def table(self, decision: Decision, alpha: Tensor) -> Tensor:
        """The softmax over the options that are left."""
        if self.active is not None:
            gone = ~self.active[decision.name].to(alpha.device)
            alpha = alpha.masked_fill(gone, -math.inf)
        return super().table(decision, alpha)

    def best(self) -> Architecture:
        """The strongest options, with at most `skips` skip connections in each kind of cell."""
        return few_skips(self.task.space, self.tables(), self.skips)

    def state(self) -> dict[str, Any]:
        return super().state() | {"stage": self.stage}

    def load(self, state: dict[str, Any]) -> None:
        if state["stage"]:
            self.stage = state["stage"]
            self.renew(self.stage)
        super().load(state)
