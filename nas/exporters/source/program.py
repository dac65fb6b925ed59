"""The calls that inference needs: a filled graph without dead nodes, auxiliary heads, identities, zeros."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from torch import nn

from nas.graph import JOINS, ZEROS, Node
from nas.network import Network
from nas.primitives import resolve

Number = int | float


class Call(NamedTuple):
    """One operation: a primitive with its arguments, or a join.

    `numbers` may differ between blocks of one class; `words` (attributes that are no numbers) may not. Words
    that equal the primitive's defaults are left out. `normed`: a norm without parameters follows (the search
    form of a pooling).
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    numbers: tuple[tuple[str, Number], ...] = ()
    words: tuple[tuple[str, str | bool], ...] = ()
    normed: bool = False

    @property
    def join(self) -> bool:
        """Whether it combines its inputs without a module."""
        return self.op in JOINS


class Program(NamedTuple):
    """Calls in an order in which each reads earlier ones. `input` and `output` are names of values."""

    calls: tuple[Call, ...]
    input: str
    output: str


def simplified(network: Network) -> Program:
    """The program of a network in evaluation.

    Identities and joins of one input are replaced by what they read; zeros are dropped from sums that have
    another input; then everything that the output does not need is dropped.
    """
    graph = network.graph
    widths: dict[str, int] = {}
    stands_for: dict[str, str] = {}
    zeros: set[str] = set()
    calls: list[Call] = []
    for node in graph.nodes:
        widths[node.name] = _width(node, widths)
        inputs = tuple(stands_for.get(name, name) for name in node.inputs)
        if node.op == "sum":
            inputs = tuple(name for name in inputs if name not in zeros) or inputs[:1]
        if not inputs:
            continue
        if type(network.nodes.get(node.name)) is nn.Identity or (node.op in JOINS and len(inputs) == 1):
            stands_for[node.name] = inputs[0]
        elif node.op in JOINS:
            calls.append(Call(node.name, node.op, inputs))
        else:
            numbers, words = _arguments(network, node, c_in=widths[node.inputs[0]], c_out=widths[node.name])
            normed = network.pool_norm and resolve(str(node.op)).pool
            calls.append(Call(node.name, str(node.op), inputs, numbers, words, normed))
        if node.op in ZEROS:
            zeros.add(node.name)
    output = stands_for.get(graph.output, graph.output)
    needed = {output}
    for call in reversed(calls):
        if call.name in needed:
            needed.update(call.inputs)
    return Program(tuple(call for call in calls if call.name in needed), graph.nodes[0].name, output)


def _width(node: Node, widths: dict[str, int]) -> int:
    if node.op == "concat":
        return sum(widths[name] for name in node.inputs)
    return node.out if isinstance(node.out, int) else widths[node.inputs[0]]


def _arguments(
    network: Network, node: Node, *, c_in: int, c_out: int
) -> tuple[tuple[tuple[str, Number], ...], tuple[tuple[str, str | bool], ...]]:
    fixed = resolve(str(node.op)).fixed
    attributes: dict[str, Any] = {"affine": network.affine, **fixed, **dict(node.attrs)}
    numbers: list[tuple[str, Number]] = [("c_in", c_in), ("c_out", c_out), ("stride", node.stride)]
    words: list[tuple[str, str | bool]] = []
    for name, value in sorted(attributes.items()):
        if not accepts(node.op, name):
            continue
        if isinstance(value, str | bool):
            if value != default(node.op, name):
                words.append((name, value))
        else:
            numbers.append((name, value))
    return tuple(numbers), tuple(words)


def default(op: object, name: str) -> object:
    """The default of an argument of a primitive; None if it has none."""
    parameters = inspect.signature(resolve(str(op)).build).parameters
    return parameters[name].default if name in parameters else None


def accepts(op: object, name: str) -> bool:
    """Whether a primitive takes an argument of that name: one of a user's own may leave some out."""
    return name in inspect.signature(resolve(str(op)).build).parameters
