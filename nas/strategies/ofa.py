"""Once-for-all (Cai, Gan, Wang, Zhang, Han, ICLR 2020): elastic networks, trained by shrinking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.graph import Hole, Option, Value
from nas.search_space import Architecture, SearchSpace
from nas.search_space.rules import TRIES
from nas.seeding import generator
from nas.strategies.sampled import Sampled
from nas.strategies.shared_weights import Count, Epochs
from nas.strategies.strategy import STRATEGIES, Task

Elastic = Literal["kernel", "depth", "width"]
ORDER: tuple[Elastic, ...] = ("kernel", "depth", "width")  # in which they open


@STRATEGIES.register("ofa", budget="70epochs")
@dataclass(eq=False)
class OFA(Sampled):
    """OFA: elastic kernels, depths and widths open one after the other; then evolution

    Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020,
    section 3.3 (progressive shrinking): first the largest network alone is trained, then smaller kernels are
    sampled too, then smaller depths, then smaller widths and expansions, each in an equal part of the epochs.
    Each step sums the gradients of the largest and the smallest open network and of random ones between (the
    sandwich rule), and all but the largest learn its output, not the labels (in-place distillation): Yu et
    al., "BigNAS", ECCV 2020, section 3.1.

    Cai et al. distil from a network trained before, learn a matrix for each smaller kernel, sort channels by
    importance before widths open, and search with predictors. Here the larger network is at hand in each
    step, smaller kernels are the centre, channels keep their order, and evolution scores each candidate.
    Other decisions, as of an operation, are open from the beginning; limits are for candidates alone.

    Args:
        between: random open paths of a step.
        sandwich: also train the largest and the smallest in each step, and distil.
        progressive: open the elastic decisions one after the other; otherwise all are open at once.
    """

    epochs: Count = 70
    rounds: Epochs = 20
    search: Literal["random", "evolution"] = "evolution"
    between: Count = 2
    sandwich: bool = True
    progressive: bool = True

    def check(self, space: SearchSpace) -> None:
        super().check(space)
        if not elastic(space):
            raise ValueError(
                f"{space.name!r} has no elastic kernels, depths or widths, which open one after the other: "
                "search it with --strategy spos, or a space like mobile or resnet_elastic with this one"
            )

    def prepare(self, task: Task) -> None:
        super().prepare(task)
        self.free = replace(task.space, limits=())
        self.kinds = elastic(task.space)
        self._taught = torch.empty(0)  # what the largest network of the step says

    def open(self, epoch: int) -> set[Elastic]:
        """What is elastic in an epoch, from 0; in the last one that trains, all is."""
        kinds = [kind for kind in ORDER if kind in self.kinds.values()]
        if not self.progressive:
            return set(kinds)
        left = (self.trained - 1 - epoch) * (len(kinds) + 1) // self.trained  # phases to come
        return set(kinds[: len(kinds) - left])

    def sample(self, epoch: int, step: int) -> Sequence[Architecture]:
        rng, opened = generator(self.task.seed, "path", epoch, step), self.open(epoch)
        if not opened:
            return [self._path(rng, opened, max)]
        between = [self._path(rng, opened) for _ in range(self.between)]
        if not self.sandwich:
            return between
        return [self._path(rng, opened, max), *between, self._path(rng, opened, min)]

    def loss(self, place: int, logits: Tensor, y: Tensor) -> Tensor:
        if self.sandwich and place:
            return nn.functional.cross_entropy(logits, self._taught)
        self._taught = logits.detach().softmax(1)
        return super().loss(place, logits, y)

    def _path(
        self, rng: Random, opened: set[Elastic], extreme: Callable[[Iterable[Any]], Any] | None = None
    ) -> Architecture:
        """A random path with the largest option of what is closed, and the `extreme` one of what is open."""
        space = self.free
        for _ in range(TRIES):
            choices: dict[str, Value] = {}
            for d in space.decisions:
                value, kind = d.sample(rng), self.kinds.get(d.name)
                pick = extreme if kind in opened else max
                if kind and pick:
                    value = tuple((row, pick(d.legal)) for row, _ in value)
                choices[d.name] = value
            found = space.architecture(choices)
            if space.why_not(found) is None:
                return found
        raise ValueError(
            f"{TRIES:,} paths of {space.name!r} with elastic {', '.join(sorted(opened)) or 'nothing'} break "
            "its rules: search it with --strategy spos"
        )


def elastic(space: SearchSpace) -> dict[str, Elastic]:
    """What the elastic decisions choose: numbers that the graph asks as a kernel, a depth or a width.

    A kernel is a sliced attribute of that name. A depth has an exit for every option (`Builder.exits`), which
    a bit for a connection has not. A width is any other number whose options share one tensor: channels,
    expansions, heads.
    """
    found: dict[str, Elastic] = {}
    exits: dict[str, set[Option]] = defaultdict(set)
    for node in space.graph.nodes:
        if node.when is not None and node.when.option is not None:
            exits[node.when.decision].add(node.when.option)
        for name, hole in (*node.attrs, ("out", node.out)):
            if isinstance(hole, Hole) and (hole.sliced or name == "out"):
                found[hole.decision] = "kernel" if name == "kernel" else "width"
    found |= {name: "depth" for name, opened in exits.items() if opened >= set(space.decision(name).legal)}
    options = {name: space.decision(name).legal for name in found}
    return {
        name: kind
        for name, kind in found.items()
        if len(options[name]) > 1 and not any(isinstance(option, str) for option in options[name])
    }
