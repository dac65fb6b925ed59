"""SearchSpace: decisions and a graph with holes; everything else about a space is derived from these two. No
torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from random import Random
from typing import Any

from nas.graph import Graph, Option, Value
from nas.registry import Registry, unknown
from nas.search_space.architecture import Architecture
from nas.search_space.decision import Decision, Table
from nas.signature import bind

Choices = Mapping[str, Value]
SPACES: Registry[Callable[..., SearchSpace]] = Registry("space")


@dataclass(frozen=True, eq=False, repr=False)
class SearchSpace:
    """A graph with holes and the decisions that fill them.

    Args:
        decisions: in the order in which a literal prints them.
        graph: the unfilled graph. Every decision is asked by some hole.
        known: published points, name -> literal in any notation that `parse` reads.
        supernet: arguments of `Supernet` that the space's paper uses, e.g. ``{"affine": False}``.
        read: reads another notation of the literature: text -> choices, or None if it is not that notation.
        name: the address that made this space; `nas.space` sets it.
        scale: the arguments that made this space (channels, cells, classes, input ...); `nas.space` sets
            them.

    Raises ValueError if the holes of the graph and the decisions do not match.
    """

    decisions: tuple[Decision, ...]
    graph: Graph
    known: Mapping[str, str] = field(default_factory=dict)
    supernet: Mapping[str, bool] = field(default_factory=dict)
    read: Callable[[str], Choices | None] | None = None
    name: str = ""
    scale: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        table = {decision.name: decision for decision in self.decisions}
        if len(table) < len(self.decisions):
            raise ValueError(
                f"decisions of one space need different names, got {[d.name for d in self.decisions]}"
            )
        for hole in {hole for node in self.graph.nodes for hole in node.holes()}:
            if hole.decision not in table:
                raise ValueError("a hole asks " + unknown("decision", hole.decision, table))
            if not 0 <= hole.row < table[hole.decision].rows:
                raise ValueError(
                    f"a hole asks row {hole.row} of {hole.decision!r}, which has {table[hole.decision].rows}"
                )
        idle = set(table) - self.graph.decisions()
        if idle:
            raise ValueError(f"no hole asks the decision {sorted(idle)[0]!r}: it would never matter")
        object.__setattr__(self, "_table", table)

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r}, {len(self.decisions)} decisions, {len(self.graph.nodes)} nodes)"

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process a space is made again from its address: its file brings its primitives along."""
        if self.name:
            return _again, (self.name, dict(self.scale))
        parts = (self.decisions, self.graph, self.known, self.supernet, self.read)
        return SearchSpace, (*parts[:2], dict(parts[2]), dict(parts[3]), parts[4])

    def decision(self, name: str) -> Decision:
        """The decision of that name. Raises ValueError with the nearest match."""
        table: dict[str, Decision] = self._table  # type: ignore[attr-defined]
        if name not in table:
            raise ValueError(unknown("decision", name, table))
        return table[name]

    @property
    def size(self) -> int:
        """The number of encodings (raw choices), of which several may be one network."""
        return prod(decision.size for decision in self.decisions)

    # --- making architectures -------------------------------------------------------------------------------

    def architecture(self, choices: Choices) -> Architecture:
        """The architecture of these choices.

        Raises ValueError if a decision is missing, unknown or illegal.
        """
        extra = set(choices) - {decision.name for decision in self.decisions}
        if extra:
            self.decision(min(extra))
        missing = [decision.name for decision in self.decisions if decision.name not in choices]
        if missing:
            raise ValueError(f"choices lack a value of the decision {missing[0]!r}")
        checked = {decision.name: decision.check(choices[decision.name]) for decision in self.decisions}
        content = json.dumps([self.name, sorted(self._canonical(checked).items())])
        digest = hashlib.sha256(content.encode()).hexdigest()
        return Architecture(self.name, checked, self._literal(checked), digest)

    def sample(self, rng: Random) -> Architecture:
        """Every decision sampled uniformly."""
        return self.architecture({decision.name: decision.sample(rng) for decision in self.decisions})

    def mutate(self, architecture: Architecture, rng: Random) -> Architecture:
        """Elementary mutations until the canonical form changes.

        Raises ValueError for a space of one network.
        """
        movable = [decision for decision in self.decisions if decision.size > 1]
        if not movable:
            raise ValueError(f"space {self.name!r} has one architecture only: nothing to mutate")
        choices = dict(architecture.choices)
        for _ in range(1000):
            decision = rng.choice(movable)
            choices[decision.name] = decision.mutate(choices[decision.name], rng)
            child = self.architecture(choices)
            if child.digest != architecture.digest:
                return child
        raise ValueError(f"1,000 mutations did not change the network {architecture.literal!r}")

    def cross(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Each decision from one parent or the other, with equal chance."""
        return self.architecture({d.name: rng.choice((a, b)).choices[d.name] for d in self.decisions})

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """The architectures one elementary mutation away, in a fixed order."""
        for decision in self.decisions:
            for value in decision.neighbours(architecture.choices[decision.name]):
                yield self.architecture({**architecture.choices, decision.name: value})

    def project(self, scores: Mapping[str, Table]) -> Architecture:
        """The best value of each decision under its table of scores (rows x options)."""
        return self.architecture({d.name: d.project(scores[d.name]) for d in self.decisions})

    def encode(self, architecture: Architecture) -> list[float]:
        """The one-hot tables of all decisions, one after the other."""
        tables = (d.mask(architecture.choices[d.name]) for d in self.decisions)
        return [number for table in tables for row in table for number in row]

    # --- identity -------------------------------------------------------------------------------------------

    def canonical(self, architecture: Architecture) -> Architecture:
        """The same network with every choice that does not matter set to its first option."""
        return self.architecture(self._canonical(architecture.choices))

    def _canonical(self, choices: Choices) -> dict[str, Value]:
        current = dict(choices)
        while True:
            active = self.graph.active(current)
            simpler = {
                d.name: tuple(
                    (row, o if (d.name, row) in active else d.legal[0]) for row, o in current[d.name]
                )
                for d in self.decisions
            }
            if simpler == current:
                return current
            current = simpler

    # --- text -----------------------------------------------------------------------------------------------

    def _literal(self, choices: Choices) -> str:
        """NAS-Bench-201's notation for every space: ``|option~row|option~row|+|...|``, a group a decision."""
        groups = ("|".join(f"{option}~{row}" for row, option in choices[d.name]) for d in self.decisions)
        return "+".join(f"|{group}|" for group in groups)

    def parse(self, text: str) -> Architecture:
        """The architecture of a literal, of a known name, or of another notation of the space's literature.

        Raises ValueError that says which part is wrong.
        """
        text = text.strip()
        if text in self.known:
            return self.parse(self.known[text])
        if not text.startswith("|"):
            choices = self.read(text) if self.read else None
            if choices is None:
                raise ValueError(f"space {self.name!r}: " + unknown("known architecture", text, self.known))
            return self.architecture(choices)
        groups = text.split("+")
        if len(groups) != len(self.decisions):
            raise ValueError(
                f"a literal of {self.name!r} has {len(self.decisions)} groups, got {len(groups)}: {text}"
            )
        return self.architecture({d.name: _parse(d, g) for d, g in zip(self.decisions, groups, strict=True)})

    # --- graphs ---------------------------------------------------------------------------------------------

    def fill(self, architecture: Architecture) -> Graph:
        """The filled graph, at the scale of this space."""
        return self.graph.fill(architecture.choices)

    def resized(self, **scale: Any) -> SearchSpace:
        """The same space at another scale: channels, cells, classes, input, auxiliary ..."""
        return space(self.name, **{**self.scale, **scale})


def space(address: str, **scale: Any) -> SearchSpace:
    """The search space at `address` (a registered name or ``path/to/file.py:name``), made with `scale`.

    Raises ValueError for a name or an argument that does not exist, with the nearest match.
    """
    build = SPACES.resolve(address)
    arguments = bind(build, scale, where="space")
    made = build(**arguments)
    if not isinstance(made, SearchSpace):
        raise ValueError(f"{address} must return a SearchSpace, not {type(made).__name__}")
    return replace(made, name=address, scale=arguments)


def _again(name: str, scale: Mapping[str, Any]) -> SearchSpace:
    return space(name, **scale)


def read(content: Mapping[str, Any]) -> Architecture:
    """The architecture that `Architecture.to_dict` wrote. Raises ValueError if a key is missing."""
    for key in ("space", "literal"):
        if key not in content:
            raise ValueError(f"an architecture file needs the key {key!r}; it has {sorted(content)}")
    return space(content["space"]).parse(content["literal"])


def _parse(decision: Decision, group: str) -> Value:
    by_text = {str(option): option for option in decision.legal}
    value: list[tuple[int, Option]] = []
    for part in group.strip().strip("|").split("|"):
        option, tilde, row = part.rpartition("~")
        if not tilde or not row.isdigit():
            raise ValueError(f"decision {decision.name!r}: {part!r} is not of the form option~row")
        if option not in by_text:
            raise ValueError(f"decision {decision.name!r}: " + unknown("option", option, by_text))
        value.append((int(row), by_text[option]))
    return tuple(sorted(value))
