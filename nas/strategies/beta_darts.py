"""Beta-DARTS (Ye, Li, Li, Wang, Fan, Ouyang, "Beta-DARTS: Beta-Decay Regularization for Differentiable
Architecture Search", CVPR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nas.strategies.differentiable import Differentiable
from nas.strategies.shared_weights import Rate, scopes
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("beta_darts", budget="50epochs")
@dataclass(eq=False)
class BetaDarts(Differentiable):
    """Beta-DARTS: the softmax weights (beta) are kept from growing apart too soon

    The loss of the alphas gains logsumexp(alpha), the mean over rows (Beta-Decay). Its gradient is beta
    itself: it holds back the options that lead. Its weight rises linearly over the search.

    Args:
        decay: the weight at the end. The paper: 25 after the 50 epochs of the DARTS space, 50 after the 100
            of NAS-Bench-201.
    """

    decay: Rate = 25.0

    def begin_epoch(self, number: int) -> None:
        self.strength = self.decay * number / self.horizon

    def penalty(self) -> Tensor:
        """The weighted smooth maximum of the alphas of a row; of all rows where they are one choice."""
        rows = [scopes(d, self.alphas[d.name]).logsumexp(1) for d in self.task.space.decisions]
        return self.strength * torch.cat(rows).mean()
