"""Policies: distributions over the architectures of a space that are learned by gradient.

A policy gives each (decision, row, legal option) a logit. Of a decision that keeps all rows, each row is a
softmax of its own; one that keeps k < rows is a distribution over kept sets (`slots`).

`Tabular` has a table of logits for each decision, as REINFORCE has in NAS-Bench-201 (Dong & Yang, ICLR 2020).
`Autoregressive` is the LSTM of Zoph & Le (ICLR 2017): what is decided next depends on what was decided.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from random import Random
from typing import Literal

import torch
from torch import Tensor, nn

from nas.search_space import Architecture, SearchSpace
from nas.search_space.rules import excess, repaired
from nas.seeding import derive, randomness
from nas.strategies.slots import NEVER, Lattice, Layout, Slot, drawn, measured

Kind = Literal["tabular", "lstm"]
DRAWS = 20  # at each temperature, before the next
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 1e6)  # the last one: uniformly
REPAIRS = 3  # illegal draws, the closest to legal


class Policy(nn.Module, ABC):
    """A distribution over all architectures of a space, legal or not.

    `bound`: with it a logit l is bound x tanh(l), so that nothing becomes certain (Bello et al., Neural
    combinatorial optimization with reinforcement learning, 2017).
    """

    def __init__(self, space: SearchSpace, bound: float | None = None) -> None:
        super().__init__()
        self.layout = Layout(space)
        self.bound = bound

    def bounded(self, logits: Tensor) -> Tensor:
        return logits if self.bound is None else self.bound * logits.tanh()

    @abstractmethod
    def draw(self, generator: torch.Generator, count: int, temperature: float = 1.0) -> Tensor:
        """Entries of `count` samples, each ascending: (count, entries). Logits are divided by temperature."""

    @abstractmethod
    def measure(self, chosen: Tensor, *, spread: bool = True) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy, in nats, for the entries of each architecture: both (architectures,).

        The entropy of an autoregressive policy is summed along the architecture's own decisions; its mean
        over samples is the policy's. Without `spread` it is not computed, and 0.
        """

    @abstractmethod
    def rows(self, chosen: Tensor) -> Iterator[Tensor]:
        """The logits of each slot, given what each architecture has chosen before it: (architectures or 1,
        rows x options).
        """

    def divergence(self, chosen: Tensor, aims: Mapping[int, Tensor]) -> Tensor:
        """How far the policy is from the chances that are aimed at: KL(policy | aim), in nats, summed over
        slots: (architectures,). As with the entropy, the mean over samples is the policy's.

        `aims`: number of a slot that keeps one entry -> the chances of its entries.
        """
        total = torch.zeros(len(chosen), dtype=torch.float64)
        for number, logits in enumerate(self.rows(chosen)):
            if number in aims:
                own = logits.log_softmax(-1)
                total = total + (own.exp() * (own - aims[number].log())).sum(-1)
        return total

    @torch.no_grad()
    def sample(
        self, generator: torch.Generator, count: int = 1, temperature: float = 1.0
    ) -> Iterator[Architecture]:
        """Architectures, legal or not."""
        return map(self.layout.architecture, map(tuple, self.draw(generator, count, temperature).tolist()))

    def log_prob(self, architectures: Sequence[Architecture]) -> Tensor:
        """The logarithm of the chance of each."""
        return self.measure(self.layout.chosen(architectures), spread=False)[0]


class Tabular(Policy):
    """One logit for each entry; decisions are independent. Begins uniform."""

    def __init__(self, space: SearchSpace, bound: float | None = None) -> None:
        super().__init__(space, bound)
        self.logits = nn.Parameter(torch.zeros(len(self.layout.entries), dtype=torch.float64))
        self._lattice = Lattice(self.layout)
        by_keep: dict[int, list[Slot]] = {}
        for slot in self.layout.slots:
            by_keep.setdefault(slot.keep, []).append(slot)
        self._groups = [(keep, self.layout.padded(slots)) for keep, slots in by_keep.items()]

    def draw(self, generator: torch.Generator, count: int, temperature: float = 1.0) -> Tensor:
        shape = (2, count, *self._lattice.index.shape[:2])
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64).numpy()
        logits = self.bounded(self.logits.detach()).numpy()
        return torch.from_numpy(self._lattice.draw(logits / temperature, uniform))

    def measure(self, chosen: Tensor, *, spread: bool = True) -> tuple[Tensor, Tensor]:
        total, entropy = self.logits.new_zeros(()), self.logits.new_zeros(())
        logits = self.bounded(self.logits)
        extended = nn.functional.pad(logits, (0, 1), value=NEVER)
        for keep, index in self._groups:
            sums, entropies = measured(extended[index], keep, spread=spread)
            total, entropy = total + sums.sum(), entropy + entropies.sum()
        return logits[chosen].sum(-1) - total, entropy.expand(len(chosen))

    def rows(self, chosen: Tensor) -> Iterator[Tensor]:
        logits = self.bounded(self.logits)
        return (logits[None, list(chain(*slot.rows))] for slot in self.layout.slots)

    def ascend(self, architecture: Architecture, step: float) -> None:
        """Add `step` times the gradient of the architecture's log-probability to the logits, which no bound
        may bend.

        That is, for each entry, whether it is kept, less the chance that it is.
        """
        assert self.bound is None
        logits = self.logits.detach().numpy()
        logits -= step * self._lattice.chances(logits)
        logits[self.layout.numbers(architecture)] += step


class Autoregressive(Policy):
    """An LSTM that decides one row after the other, a set of rows at once; its input is what it chose last.

    Args:
        hidden: units of its one layer.
        seed: of the weights, uniform in +-0.08 as those of Zoph & Le.
    """

    def __init__(
        self, space: SearchSpace, bound: float | None = None, *, hidden: int = 64, seed: int = 0
    ) -> None:
        super().__init__(space, bound)
        entries = len(self.layout.entries)
        with randomness(seed, "policy"):
            self.cell = nn.LSTMCell(hidden, hidden)
            self.start = nn.Parameter(torch.empty(1, hidden))
            self.embedding = nn.Parameter(torch.empty(entries + 1, hidden))
            self.head = nn.Parameter(torch.empty(entries + 1, hidden))
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -0.08, 0.08)
        self._index = [self.layout.padded([slot])[0] for slot in self.layout.slots]

    def _walk(
        self, count: int, choose: Callable[[int, Tensor], Tensor]
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """For each slot: keep, logits (count, rows, options), and the entries (count, keep) that it chose."""
        inputs = self.start.expand(count, -1)
        state = (torch.zeros_like(inputs), torch.zeros_like(inputs))
        for number, (slot, index) in enumerate(zip(self.layout.slots, self._index, strict=True)):
            state = self.cell(inputs, state)
            logits = self.bounded(state[0] @ self.head[index.flatten()].T)
            logits = logits.masked_fill(index.flatten() == len(self.layout.entries), NEVER)
            logits = logits.view(count, *index.shape).double()
            chosen = choose(number, logits)
            yield slot.keep, logits, chosen
            inputs = self.embedding[chosen].sum(1)

    def draw(self, generator: torch.Generator, count: int, temperature: float = 1.0) -> Tensor:
        def choose(number: int, logits: Tensor) -> Tensor:
            places = drawn(logits / temperature, self.layout.slots[number].keep, generator)
            return self._index[number].flatten()[places]

        return torch.cat([chosen for _, _, chosen in self._walk(count, choose)], 1)

    def rows(self, chosen: Tensor) -> Iterator[Tensor]:
        return (logits.flatten(1) for _, logits, _ in self._along(chosen))

    def _along(self, chosen: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The walk that chooses these entries."""
        parts = torch.split(chosen, [slot.keep for slot in self.layout.slots], 1)
        return self._walk(len(chosen), lambda number, _: parts[number])

    def measure(self, chosen: Tensor, *, spread: bool = True) -> tuple[Tensor, Tensor]:
        total = torch.zeros(len(chosen), dtype=torch.float64)
        entropy = torch.zeros(len(chosen), dtype=torch.float64)
        for number, (keep, logits, entries) in enumerate(self._along(chosen)):
            sums, entropies = measured(logits, keep, spread=spread)
            hits = self._index[number].flatten() == entries[..., None]  # (count, keep, rows * options)
            picked = (logits.flatten(1)[:, None] * hits).sum((1, 2))
            total, entropy = total + picked - sums, entropy + entropies
        return total, entropy


def policy(kind: Kind, space: SearchSpace, *, seed: int, bound: float | None = None) -> Policy:
    """The policy of that kind, untrained."""
    return Tabular(space, bound) if kind == "tabular" else Autoregressive(space, bound, seed=seed)


def propose(learned: Policy, seen: Callable[[Architecture], bool], *, seed: int, number: int) -> Architecture:
    """A legal sample, one that was not seen if possible.

    What is illegal or seen is drawn again, then at higher temperatures. If all draws were, the closest of the
    illegal ones are repaired, then uniform ones are looked at. Raises ValueError if no legal one is found.
    """
    space = learned.layout.space
    generator = torch.Generator().manual_seed(derive(seed, "ask", number))
    known: Architecture | None = None
    illegal: list[Architecture] = []
    draws = chain([(1, 1.0)], ((DRAWS, temperature) for temperature in TEMPERATURES))
    for count, temperature in draws:  # the first one is usually enough
        for sampled in learned.sample(generator, count, temperature):
            if seen(sampled):
                known = known or sampled
            elif learned.layout.legal(sampled):
                return sampled
            else:
                illegal.append(sampled)
    for others in _legal(space, illegal, Random(derive(seed, "repair", number))) if illegal else ():
        fresh = [each for each in others if not seen(each)]
        if fresh:  # one by its chance, which repairs and uniform samples know nothing of
            chances = learned.log_prob(fresh).detach().softmax(0)
            return fresh[int(torch.multinomial(chances, 1, generator=generator))]
        known = known or others[0]
    assert known is not None
    return known


def _legal(space: SearchSpace, illegal: Sequence[Architecture], rng: Random) -> Iterator[list[Architecture]]:
    """Legal architectures near the closest of these, if single steps lead there; then uniform ones."""
    closest = sorted(illegal, key=lambda each: excess(space.every_rule, each))[:REPAIRS]
    with suppress(ValueError):
        yield [repaired(space, each, order=lambda near: rng.sample(near, len(near))) for each in closest]
    yield [space.sample(rng) for _ in range(DRAWS)]
