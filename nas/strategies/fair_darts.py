"""FairDARTS (Chu, Zhou, Zhang, Li, "Fair DARTS: Eliminating Unfair Advantages in Differentiable Architecture
Search", ECCV 2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from nas.search_space import Architecture, SearchSpace
from nas.search_space.decision import Decision
from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import Count, Positive, Rate, Share
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("fair_darts", budget="50epochs")
@dataclass(eq=False)
class FairDarts(Differentiable):
    """FairDARTS: a sigmoid an option, so that none gains by what another loses; a loss towards 0 and 1

    Skip connections cannot push the others aside (section 3.2). The zero-one loss narrows the gap between the
    mixture and the derived network (equation 6). The paper keeps every option above a threshold. Here an
    architecture keeps as many rows as its decision says, one option in each: the strongest. Where ``none``
    may be kept, it is, in rows in which no other option is above the threshold. Where one of several rows is
    kept, rows must compete: such spaces are refused. The entropy that is reported is that of a gate, log 2 at
    most. The rates are those of the authors' code.

    Args:
        zero_one: weight of the zero-one loss (the paper: 10).
        threshold: on sigmoid(alpha), where ``none`` may be kept (not in `darts`). The paper's 0.85 takes its
            full length of search; 0.5 is where an option starts, and where the zero-one loss parts those that
            go to 0 from those that go to 1.
    """

    batch: Count = 128
    lr: Positive = 0.005
    alpha_lr: Positive = 3e-3
    alpha_betas: tuple[Share, Share] = (0.9, 0.999)
    zero_one: Rate = 10.0
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        for d in space.decisions:
            if d.keep == 1 < d.rows:
                raise ValueError(
                    f"fair_darts lets no option compete with another, and in {d.name!r} of {space.name!r} "
                    f"one of {d.rows} rows is kept: search it with beta_darts or darts"
                )

    def table(self, decision: Decision, alpha: Tensor) -> Tensor:
        """Each option for itself (equation 5)."""
        return alpha.sigmoid()

    def penalty(self) -> Tensor:
        """The weighted zero-one loss: minus the mean squared distance from 1/2 (equation 6)."""
        gates = torch.cat([table.flatten() for table in self.mixing().values()])
        return -self.zero_one * (gates - 0.5).square().mean()

    def measured(self) -> dict[str, float]:
        gates = torch.cat([table.flatten() for table in self.mixing(detached=True).values()])
        entropy = (torch.special.entr(gates) + torch.special.entr(1 - gates)).mean()
        return super().measured() | {"alpha_entropy": entropy.item()}

    def best(self) -> Architecture:
        """The strongest options; ``none``, where it may be kept, against the threshold."""
        scores = self.tables()
        for decision in self.task.space.decisions:
            if "none" in decision.legal:
                place = decision.options.index("none")
                for row in scores[decision.name]:
                    row[place] = self.threshold
        return self.task.space.project(scores)
