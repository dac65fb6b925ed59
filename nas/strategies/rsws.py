"""RSWS (Li & Talwalkar, UAI 2019): random search with weight sharing."""

from __future__ import annotations

from dataclasses import dataclass

from nas.strategies.sampled import Sampled
from nas.strategies.strategy import STRATEGIES


@STRATEGIES.register("rsws", budget="60epochs")
@dataclass(eq=False)
class RSWS(Sampled):
    """RSWS: uniform paths are trained; of random ones, the best with shared weights is found

    Li & Talwalkar, "Random Search and Reproducibility for Neural Architecture Search", UAI 2019, section 3.
    Each step draws a path anew, every decision uniformly, and trains it on one minibatch. They score 1,000
    paths on one minibatch each and the best ten on the whole validation part; here all candidates, 500 by
    default (`rounds` times `candidates`), see all of it.
    """
