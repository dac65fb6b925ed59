"""Zero-cost ranking: look at many untrained networks first, evaluate those that score best.

M. Abdelfattah, A. Mehrotra, L. Dudziak, N. Lane, Zero-Cost Proxies for Lightweight NAS (ICLR 2021): by
itself, or as the warm-up of another strategy.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from nas.evaluators.table import Table
from nas.execution import Result, Trial
from nas.registry import absolute
from nas.search_space import Architecture, SearchSpace
from nas.search_space.address import split
from nas.seeding import derive, generator, randomness
from nas.signature import bind, parameters
from nas.strategies.ask_tell import AskTell
from nas.strategies.strategy import STRATEGIES

if TYPE_CHECKING:
    from torch import Tensor

ATTEMPTS = 10  # draws for each candidate wanted, before there are taken to be no others
SHARED = (
    "pending",
    "replays",
    "_seen",
    "_known",
    "_tried",
    "_networks",
)  # what was proposed, known to both strategies
Absolute = AfterValidator(lambda path: path.expanduser().resolve())  # the same wherever it is resumed


@STRATEGIES.register("zero_cost", budget="50trials")
class ZeroCost(AskTell):
    """Zero-cost ranking: the candidates that a proxy ranks best, alone or before another strategy

    Uniform samples are ranked by the proxy of an untrained network (`nas.evaluators.proxies`), on a batch of
    the search's training images, or on noise where there are none. They are proposed from the best on; when
    all are, as many others are sampled and ranked.

    Args:
        proxy: what ranks them; with `scores`, a column of that file.
        candidates: samples ranked at a time. A proxy takes a fraction of a second: a thousand are worth it
            where an evaluation takes minutes.
        batch: images that the proxy looks at.
        smallest: whether small scores are good.
        scores: CSV of known scores in place of computing them, a row an architecture; one without a row is
            ranked last.
        join: a further such file that has the column, and another in common with the first.
        arch_column: the column of literals.
        then: a strategy that takes over and is told everything: ``regularized_evolution?population=10``.
        warm: trials before it does: their architectures, where it would propose new ones, are the ranking's.
        epochs: of training for each candidate; a strategy with rungs that takes over has its own.
    """

    def __init__(
        self,
        proxy: str = "synflow",
        candidates: Annotated[int, Field(ge=1)] = 200,
        batch: Annotated[int, Field(ge=2)] = 32,
        smallest: bool = False,
        scores: Annotated[Path, Absolute] | None = None,
        join: Annotated[Path, Absolute] | None = None,
        arch_column: str = "arch",
        then: Annotated[str, AfterValidator(absolute)] = "",
        warm: Annotated[int, Field(ge=1)] = 10,
        epochs: Annotated[int, Field(ge=1)] = 5,
    ) -> None:
        super().__init__()
        self.proxy, self.candidates, self.batch, self.smallest = proxy, candidates, batch, smallest
        self.scores_file, self.join, self.arch_column = scores, join, arch_column
        self.warm, self.epochs = warm, epochs
        self.successor = _made(then, epochs) if then else None
        if scores is None:
            from nas.evaluators.proxies import PROXIES

            PROXIES.resolve(proxy)

    def check(self, space: SearchSpace) -> None:
        if self.successor is not None:
            self.successor.check(space)

    def begin(self) -> None:
        self._ranked: list[Architecture] = []  # block after block, each from its best on
        self._passed = 0  # so many of them, from the first on, were proposed
        self._candidates: set[str] = set()  # their identities
        if self.successor is not None:
            self.successor.task = self.task
            for name in SHARED:
                setattr(self.successor, name, getattr(self, name))
            self.successor.begin()

    def tell(self, trial: Trial, result: Result | None) -> None:
        super().tell(trial, result)
        if self.successor is not None:
            self.successor.tell(trial, result)

    def ask(self, number: int) -> Trial | None:
        if self.successor is None:
            found = self._foremost()
            return None if found is None else Trial(number, found, self.epochs)
        asked = self.successor.ask(number)
        if number >= self.warm or asked is None or self.seen(asked.architecture):
            return asked
        return replace(asked, architecture=self._foremost() or asked.architecture)  # trained as long

    def _foremost(self) -> Architecture | None:
        """The best of the ranking that was not proposed yet; None if there are no more."""
        while True:
            while self._passed < len(self._ranked) and self.seen(self._ranked[self._passed]):
                self._passed += 1
            if self._passed < len(self._ranked):
                return self._ranked[self._passed]
            others = self._block()
            if not others:
                return None
            self._ranked += others

    def _block(self) -> list[Architecture]:
        """Candidates that no earlier block has, best first; fewer, or none, where there are no more."""
        rng = generator(self.task.seed, "candidates", len(self._candidates))
        drawn: list[Architecture] = []
        for _ in range(ATTEMPTS * self.candidates):
            if len(drawn) == self.candidates:
                break
            architecture = self.task.space.sample(rng)
            identity = self.identity(architecture)
            if identity not in self._candidates:
                self._candidates.add(identity)
                drawn.append(architecture)
        scores = self._known_scores(drawn) if self.scores_file else self._computed_scores(drawn)
        order = sorted(range(len(drawn)), key=lambda i: scores[i], reverse=True)
        return [drawn[i] for i in order]

    def _directed(self, score: float) -> float:
        """Larger is better, and what is no number is worst."""
        if math.isnan(score):
            return -math.inf
        return -score if self.smallest else score

    def _known_scores(self, candidates: list[Architecture]) -> list[float]:
        assert self.scores_file is not None
        join = () if self.join is None else (self.join,)
        table = _table(self.scores_file, self.proxy, self.arch_column, join).of(self.task.space)
        literals = [candidate.literal for candidate in candidates]
        found = [table.rows[text][0] if text in table.rows else math.nan for text in literals]
        return [self._directed(score) for score in found]

    def _computed_scores(self, candidates: list[Architecture]) -> list[float]:
        """The proxy's. Raises what it raises if that is so for every candidate."""
        from nas.evaluators.proxies import PROXIES
        from nas.network import Network

        proxy, found, errors = PROXIES.resolve(self.proxy), [], []
        images, labels = self._batch()
        for candidate in candidates:
            try:
                with randomness(self.task.seed, "proxy", candidate.digest):
                    network = Network(self.task.space.fill(candidate)).to(self.task.device)
                score = proxy(network, images, labels, seed=derive(self.task.seed, candidate.digest))
                found.append(self._directed(score))
            except (ValueError, ArithmeticError, RuntimeError) as error:  # to evaluate it will fail, too
                errors.append(error)
                found.append(-math.inf)
        if errors and len(errors) == len(candidates):
            raise errors[-1]
        return found

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Training images, or noise, and labels."""
        from nas.evaluators.proxies.batch import drawn, noise

        task, graph = self.task, self.task.space.graph
        if task.examples is not None:
            return drawn(task.examples, batch=self.batch, device=task.device)
        classes = graph.nodes[-1].out
        assert isinstance(classes, int)
        return noise(graph.input, classes=classes, batch=self.batch, device=task.device)


def _made(address: str, epochs: int) -> AskTell:
    """The strategy at an address. Raises ValueError if there is none, or it trains a supernet."""
    name, given = split(address)
    strategy = STRATEGIES.resolve(name)
    if "epochs" in parameters(strategy):
        given = {"epochs": epochs, **given}
    made = strategy(**bind(strategy, given, where=f"strategy.then, {name}"))
    if not isinstance(made, AskTell):
        raise ValueError(f"strategy.then = {name!r} proposes no architectures, as it trains a supernet")
    return made


@lru_cache(maxsize=4)
def _table(path: Path, column: str, key: str, join: tuple[Path, ...]) -> Table:
    return Table.read(path, columns=(column,), key=key, join=join)
