"""R-DARTS (Zela, Elsken, Saikia, Marrakchi, Brox, Hutter, "Understanding and Robustifying Differentiable
Architecture Search", ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nas.search_space import SearchSpace
from nas.strategies.differentiable import Differentiable, has_mixtures
from nas.strategies.shared_weights import Rate, Share
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("r_darts", budget="50epochs")
@dataclass(eq=False)
class RobustDarts(Differentiable):
    """R-DARTS: stronger regularisation of the weights, by weight decay or by dropping paths

    A flatter loss of the weights gives a flatter loss of the alphas, and derived networks closer to the
    mixture (section 5). The paper searches four times, with weight decays of 3, 9, 27 and 81 times 1e-4
    (R-DARTS (L2)) or with drop path of 0, 0.2, 0.4 and 0.6 (R-DARTS (DP)), and takes the network that is
    best when trained alone; here it is one search with one strength.

    Args:
        weight_decay: of the weights (DARTS: 3e-4).
        drop_path: probability of dropping an operation that is no identity, rising linearly from 0.
    """

    weight_decay: Rate = 27e-4
    drop_path: Share = 0.0

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        if self.drop_path and not has_mixtures(space):
            raise ValueError(
                f"{space.name!r} has no operations to choose from, which strategy.drop_path could drop: "
                "leave it out"
            )

    def conflicts(self) -> Iterator[str]:
        yield from super().conflicts()
        if self.compile and self.drop_path:
            yield "strategy.drop_path drops other options in each step, which strategy.compile cannot follow"

    def begin_epoch(self, number: int) -> None:
        self.supernet.drop_path = self.drop_path * number / self.horizon
