"""FairNAS (Chu, Zhang, Xu, ICCV 2021): every option is trained equally often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from nas.graph import Option, Value
from nas.search_space import Architecture, SearchSpace
from nas.search_space.rules import TRIES
from nas.seeding import generator
from nas.strategies.sampled import Sampled
from nas.strategies.shared_weights import Count, Epochs
from nas.strategies.strategy import STRATEGIES, Task


@STRATEGIES.register("fairnas", budget="70epochs")
@dataclass(eq=False)
class FairNAS(Sampled):
    """FairNAS: each step trains every option once, by as many paths; then evolution

    Chu, Zhang, Xu, "FairNAS: Rethinking Evaluation Fairness of Weight Sharing Neural Architecture Search",
    ICCV 2021, section 3.2 and algorithm 1 (strict fairness): m options are drawn without replacement, and the
    gradients of the m paths are summed for one step. So an epoch costs m of other sampled methods'.

    Where decisions have unequal numbers of options, m is the largest, and within a step one option of the
    others is trained at most once more than another. A decision that keeps some of its rows draws these rows
    once a step. Limits are for candidates alone: the paths of a step may break them. The paper searches with
    NSGA-II for accuracy, size and multiply-adds; here accuracy is improved within limits.
    """

    epochs: Count = 70
    rounds: Epochs = 20
    search: Literal["random", "evolution"] = "evolution"

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        # Else a later step might find none in all.
        fair_paths(replace(space, limits=()), generator("fair"), tries=TRIES // 20)

    def prepare(self, task: Task) -> None:
        super().prepare(task)
        self.free = replace(task.space, limits=())

    def sample(self, epoch: int, step: int) -> Sequence[Architecture]:
        return fair_paths(self.free, generator(self.task.seed, "path", epoch, step))


def fair_paths(space: SearchSpace, rng: Random, *, tries: int = TRIES) -> list[Architecture]:
    """Paths that hold every option of every row that is kept once, or as evenly as their number allows.

    Raises ValueError if no such set was found in which every path is a network.
    """
    count = max(len(decision.legal) for decision in space.decisions)
    for _ in range(tries):
        choices: list[dict[str, Value]] = [{} for _ in range(count)]
        for decision in space.decisions:
            rows = sorted(rng.sample(range(decision.rows), decision.keep))
            columns = [_evenly(decision.legal, count, rng) for _ in rows]
            for place, path in enumerate(choices):
                path[decision.name] = tuple(
                    (row, column[place]) for row, column in zip(rows, columns, strict=True)
                )
        paths = [space.architecture(path) for path in choices]
        if all(space.why_not(path) is None for path in paths):
            return paths
    raise ValueError(
        f"of {tries:,} sets of {count} paths in {space.name!r} that train every option once, none had legal "
        "paths alone: strict fairness does not go with this space's rules. Search it with --strategy spos"
    )


def _evenly(options: Sequence[Option], count: int, rng: Random) -> list[Option]:
    """`count` options in random order: whole permutations, then some of one."""
    drawn = [o for _ in range(-(-count // len(options))) for o in rng.sample(options, len(options))][:count]
    rng.shuffle(drawn)
    return drawn
