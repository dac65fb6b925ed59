"""lint(): what is wrong with a space, or worth knowing, before days are spent on it.

Every finding is a line of one kind: ``error`` (networks of the space cannot be built or trained), ``warning``
(the search wastes work: options that never matter, encodings of one network) or ``fact`` (sizes, costs,
memory).
"""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import torch

from nas.counting import cost
from nas.graph import Option
from nas.network import Network
from nas.search_space import Architecture, Decision, SearchSpace
from nas.seeding import generator, randomness
from nas.supernet import Supernet

COUNTED = 20_000  # up to so many encodings, networks are counted one by one
CONTEXTS = 6  # architectures in which every option of a decision is tried
BATCH = 64  # of the estimate of the supernet's memory
MIB = 2**20


@dataclass(frozen=True)
class Finding:
    """One line about a space. `topic`: what it is about, e.g. ``size``, ``params``, ``build``."""

    kind: str
    topic: str
    text: str

    def to_dict(self) -> dict[str, str]:
        """The line by field."""
        return asdict(self)


@dataclass
class Linter:
    """Looks at one space.

    Args:
        space: at the scale at which it is searched.
        sized: the same space at the scale at which networks are trained: what costs are about.
        samples: architectures that are costed; a fifth of them is built and run.
        seed: of the samples.
    """

    space: SearchSpace
    sized: SearchSpace
    samples: int = 50
    seed: int = 0

    def findings(self) -> Iterator[Finding]:
        """All findings, errors where they occur."""
        yield from (Finding("fact", "scale", note) for note in self.space.notes)
        drawn = yield from self._drawn()
        if not drawn:
            return
        yield from self._text(drawn)
        yield from self._size(drawn)
        broken = yield from self._costs(drawn)
        if broken:
            return
        broken = yield from self._builds(drawn)
        yield from self._options(drawn)
        if not broken:
            yield from self._supernet(drawn)

    # --- drawing --------------------------------------------------------------------------------------------

    def _drawn(self) -> Generator[Finding, None, list[Architecture]]:
        """Samples, and how many of the encodings are legal; what cannot be sampled is an error."""
        rng = generator(self.seed, "lint")
        raw = [self._raw(rng) for _ in range(self.samples)]
        whys = [why for each in raw if (why := self.space.why_not(each))]
        if whys:
            share = len(whys) / len(raw)
            yield Finding("warning", "legal", f"{share:.0%} of all encodings are not legal, e.g.: {whys[0]}")
        try:
            return [self.space.sample(rng) for _ in range(self.samples)]
        except ValueError as error:
            yield Finding("error", "legal", str(error))
            return []

    def _raw(self, rng: Random) -> Architecture:
        return self.space.architecture({d.name: d.sample(rng) for d in self.space.decisions})

    def _text(self, drawn: list[Architecture]) -> Iterator[Finding]:
        for each in drawn:
            try:
                same = self.space.parse(each.literal) == each
            except ValueError as error:
                yield Finding("error", "literal", f"{each.literal} cannot be read again: {error}")
                return
            if not same:
                yield Finding("error", "literal", f"{each.literal} is read as another architecture")
                return

    # --- size and cost --------------------------------------------------------------------------------------

    def _size(self, drawn: list[Architecture]) -> Iterator[Finding]:
        decisions = len(self.space.decisions)
        text = f"{self.space.size:,} encodings (exact) of {decisions} decisions"
        if self.space.size <= COUNTED:
            networks, legal = self._networks()
            yield Finding("fact", "size", f"{text}, {legal:,} legal, {networks:,} different networks (exact)")
            if networks < legal:
                yield Finding("warning", "duplicates", f"{1 - networks / legal:.0%} of them repeat a network")
            return
        yield Finding("fact", "size", f"{text}, about 10^{len(str(self.space.size)) - 1}")
        rng = generator(self.seed, "steps")
        idle = sum(self._step_is_idle(each, rng) for each in drawn)
        kind = "warning" if idle > len(drawn) / 2 else "fact"
        text = f"{idle / len(drawn):.0%} of single changes leave the network as it is"
        yield Finding(kind, "duplicates", text)

    def _networks(self) -> tuple[int, int]:
        """The number of different networks, and of legal encodings."""
        digests: set[str] = set()
        legal = 0
        ruled = bool(self.space.rules or self.space.limits)
        for choices in _every(self.space.decisions):
            if ruled and self.space.why_not(self.space.architecture(choices)) is not None:
                continue
            with suppress(ValueError):  # no path to the output
                digests.add(self.space.graph.fill(choices).digest())
                legal += 1
        return len(digests), legal

    def _step_is_idle(self, each: Architecture, rng: Random) -> bool:
        movable = [d for d in self.space.decisions if d.size > 1]
        for _ in range(100 if movable else 0):
            decision = rng.choice(movable)
            value = decision.mutate(each.choices[decision.name], rng)
            moved = self.space.architecture({**each.choices, decision.name: value})
            if self.space.why_not(moved) is None:
                return self.space.result_digest(moved) == self.space.result_digest(each)
        return True

    def _costs(self, drawn: list[Architecture]) -> Generator[Finding, None, bool]:
        """The spread of costs; whether some sample has shapes that do not fit."""
        figures = []
        for each in drawn:
            try:
                figures.append(cost(self.sized.fill(each)))
            except ValueError as error:
                yield Finding("error", "shapes", f"{error} (in {each.literal})")
                return True
        for topic in ("params", "macs"):
            found = sorted(getattr(figure, topic) for figure in figures)
            low, middle, high = statistics.quantiles(found, n=4) if len(found) > 1 else found * 3
            text = f"{found[0]:,} | {low:,.0f} | {middle:,.0f} | {high:,.0f} | {found[-1]:,}"
            yield Finding("fact", topic, f"{text} (min, quartiles, max of {len(found)})")
        return False

    # --- building and running -------------------------------------------------------------------------------

    def _builds(self, drawn: list[Architecture]) -> Generator[Finding, None, bool]:
        """Build, run and differentiate samples that hold all options which the rules allow to be met; the
        first failure of each kind.
        """
        chosen = dict.fromkeys([*drawn[: max(1, self.samples // 5)], *self._covering(drawn)])
        failures: dict[str, str] = {}
        idle: dict[str, str] = {}
        trained: set[str] = set()
        for each in chosen:
            where = f"(in {each.literal})"
            try:
                network = self._trained(each)
            except Exception as error:
                topic, text = error.args if isinstance(error, _Unsound) else ("build", _sentence(error))
                failures.setdefault(topic, f"{text} {where}")
                continue
            for name, p in network.named_parameters():
                if p.grad is not None:
                    trained.add(name)
                elif p.requires_grad:
                    idle.setdefault(name, where)
        for name in [name for name in idle if name not in trained][:1]:
            failures["gradient"] = f"the parameter {name!r} never gets a gradient: unused {idle[name]}"
        for topic, text in failures.items():
            yield Finding("error", topic, text)
        if not failures:
            kinds = {(d.name, option) for d in self.space.decisions for option in d.legal}
            there = {(name, o) for each in chosen for name, value in each.choices.items() for _, o in value}
            options = f"{len(there)} of {len(kinds)} options"
            text = f"{len(chosen)} samples with {options} built, forward and backward"
            yield Finding("fact", "build", text)
        return bool(failures)

    def _covering(self, drawn: list[Architecture]) -> list[Architecture]:
        """Architectures in which the options occur that the first samples lack."""
        rng = generator(self.seed, "cover")
        missing = {(d.name, option) for d in self.space.decisions for option in d.legal}
        found = []
        for each in drawn[: max(1, self.samples // 5)]:
            missing -= {(name, option) for name, value in each.choices.items() for _, option in value}
        while missing:
            base = rng.choice(drawn)
            choices = dict(base.choices)
            for decision in self.space.decisions:
                own = sorted((o for name, o in missing if name == decision.name), key=str)
                if own:
                    choices[decision.name] = tuple((row, own[0]) for row, _ in choices[decision.name])
                    missing.discard((decision.name, own[0]))
            each = self.space.architecture(choices)
            if self.space.why_not(each) is None:
                found.append(each)
        return found

    def _trained(self, each: Architecture) -> Network:
        """A network after one forward and backward pass. Raises _Unsound for outputs of no use."""
        cost(self.space.fill(each))
        with randomness(self.seed, "lint"):
            network = Network(self.space.fill(each))
            y = network(torch.randn(2, *network.input))
        if y.shape != (2, network.classes):
            raise _Unsound("output", f"gives {tuple(y.shape)} for 2 images, not (2, {network.classes})")
        if not torch.isfinite(y).all():
            raise _Unsound("output", "gives numbers that are not finite")
        if not y.requires_grad:
            raise _Unsound("gradient", "has nothing to train")
        y.square().sum().backward()
        return network

    # --- options --------------------------------------------------------------------------------------------

    def _options(self, drawn: list[Architecture]) -> Iterator[Finding]:
        """Options that never make a difference, over several architectures."""
        of_network = (d for d in self.space.decisions if d.name not in self.space.recipe)
        for decision in of_network:
            if len(decision.legal) == 1 and decision.rows == decision.keep:
                yield Finding("warning", "option", f"decision {decision.name!r} has one value only")
                continue
            seen = {option: self._effects(decision, option, drawn) for option in decision.legal}
            groups: dict[tuple[str | None, ...], list[Option]] = {}
            for option, effects in seen.items():
                groups.setdefault(effects, []).append(option)
            if len(groups) == 1 and len(decision.legal) > 1:
                yield Finding("warning", "option", f"decision {decision.name!r} never changes the network")
                continue
            for effects, alike in groups.items():
                if len(alike) > 1 and any(effect is not None for effect in effects):
                    names = " and ".join(repr(option) for option in alike)
                    text = f"decision {decision.name!r}: {names} always give the same network"
                    yield Finding("warning", "option", text)

    def _effects(
        self, decision: Decision, option: Option, drawn: list[Architecture]
    ) -> tuple[str | None, ...]:
        """The networks that an option gives in several contexts, at every kept row at a time."""
        found: list[str | None] = []
        for base in drawn[:CONTEXTS]:
            for place, (row, _) in enumerate(base.choices[decision.name]):
                value = list(base.choices[decision.name])
                value[place] = (row, option)
                moved = self.space.architecture({**base.choices, decision.name: tuple(value)})
                with suppress(ValueError):
                    found.append(self.space.network_digest(moved))
                    continue
                found.append(None)
        return tuple(found)

    # --- the supernet ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def _apart(self, supernet: Supernet, drawn: list[Architecture]) -> Architecture | None:
        """An architecture whose path differs from its one-hot tables, if there is one among the first."""
        _scrambled(supernet)
        supernet.eval()
        x = torch.randn(2, *self.space.graph.input)
        for each in drawn[:CONTEXTS]:
            masks = {d.name: torch.tensor(d.mask(each.choices[d.name])) for d in self.space.decisions}
            path, mixed = supernet(x, each), supernet(x, masks)
            if not torch.allclose(path, mixed, rtol=1e-3, atol=1e-3 * float(path.abs().max())):
                return each
        return None

    def _supernet(self, drawn: list[Architecture]) -> Iterator[Finding]:
        """Parameters of the supernet, and the memory of one training step, measured at batch 2 and 3."""
        if self.space.finish is not None:
            text = "its wiring decides its widths: one-shot strategies train paths of it"
            yield Finding("fact", "supernet", text)
            return
        if self.space.recipe:
            text = "settings of the recipe are decisions: only strategies that train architectures search it"
            yield Finding("fact", "supernet", text)
            return
        try:
            with randomness(self.seed, "lint"):
                supernet = Supernet(self.space)
                double, triple = (_saved(supernet, self.space, batch) for batch in (2, 3))
                apart = self._apart(supernet, drawn)
        except Exception as error:
            yield Finding("error", "supernet", f"{error}")
            return
        if apart is not None:
            yield Finding(
                "warning",
                "supernet",
                "a path is not what one-hot weights compute: some operation reads what may be absent (start "
                f"sums from a `zero`), or a mean has absent inputs (in {apart.literal})",
            )
        params = sum(p.numel() for p in supernet.parameters())
        each = triple - double
        weights = params * 4 * 4  # float32 weights, gradients, momentum and the copy of a second-order step
        total = (double + (BATCH - 2) * each + weights) / MIB
        yield Finding(
            "fact",
            "supernet",
            f"{params:,} parameters; about {total:,.0f} MiB for a training step with batch {BATCH} "
            f"({each / MIB:,.2f} MiB an image)",
        )
        yield Finding("fact", "fusion", _fused(supernet.fusion().by_operation(self.space)))


def _fused(counts: Mapping[str, tuple[int, int]]) -> str:
    """What is computed together in a supernet, in words."""
    some = [f"{fused} of {count} {name}" for name, (fused, count) in counts.items() if fused]
    alone = [name for name, (fused, _) in counts.items() if not fused]
    told = [f"computed together with others: {', '.join(some)}"] if some else []
    told += [f"each by itself: {', '.join(alone)}"] if alone else []
    return "; ".join(told) or "no operations are mixed"


@torch.no_grad()
def _scrambled(supernet: Supernet) -> None:
    """Weights and statistics as after training: of a fresh norm, zero in is zero out."""
    for name, tensor in [*supernet.named_parameters(), *supernet.named_buffers()]:
        if tensor.is_floating_point() and (tensor.dim() == 1 or "running" in name):
            tensor.uniform_(0.5, 1.5)


class _Unsound(Exception):
    """A network runs, but its output is of no use: the topic and the sentence."""


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _saved(supernet: Supernet, space: SearchSpace, batch: int) -> int:
    """Bytes that a mixed forward pass keeps for its backward pass."""
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    tables = {d.name: torch.full((d.rows, len(d.options)), 1 / len(d.options)) for d in space.decisions}
    x = torch.randn(batch, *space.graph.input)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = supernet(x, {name: table.requires_grad_() for name, table in tables.items()})
    weights = {p.untyped_storage().data_ptr() for p in supernet.parameters()}
    del y
    return sum(size for place, size in storages.items() if place not in weights)


def _every(decisions: tuple[Decision, ...]) -> Iterator[dict[str, Any]]:
    """Every combination of values."""
    from itertools import product

    names = [decision.name for decision in decisions]
    for values in product(*(decision.values() for decision in decisions)):
        yield dict(zip(names, values, strict=True))
