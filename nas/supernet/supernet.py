"""Supernet: the unfilled graph, run with a weight on every option, or along one path."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import product

from torch import Tensor, nn

from nas.graph import JOINS, Graph, Hole, Node, Option
from nas.network import JOIN_FUNCTIONS, Network, Step, build_option
from nas.search_space import Architecture, SearchSpace
from nas.supernet.mixture import Gate, Join, Mixture, Pick, hole_attributes, option_key

PATHS_KEPT = 256  # programs of paths that are kept for the next call


class Supernet(Network):
    """All networks of a space in one, sharing weights.

    Args:
        space: its graph is run without being filled.
        affine, pool_norm: as for `Network`; by default what the space's paper uses while searching.

    Raises ValueError if the space has choices of width: a mixture of widths has no one set of weights.
    """

    def __init__(
        self, space: SearchSpace, *, affine: bool | None = None, pool_norm: bool | None = None
    ) -> None:
        self.space = space
        published = space.supernet
        super().__init__(
            space.graph,
            affine=published.get("affine", True) if affine is None else affine,
            pool_norm=published.get("pool_norm", False) if pool_norm is None else pool_norm,
        )
        self._paths: OrderedDict[str, tuple[list[Step], int]] = OrderedDict()

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | Architecture) -> Tensor:  # type: ignore[override]
        """Logits (batch, classes) of x (batch, channels, height, width).

        `weights`: a table (rows, options) for each decision mixes every option by its entry; an
        `Architecture` runs that path alone, and costs one path.
        """
        if isinstance(weights, Architecture):
            steps, output = self._path(weights)
            return self._execute(steps, x)[output]
        scalars = {name: [row.unbind(0) for row in table.unbind(0)] for name, table in weights.items()}
        missing = [decision.name for decision in self.space.decisions if decision.name not in scalars]
        if missing:
            raise ValueError(f"weights lack a table for the decision {missing[0]!r}")
        return self._execute(self._inference, x, scalars)[self._places[self.graph.output]]

    def _path(self, architecture: Architecture) -> tuple[list[Step], int]:
        found = self._paths.get(architecture.literal)
        if found is None:
            graph = self.space.fill(architecture)
            steps, places = self._compile(graph)
            found = self._paths[architecture.literal] = (steps, places[graph.output])
            if len(self._paths) > PATHS_KEPT:
                self._paths.popitem(last=False)
        self._paths.move_to_end(architecture.literal)
        return found

    def _channels(self, node: Node, channels: dict[str, int]) -> int:
        if isinstance(node.out, Hole):
            raise ValueError(
                f"node {node.name!r} chooses its width: search this space with paths trained on their own"
            )
        return super()._channels(node, channels)

    def _build(self, node: Node, c_in: int, c_out: int) -> nn.Module:
        """The module of a node, with every option that its holes allow."""
        holes = hole_attributes(node)
        if not isinstance(node.op, Hole) and not holes:
            return self._option(str(node.op), {}, node, c_in, c_out)
        asked = [*([node.op] if isinstance(node.op, Hole) else []), *holes.values()]
        picks: list[Pick] = []
        modules: list[nn.Module | None] = []
        keys: list[str] = []
        for indices in product(*(range(len(self.space.decision(hole.decision).options)) for hole in asked)):
            values = [self.space.decision(h.decision).options[i] for h, i in zip(asked, indices, strict=True)]
            op = str(values[0] if isinstance(node.op, Hole) else node.op)
            attrs = dict(zip(holes, values[len(values) - len(holes) :], strict=True))
            picks.append(tuple(zip(asked, indices, strict=True)))
            modules.append(None if op == "none" else self._option(op, attrs, node, c_in, c_out))
            keys.append(option_key(op, attrs))
        return Mixture(picks, modules, keys)

    def _option(self, op: str, attrs: Mapping[str, Option], node: Node, c_in: int, c_out: int) -> nn.Module:
        fixed = {name: value for name, value in node.attrs if not isinstance(value, Hole)}
        plain = node._replace(attrs=tuple(sorted({**fixed, **attrs}.items())))
        return build_option(op, plain, c_in, c_out, affine=self.affine, pool_norm=self.pool_norm)

    def _runner(self, node: Node) -> Callable[..., Tensor]:
        if node.when is None:
            return super()._runner(node)
        module = Join(JOIN_FUNCTIONS[str(node.op)]) if node.op in JOINS else self.nodes[node.name]
        index = self.space.decision(node.when.decision).options.index(node.when.option)
        return Gate(module, node.when, index)

    def _compile(self, graph: Graph) -> tuple[list[Step], dict[str, int]]:
        """The program of the unfilled graph, or of a path: then each mixture stands for the module of its
        option.
        """
        if graph is self.graph:
            return super()._compile(graph)
        unfilled = {node.name: node for node in self.graph.nodes}
        mixtures, self.nodes = self.nodes, {**self.nodes}
        try:
            for node in graph.nodes:
                module = mixtures.get(node.name)
                if isinstance(module, Mixture):
                    holes = hole_attributes(unfilled[node.name])
                    filled = {name: value for name, value in node.attrs if name in holes}
                    attrs = {name: value for name, value in filled.items() if not isinstance(value, Hole)}
                    self.nodes[node.name] = module.get_submodule(option_key(str(node.op), attrs))
            return super()._compile(graph)
        finally:
            self.nodes = mixtures
