"""Policies: distributions over the architectures of a space that are learned by gradient.

A policy gives each (decision, row, legal option) a logit. Of a decision that keeps all rows, each row is a
softmax of its own; of one that keeps k < rows, the chance of a value is the product of exp(logit) of what it
keeps, divided by the sum of these products over all values. So the chance of a kept set depends on no order
in which its rows are drawn, and the chances of all values sum to 1 exactly.

`Tabular` has a table of logits for each decision, as REINFORCE has in NAS-Bench-201 (Dong & Yang, ICLR 2020).
`Autoregressive` is the LSTM of Zoph & Le (ICLR 2017): what is decided next depends on what was decided.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from random import Random
from typing import Literal

import torch
from torch import Tensor, nn

from nas.graph import Option
from nas.search_space import Architecture, SearchSpace
from nas.search_space.rules import excess, repaired
from nas.seeding import derive, randomness

Kind = Literal["tabular", "lstm"]
NEVER = -1e30  # the logit of what cannot be: finite, so that 0 * NEVER is 0
RECENT = 1000  # architectures that are kept
DRAWS = 20  # at each temperature, before the next
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 1e6)  # the last one: uniformly
REPAIRS = 3  # illegal draws, the closest to legal


@dataclass(frozen=True)
class Slot:
    """What is drawn at once: `keep` entries of `rows` lists of entries, at most one of each list."""

    rows: tuple[tuple[int, ...], ...]
    keep: int


class Layout:
    """The entries (decision, row, legal option) of a space, numbered in the order of a literal."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.entries: list[tuple[str, int, Option]] = []
        self.slots: list[Slot] = []
        for decision in space.decisions:
            rows: list[tuple[int, ...]] = []
            for row in range(decision.rows):
                start = len(self.entries)
                self.entries += [(decision.name, row, option) for option in decision.legal]
                rows.append(tuple(range(start, len(self.entries))))
            if decision.keep == decision.rows:
                self.slots += [Slot((row,), 1) for row in rows]
            elif decision.keep == 1:  # one softmax over all rows and options
                self.slots.append(Slot((tuple(entry for row in rows for entry in row),), 1))
            else:
                self.slots.append(Slot(tuple(rows), decision.keep))
        self.architecture = lru_cache(RECENT)(self._architecture)  # what is drawn is often drawn again
        self.legal = lru_cache(RECENT)(lambda each: space.why_not(each) is None)
        self._numbers = {entry: number for number, entry in enumerate(self.entries)}

    def chosen(self, architectures: Sequence[Architecture]) -> Tensor:
        """The numbers of their entries, ascending: (architectures, entries of each)."""
        return torch.tensor(
            [
                [self._numbers[d.name, row, o] for d in self.space.decisions for row, o in a.choices[d.name]]
                for a in architectures
            ]
        )

    def _architecture(self, chosen: tuple[int, ...]) -> Architecture:
        """The architecture of these entries, in ascending order."""
        kept = [self.entries[number] for number in chosen]
        groups = groupby(kept, key=lambda entry: entry[0])
        return self.space.architecture({name: tuple((r, o) for _, r, o in group) for name, group in groups})

    def padded(self, slots: Sequence[Slot]) -> Tensor:
        """The slots' entries as one index (slots, rows, options), filled up with the next number."""
        rows = max(len(slot.rows) for slot in slots)
        width = max(len(row) for slot in slots for row in slot.rows)
        index = torch.full((len(slots), rows, width), len(self.entries))
        for i, slot in enumerate(slots):
            for j, row in enumerate(slot.rows):
                index[i, j, : len(row)] = torch.tensor(row)
        return index


# --- the distribution of one slot: logits (..., rows, options), of which `keep` entries are kept ------------


def measured(logits: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum over all values, and the entropy: both (...).

    The sum is the elementary symmetric polynomial of degree `keep` in the rows' sums of exp(logit), by the
    usual recursion over rows; the entropy follows the same recursion.
    """
    weights = logits.logsumexp(-1)  # (..., rows)
    options = -((logits - weights[..., None]).exp() * (logits - weights[..., None])).sum(-1)  # entropies
    if logits.shape[-2] == 1:
        return weights[..., 0], options[..., 0]
    sums = _sums(weights, keep)
    entropy = torch.zeros_like(sums[-1])
    for row in reversed(range(weights.shape[-1])):
        within, without = _steps(sums, weights, row)
        shifted = nn.functional.pad(entropy[..., :-1] + options[..., row, None], (1, 0))
        entropy = within.exp() * (shifted - within) + without.exp() * (entropy - without)
    return sums[0][..., keep], entropy[..., keep]


def drawn(logits: Tensor, keep: int, generator: torch.Generator) -> Tensor:
    """Positions in rows x options of a value's entries, ascending: (..., keep)."""
    noise = torch.empty_like(logits).exponential_(generator=generator)
    best = (logits - noise.log()).argmax(-1)  # Gumbel's trick: a sample of each row's softmax
    best = best + logits.shape[-1] * torch.arange(logits.shape[-2])
    if logits.shape[-2] == 1:
        return best
    weights = logits.logsumexp(-1)
    sums = _sums(weights, keep)
    uniform = torch.rand(weights.shape, generator=generator, dtype=weights.dtype)
    left = torch.full(weights.shape[:-1], keep)
    kept = []
    for row in range(weights.shape[-1]):
        within, _ = _steps(sums, weights, row)
        chance = within.exp().gather(-1, left[..., None])[..., 0]
        kept.append((uniform[..., row] < chance) & (left > 0))
        left = left - kept[-1].long()
    return best[torch.stack(kept, -1)].reshape(*best.shape[:-1], keep)


def _sums(weights: Tensor, keep: int) -> list[Tensor]:
    """For each row, and after the last: log e_j of it and the rows below it, j = 0 .. keep."""
    last = torch.full((*weights.shape[:-1], keep + 1), NEVER, dtype=weights.dtype)
    last[..., 0] = 0.0
    sums = [last]
    for row in reversed(range(weights.shape[-1])):
        taken = nn.functional.pad(sums[-1][..., :-1] + weights[..., row, None], (1, 0), value=NEVER)
        sums.append(torch.logaddexp(sums[-1], taken))
    return sums[::-1]


def _steps(sums: list[Tensor], weights: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """Log-chances that the row is kept, and that it is not, where j are still to be kept: (..., keep + 1)."""
    taken = nn.functional.pad(sums[row + 1][..., :-1] + weights[..., row, None], (1, 0), value=NEVER)
    return taken - sums[row], sums[row + 1] - sums[row]


class Policy(nn.Module, ABC):
    """A distribution over all architectures of a space, legal or not."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__()
        self.layout = Layout(space)

    @abstractmethod
    def draw(self, generator: torch.Generator, count: int, temperature: float = 1.0) -> Tensor:
        """Entries of `count` samples, each ascending: (count, entries). Logits are divided by temperature."""

    @abstractmethod
    def measure(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy, in nats, for the entries of each architecture: both (architectures,).

        The entropy of an autoregressive policy is summed along the architecture's own decisions; its mean
        over samples is the policy's.
        """

    @torch.no_grad()
    def sample(
        self, generator: torch.Generator, count: int = 1, temperature: float = 1.0
    ) -> Iterator[Architecture]:
        """Architectures, legal or not."""
        return map(self.layout.architecture, map(tuple, self.draw(generator, count, temperature).tolist()))

    def log_prob(self, architectures: Sequence[Architecture]) -> Tensor:
        """The logarithm of the chance of each."""
        return self.measure(self.layout.chosen(architectures))[0]


class Tabular(Policy):
    """One logit for each entry; decisions are independent. Begins uniform."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self.logits = nn.Parameter(torch.zeros(len(self.layout.entries), dtype=torch.float64))
        by_keep: dict[int, list[Slot]] = {}
        for slot in self.layout.slots:
            by_keep.setdefault(slot.keep, []).append(slot)
        self._groups = [(keep, self.layout.padded(slots)) for keep, slots in by_keep.items()]

    def _tables(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        extended = nn.functional.pad(self.logits, (0, 1), value=NEVER)
        return ((keep, index, extended[index]) for keep, index in self._groups)

    def draw(self, generator: torch.Generator, count: int, temperature: float = 1.0) -> Tensor:
        found = []
        for keep, index, logits in self._tables():
            places = drawn((logits / temperature).expand(count, *logits.shape), keep, generator)
            every = index.flatten(1).expand(count, -1, -1)
            found.append(every.gather(-1, places).flatten(1))
        return torch.cat(found, 1).sort(-1).values

    def measure(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        total, entropy = self.logits.new_zeros(()), self.logits.new_zeros(())
        for keep, _, logits in self._tables():
            sums, entropies = measured(logits, keep)
            total, entropy = total + sums.sum(), entropy + entropies.sum()
        return self.logits[chosen].sum(-1) - total, entropy.expand(len(chosen))


class Autoregressive(Policy):
    """An LSTM that decides one row after the other, a set of rows at once; its input is what it chose last.

    Args:
        hidden: units of its one layer.
        seed: of the weights, uniform in +-0.08 as those of Zoph & Le.
    """

    def __init__(self, space: SearchSpace, *, hidden: int = 64, seed: int = 0) -> None:
        super().__init__(space)
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
            logits = state[0] @ self.head[index.flatten()].T
            logits = logits.masked_fill(index.flatten() == len(self.layout.entries), NEVER)
            logits = logits.unflatten(-1, index.shape).double()
            chosen = choose(number, logits)
            yield slot.keep, logits, chosen
            inputs = self.embedding[chosen].sum(1)

    def draw(self, generator: torch.Generator, count: int, temperature: float = 1.0) -> Tensor:
        def choose(number: int, logits: Tensor) -> Tensor:
            places = drawn(logits / temperature, self.layout.slots[number].keep, generator)
            return self._index[number].flatten()[places]

        return torch.cat([chosen for _, _, chosen in self._walk(count, choose)], 1)

    def measure(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        parts = torch.split(chosen, [slot.keep for slot in self.layout.slots], 1)
        total = torch.zeros(len(chosen), dtype=torch.float64)
        entropy = torch.zeros(len(chosen), dtype=torch.float64)
        for number, (keep, logits, entries) in enumerate(
            self._walk(len(chosen), lambda number, _: parts[number])
        ):
            sums, entropies = measured(logits, keep)
            hits = self._index[number].flatten() == entries[..., None]  # (count, keep, rows * options)
            picked = (logits.flatten(1)[:, None] * hits).sum((1, 2))
            total, entropy = total + picked - sums, entropy + entropies
        return total, entropy


def policy(kind: Kind, space: SearchSpace, *, seed: int) -> Policy:
    """The policy of that kind, untrained."""
    return Tabular(space) if kind == "tabular" else Autoregressive(space, seed=seed)


def propose(learned: Policy, seen: Callable[[Architecture], bool], *, seed: int, number: int) -> Architecture:
    """A legal sample, one that was not seen if possible.

    What is illegal or seen is drawn again, then at higher temperatures. If all draws were, the closest of the
    illegal ones are repaired, then uniform ones are looked at. Raises ValueError if no legal one is found.
    """
    space = learned.layout.space
    generator = torch.Generator().manual_seed(derive(seed, "ask", number))
    known: Architecture | None = None
    illegal: list[Architecture] = []
    for temperature in TEMPERATURES:
        for sampled in learned.sample(generator, DRAWS, temperature):
            if not learned.layout.legal(sampled):
                illegal.append(sampled)
            elif not seen(sampled):
                return sampled
            else:
                known = known or sampled
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
