"""SmoothDARTS (Chen & Hsieh, "Stabilizing Differentiable Architecture Search via Perturbation-based
Regularization", ICML 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import TINY, Mixing, Rate
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("sdarts", budget="50epochs")
@dataclass(eq=False)
class SmoothDarts(Differentiable):
    """SmoothDARTS: weights are trained under random changes of the mixing weights (SDARTS-RS)

    The weights minimise the expected loss over a box around the mixing weights (equation 3), which smooths
    the validation loss in the alphas: the mixture may then be rounded to an architecture at less loss. The
    alphas descend the plain loss. As in the authors' code, what is changed is the softmax, held within 0..1.
    Where one of several rows is kept, the changed weights are divided by their sum: they say how much of a
    value is read.

    Args:
        radius, radius_start: half the width of the box, rising linearly over the search (the paper: from 0.03
            towards 0.3).
    """

    radius: Rate = 0.3
    radius_start: Rate = 0.03

    def begin_epoch(self, number: int) -> None:
        self.reach = self.radius_start + (self.radius - self.radius_start) * number / self.horizon

    def drawn(self, *, detached: bool) -> Mixing:
        """For the weights, tables somewhere in the box around the present ones."""
        tables = self.mixing(detached=detached)
        if detached:
            for name, table in tables.items():
                change = torch.empty(table.shape).uniform_(-self.reach, self.reach)
                tables[name] = (table + change.to(table)).clamp(0.0, 1.0)
            for d in self.task.space.decisions:
                if d.keep == 1 < d.rows:
                    tables[d.name] = tables[d.name] / tables[d.name].sum().clamp_min(TINY)
        return Mixing(tables)
