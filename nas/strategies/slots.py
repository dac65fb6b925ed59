"""Slots: what a policy draws at once, and the distributions over it.

A slot's value keeps k entries of several rows of entries, at most one of each row. Its chance is the product
of exp(logit) of what it keeps, divided by the sum of these products over all values. So the chance of a kept
set depends on no order in which its rows are drawn, and the chances of all values sum to 1 exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.graph import Option
from nas.search_space import Architecture, SearchSpace

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
NEVER = -1e30  # the logit of what cannot be: finite, so that 0 * NEVER is 0
RECENT = 1000  # architectures that are kept


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
        return torch.tensor([self.numbers(each) for each in architectures])

    def numbers(self, architecture: Architecture) -> list[int]:
        """The numbers of its entries, ascending."""
        known, choices = self._numbers, architecture.choices
        return [known[d.name, row, o] for d in self.space.decisions for row, o in choices[d.name]]

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


def measured(logits: Tensor, keep: int, *, spread: bool) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum over all values, and the entropy in nats, 0 without `spread`: both (...).

    The sum is the elementary symmetric polynomial of degree `keep` in the rows' sums of exp(logit), by the
    usual recursion over rows; the entropy follows the same recursion.
    """
    weights = logits.logsumexp(-1)  # (..., rows)
    sums = [weights] if logits.shape[-2] == 1 else _sums(weights, keep)
    total = sums[0][..., -1]
    if not spread:
        return total, torch.zeros_like(total)
    options = -((logits - weights[..., None]).exp() * (logits - weights[..., None])).sum(-1)  # entropies
    if logits.shape[-2] == 1:
        return total, options[..., 0]
    entropy = torch.zeros_like(sums[-1])
    for row in reversed(range(weights.shape[-1])):
        within, without = _steps(sums, weights, row)
        shifted = nn.functional.pad(entropy[..., :-1] + options[..., row, None], (1, 0))
        entropy = within.exp() * (shifted - within) + without.exp() * (entropy - without)
    return total, entropy[..., keep]


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


class Lattice:
    """The same distributions for all slots of a table, in NumPy: far quicker on tables as small as these.

    A slot's values are the paths through its rows, which keep a row or do not, to `keep` rows kept. Paths up
    to a row and from it on are summed as logarithms (forward and backward, as in a hidden Markov model).
    """

    def __init__(self, layout: Layout) -> None:
        self.index = layout.padded(layout.slots).numpy()  # (slots, rows, options)
        self.places = np.argsort(self.index, axis=None, kind="stable")[: len(layout.entries)]
        slots, rows, _ = self.index.shape
        keep = np.array([slot.keep for slot in layout.slots])
        most = keep.max()
        self.every = np.arange(slots)
        # What `_paths` starts from: of the paths up to a row, by rows kept so far, and of those from it on,
        # by how many fewer than `most` are kept before it, the last row first.
        self.ends = np.full((rows + 1, 2, slots, most + 1), NEVER)
        self.ends[:, 0, :, 0] = 0.0
        self.ends[0, 1, self.every, most - keep] = 0.0
        self.ends[:, 1, :, 0] = self.ends[0, 1, :, 0]
        self.order = np.stack([np.arange(rows), np.arange(rows)[::-1]], 1)

    def chances(self, logits: Floats) -> Floats:
        """The chance of each entry to be kept; over a slot their sum is `keep`."""
        table, weights = self._rows(logits)
        if len(self.order) > 1:
            before, after = self._paths(weights)
            through = before[:-1, :, :-1] + after[1:, :, 1:] + (weights.T - after[0, :, 0])[..., None]
            table *= np.exp(through).sum(-1).T[..., None]
        found: Floats = table.ravel()[self.places]
        return found

    def draw(self, logits: Floats, uniform: Floats) -> Integers:
        """Entries of samples, each ascending: (samples, entries).

        `uniform`, in [0, 1): two numbers for each sample, slot and row: (2, samples, slots, rows).
        """
        table, weights = self._rows(logits)
        shares = table.cumsum(-1)
        shares /= shares[..., -1:]  # so that none is beyond the last
        options = (shares <= uniform[0][..., None]).sum(-1)
        found: Integers = self.index[self.every[:, None], np.arange(len(self.order)), options]
        if len(self.order) > 1:
            _, after = self._paths(weights)
            kept = np.zeros(found.shape, dtype=bool)
            number = np.zeros(found.shape[:2], dtype=int)
            chances = np.zeros_like(after[1:])  # to keep a row, by how many are kept already
            chances[..., :-1] = np.exp(after[1:, :, 1:] + weights.T[..., None] - after[:-1, :, :-1])
            for row, chance in enumerate(chances):
                kept[..., row] = uniform[1, ..., row] < chance[self.every, number]
                number += kept[..., row]
            found = found[kept]
        return found.reshape(uniform.shape[1], -1)

    def _rows(self, logits: Floats) -> tuple[Floats, Floats]:
        """The softmax of each row: (slots, rows, options); the logarithm of its sum: (slots, rows)."""
        table = np.append(logits, NEVER)[self.index]
        most = table.max(-1, keepdims=True)
        table = np.exp(table - most)
        sums = table.sum(-1, keepdims=True)
        table /= sums
        return table, (most + np.log(sums))[..., 0]

    def _paths(self, weights: Floats) -> tuple[Floats, Floats]:
        """Log-sums of the paths up to each row and from it on: both (rows + 1, slots, rows kept before)."""
        steps, paths = weights.T[self.order][..., None], self.ends.copy()
        low, high = paths[..., :-1], paths[..., 1:]
        for row in range(len(steps)):
            np.logaddexp(high[row], low[row] + steps[row], out=high[row + 1])
        return paths[:, 0], paths[::-1, 1, :, ::-1]
