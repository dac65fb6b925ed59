"""Network: a filled graph, run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas.graph import JOINS, Graph, Node, Shape
from nas.primitives import resolve

Runner = Callable[..., Tensor]  # computes a node's value from its inputs


class Step(NamedTuple):
    """One instruction: `run` on the values at `inputs`, into `target`; then those at `free` are dropped."""

    target: int
    run: Runner
    inputs: tuple[int, ...]
    free: tuple[int, ...]
    drops: tuple[int, ...] = ()  # places of the inputs that drop path may zero
    mixed: bool = False  # `run` asks for the weights of the options


class Program(NamedTuple):
    """All steps, those that inference needs, and the places of the output and of the auxiliary heads."""

    steps: tuple[Step, ...]
    inference: tuple[Step, ...]
    output: int
    heads: tuple[int, ...]


class Network(nn.Module):
    """Runs a filled graph: (batch, channels, height, width) -> (batch, classes).

    Args:
        graph: without holes.
        affine: whether batch norms have a scale and a shift, where the graph does not say so itself.
        pool_norm: whether a batch norm without parameters follows each pooling (the search form of DARTS).

    `drop_path` (a probability, 0 when made) drops an operation that leads into a sum, in training and for
    each example on its own (Larsson et al. 2017, as scheduled by Zoph et al. 2018); identities are never
    dropped. Parameters are named after the graph's nodes.
    """

    def __init__(self, graph: Graph, *, affine: bool = True, pool_norm: bool = False) -> None:
        super().__init__()
        self.graph = graph
        self.input: Shape = graph.input
        self.affine = affine
        self.pool_norm = pool_norm
        self.drop_path = 0.0
        self.nodes: dict[str, nn.Module] = {}
        widths = self._widths(graph)
        for node in graph.nodes:
            if node.inputs and node.op not in JOINS:
                module = self._build(node, widths[node.inputs[0]], widths[node.name])
                self.nodes[node.name] = module
                _attach(self, node.name, module)
        self._program = self._compile(graph, self._runners(graph))

    @property
    def classes(self) -> int:
        """The number of outputs."""
        return int(self.graph.nodes[-1].out)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        return self._execute(self._program.inference, x)[self._program.output]

    def outputs(self, x: Tensor) -> list[Tensor]:
        """The logits, then those of the auxiliary classifiers; each (batch, classes)."""
        values = self._execute(self._program.steps, x)
        return [values[place] for place in (self._program.output, *self._program.heads)]

    def _widths(self, graph: Graph) -> dict[str, int]:
        """The channels of every node's value."""
        widths: dict[str, int] = {}
        for node in graph.nodes:
            if node.op == "concat":
                widths[node.name] = sum(widths[name] for name in node.inputs)
            else:
                own = self._own_width(node)
                widths[node.name] = widths[node.inputs[0]] if own is None else own
        return widths

    def _own_width(self, node: Node) -> int | None:
        return node.out if isinstance(node.out, int) else None

    def _build(self, node: Node, c_in: int, c_out: int) -> nn.Module:
        return build_option(str(node.op), node, c_in, c_out, affine=self.affine, pool_norm=self.pool_norm)

    def _compile(self, graph: Graph, runs: Mapping[str, Runner]) -> Program:
        """The program of a graph, of what computes each node: its steps, and the places of its outputs."""
        places = {node.name: place for place, node in enumerate(graph.nodes)}
        wanted = {graph.output, *graph.auxiliary}
        last_reader: dict[str, str] = {}
        readers: dict[str, int] = {}
        for node in graph.nodes:
            for name in node.inputs:
                last_reader[name] = node.name
                readers[name] = readers.get(name, 0) + 1
        steps = []
        for node in graph.nodes[1:]:
            free = tuple(
                places[n]
                for n in dict.fromkeys(node.inputs)
                if last_reader[n] == node.name and n not in wanted
            )
            drops = tuple(
                i
                for i, n in enumerate(node.inputs)
                if node.op == "sum" and readers[n] == 1 and n in self.nodes and not is_identity(runs[n])
            )
            inputs = tuple(places[name] for name in node.inputs)
            run = runs[node.name]
            mixed = bool(getattr(run, "mixed", False))
            steps.append(Step(places[node.name], run, inputs, free, drops, mixed))
        heads = tuple(places[name] for name in graph.auxiliary)
        inference = tuple(step for step in steps if step.target not in heads)
        return Program(tuple(steps), inference, places[graph.output], heads)

    def _runners(self, graph: Graph) -> dict[str, Runner]:
        """What computes each node."""
        return {
            node.name: JOIN_FUNCTIONS[str(node.op)] if node.op in JOINS else self.nodes[node.name]
            for node in graph.nodes
            if node.inputs
        }

    def _execute(self, steps: Sequence[Step], x: Tensor, weights: Any = None) -> dict[int, Tensor]:
        values: dict[int, Tensor] = {0: x}
        dropping = self.training and self.drop_path > 0 and weights is None  # a mixture drops its options
        for step in steps:
            inputs = [values[place] for place in step.inputs]
            if dropping:
                for place in step.drops:
                    inputs[place] = drop_path(inputs[place], self.drop_path)
            values[step.target] = step.run(*inputs, weights=weights) if step.mixed else step.run(*inputs)
            for place in step.free:
                values.pop(place)
        return values


def build_option(op: str, node: Node, c_in: int, c_out: int, *, affine: bool, pool_norm: bool) -> nn.Module:
    """The module of one operation of a node."""
    primitive = resolve(op)
    attrs: dict[str, Any] = {"affine": affine, **dict(node.attrs)}
    module = primitive(c_in, c_out, node.stride, **attrs)
    if pool_norm and primitive.pool:  # so that no operation of a supernet is favoured by its scale
        return nn.Sequential(module, nn.BatchNorm2d(c_out, affine=False))
    return module


def is_identity(run: Runner) -> bool:
    """Whether an operation gives back what it is given."""
    return isinstance(getattr(run, "template", run), nn.Identity)


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Zero whole examples of x (batch, ...) with `probability`; scale the others so that the mean stays."""
    keep = 1.0 - probability
    mask = torch.empty((x.shape[0], *[1] * (x.dim() - 1)), device=x.device, dtype=x.dtype).bernoulli_(keep)
    return x * (mask / keep)


def _sum(*inputs: Tensor) -> Tensor:
    return _accumulate(inputs)


def _mean(*inputs: Tensor) -> Tensor:
    return _accumulate(inputs) / len(inputs)


def _concat(*inputs: Tensor) -> Tensor:
    return torch.cat(inputs, dim=1)


def _accumulate(inputs: Iterable[Tensor]) -> Tensor:
    first, *rest = inputs
    for other in rest:
        first = first + other
    return first


JOIN_FUNCTIONS: dict[str, Runner] = {"sum": _sum, "mean": _mean, "concat": _concat}


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register `module` at a dotted path, making plain containers on the way."""
    *parents, leaf = path.split(".")
    for name in parents:
        child = getattr(root, name, None)
        if child is None:
            child = nn.Module()
            root.add_module(name, child)
        if not isinstance(child, nn.Module):
            raise ValueError(f"a node cannot be called {path!r}: {name!r} has a meaning in networks already")
        root = child
    if hasattr(root, leaf):
        raise ValueError(f"a node cannot be called {path!r}: {leaf!r} has a meaning in networks already")
    root.add_module(leaf, module)
