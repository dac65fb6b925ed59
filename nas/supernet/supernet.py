"""Supernet: the unfilled graph, run with a weight on every option, or along one path."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.graph import JOINS, Graph, Hole, Node, Option, Value
from nas.network import JOIN_FUNCTIONS, Program, Runner
from nas.primitives.layers import LayerNorm
from nas.search_space import Architecture, SearchSpace
from nas.supernet.active import active_steps
from nas.supernet.elastic import Columns, Sliced, columns_of
from nas.supernet.fuse import Fusion, fuse
from nas.supernet.mixture import (
    Either,
    Gate,
    Masked,
    Mixture,
    Pick,
    Recomputed,
    Weights,
    hard,
)
from nas.supernet.open_network import Attributes, OpenNetwork
from nas.supernet.partial import Partial
from nas.supernet.presence import LooseEnds, Mean, Presence, There

PROGRAMS_KEPT = 256  # programs of paths that are kept for the next call


class Fused(NamedTuple):
    """The mixtures of these active options computed together, and what runs them; None: of all options."""

    active: dict[str, list[list[bool]]] | None
    fusion: Fusion
    program: Program


class Supernet(OpenNetwork):
    """All networks of a space in one, sharing weights.

    Args:
        space: its graph is run without being filled.
        affine, pool_norm: as for `Network`; by default what the space's paper uses while searching.
        partial: k, where only a k-th of the channels goes through operations to choose from (PC-DARTS).
        recompute: mixtures keep no inner values for the gradient and compute them again (less memory).
        fuse: mixtures of one node are computed together, as few wide operations (`nas.supernet.fuse`).
        compile: what a training step on tables runs is compiled by `torch.compile`: at the first step, and
            again where other options are active. First derivatives alone can be taken through it.

    Options of a width, and sliced options of an attribute, share one widest tensor. A path takes its part of
    it and runs at its own shapes. A soft choice of width runs the widest and masks channels.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        affine: bool | None = None,
        pool_norm: bool | None = None,
        partial: int = 1,
        recompute: bool = False,
        fuse: bool = True,
        compile: bool = False,
    ) -> None:
        if compile and (recompute or not fuse):
            raise ValueError("a supernet that is compiled is fused, and not recomputed")
        self.recompute, self.fuse, self._to_compile = recompute, fuse, compile
        self._programs: OrderedDict[object, Program] = OrderedDict()
        self._slices: dict[object, Sliced] = {}  # making a template takes milliseconds
        self._warned = False
        self._last: object = None  # the options that were active in the last call that gave up some
        self._fusions: dict[object, Fused] = {}  # of all options; of the active ones, trained or looked at
        self._ran: Fusion | None = None
        self._compiled: tuple[Program, Callable[..., Tensor]] | None = None
        published = space.supernet
        super().__init__(
            space,
            partial=partial,
            affine=published.get("affine", True) if affine is None else affine,
            pool_norm=published.get("pool_norm", False) if pool_norm is None else pool_norm,
        )
        self._elastic = sorted({h.decision for h in self._width_holes.values() if h is not None})

    @cached_property
    def _presence(self) -> Presence:
        return Presence(self.space, self.graph, self._kept_by)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        weights: Mapping[str, Tensor] | Architecture,
        active: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Logits (batch, classes) of x (batch, channels, height, width).

        `weights`: a table (rows, options) for each decision mixes every option by its entry; an
        `Architecture` runs that path alone, and costs one path. A hard table (0 and 1) of a width runs at
        that width; a soft one masks channels, which is exact only where no operation's inner width or
        normalisation follows its channels: then there is one warning. `active`: tables of truth values; an
        option that is not active is not run, whatever its weight, and its weight gets no gradient from it.
        `drop_path` drops options that are no identities (ScheduledDropPath).

        Raises ValueError if a table is missing, or soft where the wiring decides widths (`finish`).
        """
        if not isinstance(weights, Architecture):
            for d in self.space.decisions:
                if d.name not in weights:
                    raise ValueError(f"weights lack a table for the decision {d.name!r}")
                if weights[d.name].shape != (d.rows, len(d.options)):
                    raise ValueError(
                        f"the table of {d.name!r} must be rows x options, {d.rows} x {len(d.options)}, not "
                        f"{tuple(weights[d.name].shape)}"
                    )
            if self.space.finish is None:
                scalars = Weights(weights, active, self.drop_path if self.training else 0.0)
                program = self._mixed(scalars)
                if program is self._program and self.fuse and not scalars.drop:
                    return self._fused(x, scalars)
                return self._execute(active_steps(program, scalars), x, scalars)[program.output]
            weights = hard(self.space, weights)
        program = self.path(weights)
        return self._execute(program.inference, x)[program.output]

    # --- programs -------------------------------------------------------------------------------------------

    def path(self, architecture: Architecture) -> Program:
        """The program of one architecture, at its own shapes. Raises ValueError with `partial`."""
        if self.partial > 1:
            raise ValueError(f"a supernet with partial={self.partial} runs tables alone: give hard ones")

        def make() -> Program:
            filled = self.space.fill(architecture)
            return self._compile(filled, self._runners(filled))

        return self._kept(architecture.literal, make)

    def state_of(self, architecture: Architecture) -> dict[str, Tensor]:
        """The tensors with which a `Network` of the filled graph computes what the path computes.

        Raises ValueError if a part of the channels passes by the operations: no network has such tensors.
        """
        if self.partial > 1:
            raise ValueError(
                f"a supernet with partial={self.partial} has no weights of whole networks: search with "
                "strategy.partial=1, or train without --inherit"
            )
        state: dict[str, Tensor] = {}
        for name, run in self._runners(self.space.fill(architecture)).items():
            held = run.tensors() if isinstance(run, Sliced) else {}
            if isinstance(run, nn.Module):
                held = run.state_dict(keep_vars=True)
            state |= {f"{name}.{key}": tensor for key, tensor in held.items()}
        return state

    def _kept(self, key: object, make: Callable[[], Program]) -> Program:
        found = self._programs.get(key)
        if found is None:
            found = self._programs[key] = make()
            if len(self._programs) > PROGRAMS_KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return found

    def _mixed(self, weights: Weights) -> Program:
        """The program for tables: at the widths that they choose, or at the widest if they are soft, or if
        several widths are active: each gets a gradient then.
        """
        if not self._elastic:
            return self._program
        picked = {}
        for name in self._elastic:
            decision, table = self.space.decision(name), weights.tables[name].tolist()
            picked[name] = decision.project(table)
            several = weights.active is not None and any(sum(row) > 1 for row in weights.active[name])
            if several or decision.mask(picked[name]) != table:
                self._warn()
                return self._program
        key = tuple(picked.items())

        def make() -> Program:
            sized = [
                node._replace(out=node.out.channels(dict(picked[node.out.decision])[node.out.row]))
                if isinstance(node.out, Hole)
                else node
                for node in self.graph.nodes
            ]
            graph = self.graph.rewritten(sized)
            return self._compile(graph, self._runners(graph, picked=picked))

        return self._kept(key, make)

    def fusion(self, weights: Weights | None = None) -> Fusion:
        """The program for tables, with what is active in them, as few wide operations."""
        graph = self.graph
        if weights is not None and weights.active is not None:  # what is not read is not run
            nodes, steps = graph.nodes, active_steps(self._program, weights)
            left = [nodes[s.target]._replace(inputs=tuple(nodes[i].name for i in s.inputs)) for s in steps]
            graph = Graph([nodes[0], *left], input=graph.input, aliases=graph.aliases)
        return fuse(self.space, graph, self._runners(self.graph), self._widest, weights)

    def _fused(self, x: Tensor, weights: Weights) -> Tensor:
        """The mixtures computed together; one by one if what is active was not so in the last such call:
        where it is drawn for each step, rewriting would cost more than it saves.
        """
        some = weights.active is not None
        if some and weights.active != self._last:
            self._last = weights.active
            return self._execute(active_steps(self._program, weights), x, weights)[self._program.output]
        kind = (some, some and torch.is_grad_enabled())
        if kind not in self._fusions or self._fusions[kind].active != weights.active:
            made = self.fusion(weights)
            self._fusions[kind] = Fused(weights.active, made, self._compile(made.graph, made.runs))
        _, fusion, program = self._fusions[kind]
        if fusion is not self._ran:
            fusion.untie()
            self._ran = fusion
        fusion.begin(x.device)
        if self._to_compile and self.training and torch.is_grad_enabled():
            return self._traced(program, weights.active)(x, weights.tables)
        return self._execute(program.inference, x, weights)[program.output]

    def forget(self) -> None:
        """Compute the next call as if it were the first: which mixtures are fused, and so how sums are
        rounded, depends on what was active before.
        """
        self._last = None

    def _traced(self, program: Program, active: dict[str, list[Any]] | None) -> Callable[..., Tensor]:
        """A program as a compiled function of images and tables."""
        if self._compiled is None or self._compiled[0] is not program:

            def run(x: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
                weights = Weights(tables)
                weights.active = active
                return self._execute(program.inference, x, weights)[program.output]

            run.__code__ = run.__code__.replace()  # the compiler gives a code up after eight variants of it
            self._compiled = program, torch.compile(run, dynamic=False)
        return self._compiled[1]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_compiled": None}  # of this process alone

    def _warn(self) -> None:
        if self._warned:
            return
        self._warned = True
        inexact = sorted(name for name in self.nodes if self._follows(name))
        if inexact:
            warnings.warn(
                f"a soft choice of width masks channels; in {len(inexact)} nodes ({inexact[0]} ...) an inner "
                "width or a normalisation follows the channels, so the mixture is no exact sum of its "
                "options; paths are exact",
                stacklevel=3,
            )

    def _follows(self, name: str) -> bool:
        """Whether an operation behind a choice of width is not its wider self with closed channels."""
        node = self._open[name]
        if self._width_holes[node.inputs[0]] is None and self._width_holes[name] is None:
            return False
        if any(isinstance(m, nn.GroupNorm | nn.LayerNorm | LayerNorm) for m in self.nodes[name].modules()):
            return True
        c_in, c_out = self._widest[node.inputs[0]], self._widest[name]
        small = [min(self._sizes(each) or [self._widest[each]]) for each in (node.inputs[0], name)]
        for op, attrs in self._options(node):
            wide = dict(self._template(op, node, attrs, c_in, c_out).named_parameters())
            for key, tensor in self._template(op, node, attrs, *small).named_parameters():
                sizes = zip(tensor.shape, wide[key].shape, strict=True) if key in wide else []
                if any(a != b and (a, b) not in ((small[0], c_in), (small[1], c_out)) for a, b in sizes):
                    return True
        return False

    # --- runners --------------------------------------------------------------------------------------------

    def _runners(self, graph: Graph, *, picked: Mapping[str, Value] | None = None) -> dict[str, Runner]:
        """What computes each node of the unfilled graph, of one with its widths filled (as `picked`),
        or of a path.
        """
        widths = self._widths(graph)
        columns = columns_of(graph, self._open, widths, self._widest)
        runs: dict[str, Runner] = {}
        soft = picked is not None or graph is self.graph
        for node in graph.nodes[1:]:
            run: Runner
            if node.loose:
                run = LooseEnds(self._presence, node)
            elif node.op == "mean" and soft:
                run = Mean(self._presence, node)
            elif node.op in JOINS:
                run = JOIN_FUNCTIONS[str(node.op)]
            else:
                source = node.inputs[0]
                run = self._operation(node, widths[source], widths[node.name], columns.get(source))
                if soft and source in self._presence.maybe:
                    run = There(run, self._presence, source)
            runs[node.name] = self._gated(node, run, soft=graph is self.graph, picked=picked)
        return runs

    def _operation(self, node: Node, c_in: int, c_out: int, columns: Columns | None) -> Runner:
        share = self._share(node)
        if share == 1:
            return self._whole_operation(node, c_in, c_out, columns)
        hole = self._open[node.name].op
        assert isinstance(hole, Hole)
        inner = self._whole_operation(node, c_in // share, c_out // share, columns)
        return Partial(inner, hole, share, node.stride)

    def _whole_operation(self, node: Node, c_in: int, c_out: int, columns: Columns | None) -> Runner:
        entries = []
        for op, attrs, pick in self._picks(node):
            run = self._option(node, op, attrs, (c_in, c_out), columns)
            if isinstance(node.out, Hole):
                run = self._either(node, op, attrs, run)
            entries.append((pick, run))
        if len(entries) == 1 and not entries[0][0]:
            return entries[0][1]
        return Recomputed(Mixture(entries), self.nodes[node.name]) if self.recompute else Mixture(entries)

    def _option(
        self, node: Node, op: str, attrs: Attributes, width: tuple[int, int], columns: Columns | None
    ) -> Runner:
        """One operation at its own shape: the widest module itself, or a part of it."""
        key = self._key(node, op, attrs)
        whole = self.nodes[node.name].get_submodule(key) if key else self.nodes[node.name]
        share = self._share(node)
        full = (self._widest[node.inputs[0]] // share, self._widest[node.name] // share)
        sizes = (full[1], width[1])
        slices = {name: attrs[name] for name in self._widest_slices(node)}
        widest = width == full and slices == self._widest_slices(node)
        if widest and (node.name, op) not in self._widened:
            return whole
        try:
            if columns and self._width_holes[node.name] and (columns.full, len(columns.there)) == sizes:
                raise ValueError(
                    f"its choice of width leaves {sizes[1]} of {sizes[0]} channels, as do inputs that may be "
                    "absent: put a conv_1x1 of another fixed width before it"
                )
            asked = (node.name, op, *attrs.items(), width)
            made = None if columns else self._slices.get(asked)
            if made is None:
                made = Sliced(self._template(op, node, attrs, *width), whole, columns)
                if not columns:
                    self._slices[asked] = made
            return made
        except ValueError as error:
            raise ValueError(f"node {node.name!r}, operation {op!r}: {error}") from error

    def _either(self, node: Node, op: str, attrs: Attributes, run: Runner) -> Runner:
        """For a soft width: both forms of an operation that has another one where the width changes."""
        before, after = self._width_holes[node.inputs[0]], self._width_holes[node.name]
        if before is None or after is None or len(self._forms(op, node, attrs)) < 2:
            return run
        key = self._key(node, op, attrs)
        whole = self.nodes[node.name].get_submodule(key) if key else self.nodes[node.name]
        first, second = self._sizes(node.inputs[0]), self._sizes(node.name)
        pairs = [(i, j) for i, a in enumerate(first) for j, b in enumerate(second) if a == b]
        return Either(run, whole, (before, after), pairs)

    def _gated(self, node: Node, run: Runner, *, soft: bool, picked: Mapping[str, Value] | None) -> Runner:
        """With the weight of the node's width, and of its presence."""
        hole = self._width_holes[node.name]
        own = self._open[node.name].out
        if soft and hole is not None and node.op not in JOINS:
            run = Masked(run, hole, self._sizes(node.name), own=isinstance(own, Hole))
        elif picked and isinstance(own, Hole):
            index = self._place(own, dict(picked[own.decision])[own.row])
            run = Gate(run, ((own, index),))
        if node.when is not None:
            run = Gate(run, ((node.when, self._place(node.when, node.when.option)),))
        return run

    def _place(self, hole: Hole, option: Option | None) -> int:
        """The index of an option in the decision of a hole."""
        assert option is not None
        return self.space.decision(hole.decision).options.index(option)

    def _kept_by(self, node: Node) -> list[Pick]:
        """The picks with which a node is there, as far as its own choices say."""
        fixed: Pick = () if node.when is None else ((node.when, self._place(node.when, node.when.option)),)
        return [(*fixed, *pick) for _, _, pick in self._picks(node)]
