"""SearchSpace: decisions and a graph with holes; everything else about a space is derived from these two. No
torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from random import Random
from typing import Annotated, Any

from annotated_types import Ge

from nas.graph import Graph, Value
from nas.registry import unknown
from nas.search_space.address import split, structure, tuned, written
from nas.search_space.architecture import Architecture
from nas.search_space.decision import Decision, Table
from nas.search_space.fit import fitted
from nas.search_space.joint import joint, options_of
from nas.search_space.rules import TRIES, Rule, best_legal, excess, repaired
from nas.search_space.spaces import Spaces
from nas.signature import bind

Choices = Mapping[str, Value]
Count = Annotated[int, Ge(1)]  # of channels, cells, classes ...


SPACES = Spaces("space")


@dataclass(frozen=True, eq=False, repr=False)
class SearchSpace:
    """A graph with holes and the decisions that fill them.

    Args:
        decisions: in the order in which a literal prints them.
        graph: the unfilled graph. Every decision is asked by some hole, but for those of the recipe.
        known: published points, name -> literal in any notation that `parse` reads.
        known_scale: the arguments with which a known point is the published network, where they differ from
            the space's defaults.
        rules: why an architecture is not legal. Sampling, mutation and derivation give legal ones alone.
        finish: changes a filled graph where the wiring decides widths (NAS-Bench-101).
        supernet: arguments of `Supernet` that the space's paper uses, e.g. ``{"affine": False}``.
        read: reads another notation of the literature: text -> choices, or None if it is not that notation.
        recipe: names of the decisions that are settings of the training (``train.lr``). They always matter.
        name: the address that made this space; `nas.space` sets it.
        scale: the arguments that made this space (channels, cells, classes, input ...); `nas.space` sets
            them.
        limits: further rules, which are not the space's own (`limited`).
        notes: what was changed to fit the scale, for people.

    Raises ValueError if the holes of the graph and the decisions do not match.
    """

    decisions: tuple[Decision, ...]
    graph: Graph
    known: Mapping[str, str] = field(default_factory=dict)
    known_scale: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    finish: Callable[[Graph], Graph] | None = None
    supernet: Mapping[str, bool] = field(default_factory=dict)
    read: Callable[[str], Choices | None] | None = None
    recipe: tuple[str, ...] = ()
    name: str = ""
    scale: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[Rule, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.decisions:
            raise ValueError("a space has at least one decision: without one there is nothing to search")
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
        asked = {(hole.decision, hole.row) for node in self.graph.nodes for hole in node.holes()}
        for name in self.recipe:
            if name not in table or table[name].rows > 1 or (name, 0) in asked:
                raise ValueError(
                    f"{name!r} is no setting of the recipe: a decision of one row, asked by no hole"
                )
        asked |= {(name, 0) for name in self.recipe}
        idle = [(d.name, row) for d in self.decisions for row in range(d.rows) if (d.name, row) not in asked]
        if idle:
            name, row = idle[0]
            raise ValueError(f"no hole asks row {row} of the decision {name!r}: it would never matter")
        object.__setattr__(self, "_table", table)

    def __repr__(self) -> str:
        return f"SearchSpace({self.name!r}, {len(self.decisions)} decisions, {len(self.graph.nodes)} nodes)"

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process a space is made again from its address: its file brings its primitives along."""
        if self.name:
            return _again, (self.name, dict(self.scale), self.limits)
        mappings = (dict(self.known), dict(self.known_scale))
        own = (self.rules, self.finish, dict(self.supernet), self.read, self.recipe)
        return SearchSpace, (self.decisions, self.graph, *mappings, *own)

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
        recipe = {name: checked[name][0][1] for name in self.recipe}
        return Architecture(self.name, checked, self._literal(checked), digest, recipe)

    # --- legality -------------------------------------------------------------------------------------------

    @property
    def every_rule(self) -> tuple[Rule, ...]:
        """That the output is reached; the space's own rules; the limits."""
        return (self._unreached, *self.rules, *self.limits)

    def limited(self, *limits: Rule) -> SearchSpace:
        """The space with further rules, which sampling, mutation and derivation honour."""
        return replace(self, limits=(*self.limits, *limits))

    def why_not(self, architecture: Architecture) -> str | None:
        """Which rule an architecture breaks, in a sentence; None if it is legal."""
        return next((why for rule in self.every_rule if (why := rule(architecture))), None)

    def _unreached(self, architecture: Architecture) -> str | None:
        try:
            self.fill(architecture)
        except ValueError as error:
            return str(error)
        return None

    def sample(self, rng: Random) -> Architecture:
        """Every decision sampled uniformly, among legal architectures.

        Where draws hardly ever are legal, the closest of them is repaired step by step. Raises ValueError
        that names the closest architecture found if there is no legal one.
        """
        closest: tuple[float, Architecture] | None = None
        for _ in range(TRIES):
            drawn = self.architecture({decision.name: decision.sample(rng) for decision in self.decisions})
            if self.why_not(drawn) is None:
                return drawn
            distance = excess(self.every_rule, drawn)
            if closest is None or distance < closest[0]:
                closest = (distance, drawn)
        assert closest is not None
        return repaired(self, closest[1], order=lambda near: rng.sample(near, len(near)))

    def mutate(self, architecture: Architecture, rng: Random) -> Architecture:
        """Elementary mutations until the canonical form changes; the child is legal.

        Raises ValueError if no chain of mutations leads to another legal network.
        """
        movable = [decision for decision in self.decisions if decision.size > 1]
        choices = dict(architecture.choices)
        for _ in range(TRIES if movable else 0):
            decision = rng.choice(movable)
            choices[decision.name] = decision.mutate(choices[decision.name], rng)
            child = self.architecture(choices)
            if self.why_not(child) is not None:
                choices = dict(architecture.choices)
            elif child.digest != architecture.digest:
                return child
        why = f"{TRIES:,} mutations led to no other legal network" if movable else "it is the only network"
        raise ValueError(f"space {self.name!r}: {why} than {architecture.literal!r}")

    def cross(self, a: Architecture, b: Architecture, rng: Random) -> Architecture:
        """Each decision from one parent or the other, with equal chance; a legal child, else parent `a`."""
        for _ in range(TRIES):
            child = self.architecture({d.name: rng.choice((a, b)).choices[d.name] for d in self.decisions})
            if self.why_not(child) is None:
                return child
        return a

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """The legal architectures one elementary mutation away, in a fixed order."""
        near = map(self.architecture, self.moves(architecture.choices))
        return (each for each in near if self.why_not(each) is None)

    def moves(self, choices: Choices) -> Iterator[Choices]:
        """The raw choices one elementary mutation away, in a fixed order, legal or not."""
        for decision in self.decisions:
            for value in decision.neighbours(choices[decision.name]):
                yield {**choices, decision.name: value}

    def adjacent(self, a: Choices, b: Choices) -> bool:
        """Whether `b` is one of the moves from `a`."""
        differing = [decision for decision in self.decisions if a[decision.name] != b[decision.name]]
        return len(differing) == 1 and differing[0].adjacent(a[differing[0].name], b[differing[0].name])

    def at(self, place: int) -> Architecture:
        """The architecture at a place of 0 .. ``size - 1``, legal or not. The last decision is fastest."""
        choices: dict[str, Value] = {}
        for decision in reversed(self.decisions):
            place, own = divmod(place, decision.size)
            choices[decision.name] = decision.at(own)
        return self.architecture(choices)

    def project(self, scores: Mapping[str, Table]) -> Architecture:
        """The best legal value of each decision under its table of scores (rows x options)."""
        return best_legal(self, scores)

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
            active = self.graph.active(current) | {(name, 0) for name in self.recipe}
            matters = {name for name, _ in active}
            simpler = {
                d.name: tuple(
                    (row, o if (d.name, row) in active else d.legal[0]) for row, o in current[d.name]
                )
                if d.name in matters
                else tuple((row, d.legal[0]) for row in range(d.keep))
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
        found = self.architecture(self._choices(text))
        broken = next((why for rule in self.rules if (why := rule(found))), None)
        if broken:
            raise ValueError(f"no architecture of {self.name!r}: {broken}")
        return found

    def _choices(self, text: str) -> Choices:
        if not text.startswith("|"):
            choices = self.read(text) if self.read else None
            if choices is None:
                raise ValueError(f"space {self.name!r}: " + unknown("known architecture", text, self.known))
            return choices
        groups = text.split("+")
        if len(groups) != len(self.decisions):
            raise ValueError(
                f"a literal of {self.name!r} has {len(self.decisions)} groups, got {len(groups)}: {text}"
            )
        return {d.name: d.parse(g) for d, g in zip(self.decisions, groups, strict=True)}

    def recall(self, literal: str, digest: str) -> Architecture:
        """An architecture that this space wrote down as these two: `parse`, trusting what was checked then.

        Raises ValueError for what cannot be a literal of this space.
        """
        groups, parsed = literal.split("+"), self._recalled
        if len(groups) != len(self.decisions):
            return self.parse(literal)  # which says what is wrong
        choices: dict[str, Value] = {}
        for decision, group in zip(self.decisions, groups, strict=True):
            value = parsed.get((decision.name, group))
            if value is None:
                value = parsed[decision.name, group] = decision.check(decision.parse(group))
            choices[decision.name] = value
        recipe = {name: choices[name][0][1] for name in self.recipe}
        return Architecture(self.name, choices, literal, digest, recipe)

    @cached_property
    def _recalled(self) -> dict[tuple[str, str], Value]:
        """The groups of literals that `recall` met; no more than there are values."""
        return {}

    # --- graphs ---------------------------------------------------------------------------------------------

    def fill(self, architecture: Architecture) -> Graph:
        """The filled graph, at the scale of this space."""
        filled = self._filled(architecture)
        return self.finish(filled) if self.finish else filled

    def _filled(self, architecture: Architecture) -> Graph:
        """Kept until another is asked for: a proposal is checked first and told from others next."""
        found = self._last.get(architecture.literal)
        if found is None:
            found = self.graph.fill(architecture.choices)
            self._last.clear()
            self._last[architecture.literal] = found
        return found

    @cached_property
    def _last(self) -> dict[str, Graph]:
        return {}

    def network_digest(self, architecture: Architecture) -> str:
        """Equal for architectures that are the same network up to isomorphism (`Graph.digest`)."""
        return self._filled(architecture).digest()

    def result_digest(self, architecture: Architecture) -> str:
        """Equal for architectures whose trainings are the same: of one network and one recipe."""
        network = self.network_digest(architecture)
        if not self.recipe:
            return network
        content = json.dumps([network, sorted(architecture.recipe.items())])
        return hashlib.sha256(content.encode()).hexdigest()

    def resized(self, **scale: Any) -> SearchSpace:
        """The same space at another scale: channels, cells, classes, input, auxiliary ..."""
        return space(self.name, **{**self.scale, **scale})


def space(address: str, **scale: Any) -> SearchSpace:
    """The search space at `address`, made with `scale`.

    An address is a registered name, ``path/to/file.py:name`` or ``path/to/space.yaml``. Arguments that change
    the decisions belong to it, since a literal means nothing without them: ``chain?layers=8``. So do settings
    of the recipe that are decisions too: ``nasbench201?train.lr=[0.01,0.1]``. Where strides would shrink the
    input to nothing, the first of them are dropped, and `notes` say so.

    Raises ValueError for a name or an argument that does not exist, with the nearest match.
    """
    base, fixed = split(address)
    build = SPACES.resolve(base)
    arguments = bind(build, {**fixed, **scale}, where="space")
    made = build(**arguments)
    if not isinstance(made, SearchSpace):
        raise ValueError(f"{address} must return a SearchSpace, not {type(made).__name__}")
    if not isinstance(made.graph.nodes[-1].out, int):
        raise ValueError(
            f"{address}: the last node, {made.graph.output!r}, needs `out`: the number of classes"
        )
    graph, notes = fitted(made.graph)
    shape, settings = structure(build, arguments, made.decisions), tuned(address)
    made = joint(made, settings)
    name = written(base, {**shape, **options_of(tuple(map(made.decision, settings)))})
    return replace(made, graph=graph, name=name, scale=arguments, notes=(*made.notes, *notes))


def _again(name: str, scale: Mapping[str, Any], limits: tuple[Rule, ...]) -> SearchSpace:
    return space(name, **scale).limited(*limits)


def read(content: Mapping[str, Any]) -> Architecture:
    """The architecture that `Architecture.to_dict` wrote. Raises ValueError if a key is missing."""
    for key in ("space", "literal"):
        if key not in content:
            raise ValueError(f"an architecture file needs the key {key!r}; it has {sorted(content)}")
    return space(content["space"]).parse(content["literal"])
