"""OpenNetwork: the modules of an unfilled graph, every option at its widest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import product

import torch
from torch import nn

from nas.graph import Hole, Node, Option, Scalar
from nas.network import Network, build_option
from nas.search_space import SearchSpace
from nas.supernet.elastic import names, width_holes
from nas.supernet.mixture import Options, Pick, option_key

Attributes = Mapping[str, Scalar]


class OpenNetwork(Network):
    """The operations that the nodes of a space's graph may be, and their names; a subclass runs them.

    Args:
        space: whose graph it is.
        partial: k, where only a k-th of the channels goes through operations to choose from; where k does not
            divide their number, all of them do.
        affine, pool_norm: as for `Network`.
    """

    def __init__(self, space: SearchSpace, *, partial: int, affine: bool, pool_norm: bool) -> None:
        self.space, self.partial = space, partial
        self._open = {node.name: node for node in space.graph.nodes}
        self._width_holes = width_holes(space.graph)
        self._widest = self._widths(space.graph)
        self._widened: set[tuple[str, str]] = set()  # operations made for one channel more, for both forms
        if partial > 1 and all(self._share(node) == 1 for node in space.graph.nodes[1:]):
            warnings.warn(
                f"partial={partial} divides the channels of no operation to choose from: all are searched",
                stacklevel=4,
            )
            self.partial = 1
        super().__init__(space.graph, affine=affine, pool_norm=pool_norm)

    def _share(self, node: Node) -> int:
        """Into how many parts the channels of a node are divided, of which one is searched."""
        whole = self._open[node.name]
        widths = [self._widest[whole.inputs[0]], self._widest[node.name]]
        fixed = isinstance(whole.op, Hole) and not whole.attrs and widths[0] == widths[1]
        elastic = any(self._width_holes[name] for name in (whole.inputs[0], node.name))
        return self.partial if fixed and not elastic and widths[0] % self.partial == 0 else 1

    def _own_width(self, node: Node) -> int | None:
        if isinstance(node.out, Hole):
            return max(map(node.out.channels, self.space.decision(node.out.decision).options))
        return super()._own_width(node)

    def _sizes(self, name: str) -> list[int]:
        """The widths that a node's value may have by a decision; empty if none decides."""
        hole = self._width_holes[name]
        return [] if hole is None else list(map(hole.channels, self.space.decision(hole.decision).options))

    def _build(self, node: Node, c_in: int, c_out: int) -> nn.Module:
        """The module of a node, with every option that its holes allow."""
        share = self._share(node)
        c_in, c_out = c_in // share, c_out // share
        wholes = {}
        for op, attrs in self._options(node):
            key = self._key(node, op, attrs)
            if key not in wholes:
                widest = {**attrs, **self._widest_slices(node)}
                wholes[key] = self._whole(op, node, widest, c_in, c_out)
        return wholes[""] if "" in wholes else Options(wholes)

    def _options(self, node: Node) -> Iterator[tuple[str, dict[str, Scalar]]]:
        """Every operation that a node may be, with its attributes; never ``none``."""
        for op, attrs, _ in self._picks(node):
            yield op, attrs

    def _picks(self, node: Node) -> Iterator[tuple[str, dict[str, Scalar], Pick]]:
        """Every operation that the holes of a node's op and attributes allow, and the options picked."""
        holes = {name: value for name, value in node.attrs if isinstance(value, Hole)}
        fixed = {name: value for name, value in node.attrs if not isinstance(value, Hole)}
        asked = [*([node.op] if isinstance(node.op, Hole) else []), *holes.values()]
        options = [self.space.decision(hole.decision).options for hole in asked]
        for indices in product(*(range(len(each)) for each in options)):
            values: list[Option] = [each[i] for each, i in zip(options, indices, strict=True)]
            op = self.graph.operation(values.pop(0)) if isinstance(node.op, Hole) else node.op
            if op != "none":
                attrs = {**fixed, **dict(zip(holes, values, strict=True))}
                yield op, attrs, tuple(zip(asked, indices, strict=True))

    def _key(self, node: Node, op: str, attrs: Attributes) -> str:
        """The name of an option within its node; empty if the node has one operation only."""
        chosen = {
            name: attrs[name]
            for name, value in self._open[node.name].attrs
            if isinstance(value, Hole) and not value.sliced
        }
        return option_key(op, chosen) if chosen or isinstance(self._open[node.name].op, Hole) else ""

    def _widest_slices(self, node: Node) -> dict[str, Scalar]:
        """The largest option of every sliced attribute."""
        sliced = {name: h for name, h in self._open[node.name].attrs if isinstance(h, Hole) and h.sliced}
        return {name: max(self.space.decision(h.decision).options) for name, h in sliced.items()}

    def _whole(self, op: str, node: Node, attrs: Attributes, c_in: int, c_out: int) -> nn.Module:
        """The widest form of an operation. Where its form depends on whether the width changes, the form that
        has the parameters of both: then it is made for one channel more than there are.
        """
        plain = node._replace(attrs=tuple(sorted(attrs.items())))
        forms, extra = self._forms(op, node, attrs), 0
        if len(forms) > 1 and not frozenset.union(*forms) <= names(
            self._template(op, node, attrs, c_in, c_out)
        ):
            extra = 1
            self._widened.add((node.name, op))
        return build_option(op, plain, c_in, c_out + extra, affine=self.affine, pool_norm=self.pool_norm)

    def _forms(self, op: str, node: Node, attrs: Attributes) -> set[frozenset[str]]:
        """The forms (names of tensors) that an operation takes over its choices of width."""
        before, after = self._sizes(node.inputs[0]), self._sizes(node.name)
        if not before and not after:
            return set()
        if self._width_holes[node.inputs[0]] == self._width_holes[node.name]:
            pairs = [(size, size) for size in before]
        else:
            pairs = list(
                product(before or [self._widest[node.inputs[0]]], after or [self._widest[node.name]])
            )
        some = {(a == b): (a, b) for a, b in pairs}  # one pair of equal and one of unequal widths
        return {names(self._template(op, node, attrs, *pair)) for pair in some.values()}

    def _template(self, op: str, node: Node, attrs: Attributes, c_in: int, c_out: int) -> nn.Module:
        plain = node._replace(attrs=tuple(sorted(attrs.items())))
        with torch.device("meta"):
            return build_option(op, plain, c_in, c_out, affine=self.affine, pool_norm=self.pool_norm)
