"""cost(): parameters and multiply-adds, of a graph in closed form or of any module by counting.

Parameters are the trainable ones. Multiply-adds count convolution, linear and transposed convolution layers
in one forward pass of one example through the inference graph; biases and element-wise work are not counted.
Products between activations (attention) are counted apart.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from nas.graph import JOINS, Graph, Node, Shape
from nas.primitives import resolve

ELEMENTWISE = (
    nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid,
    nn.Hardsigmoid, nn.Tanh, nn.Dropout,
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Trainable parameters, and multiply-adds of one forward pass of one example."""

    params: int
    macs: int
    macs_attention: int = 0

    def to_dict(self) -> dict[str, int]:
        """The figures by name."""
        return asdict(self)


def cost(thing: Graph | nn.Module, *, input: Shape | None = None, affine: bool = True) -> Cost:
    """The cost of a filled graph (closed form, no module is built) or of a module (counted on the meta
    device).

    `input`: (channels, height, width) of one example; a graph knows its own. `affine`: whether batch norms
    have parameters, for a graph. Raises ValueError if a module comes without `input`, or a size is illegal.
    """
    if isinstance(thing, Graph):
        return graph_cost(thing, input=input, affine=affine)
    shape = input or getattr(thing, "input", None)
    if shape is None:
        raise ValueError("counting a module needs input=(channels, height, width)")
    return module_cost(thing, input=shape)


def graph_cost(graph: Graph, *, input: Shape | None = None, affine: bool = True) -> Cost:
    """A fold over the nodes of a filled graph: every primitive adds its closed form."""
    params = macs = attention = 0
    auxiliary = set(graph.auxiliary)
    for node, _, found in operations(graph, input=input, affine=affine):
        params += found[0]
        if node.name not in auxiliary:
            macs += found[1]
            attention += found[2]
    return Cost(params, macs, attention)


def operations(
    graph: Graph, *, input: Shape | None = None, affine: bool = True
) -> Iterator[tuple[Node, Shape, tuple[int, int, int, Shape]]]:
    """The nodes of a filled graph that compute something, each with the shape that it reads and its cost."""
    shapes: dict[str, Shape] = {}
    memo: dict[tuple[Any, ...], tuple[int, int, int, Shape]] = {}
    for node in graph.nodes:
        name, op, inputs, out, stride, attrs, _, _ = node
        if not inputs:
            shapes[name] = input or graph.input
            continue
        shape = shapes[inputs[0]]
        if op in JOINS:
            shapes[name] = _joined(name, str(op), [(source, shapes[source]) for source in inputs])
            continue
        key = (op, shape, out, stride, attrs)
        found = memo.get(key)
        if found is None:
            wide = out if isinstance(out, int) else shape[0]
            try:
                found = memo[key] = node_cost(str(op), shape, wide, stride, attrs, affine)
            except ValueError as error:
                size = "x".join(map(str, shape))
                raise ValueError(f"node {name!r}, on the {size} of {inputs[0]!r}: {error}") from error
        shapes[name] = found[3]
        yield node, shape, found


def _joined(name: str, op: str, inputs: Sequence[tuple[str, Shape]]) -> Shape:
    """The shape of a join. Raises ValueError that names the inputs whose shapes clash."""
    (first, shape), *others = inputs
    for other, found in others:
        if found[1:] != shape[1:] or (found != shape and op != "concat"):
            sizes = " and ".join(
                f"{each!r} ({'x'.join(map(str, size))})" for each, size in ((first, shape), (other, found))
            )
            way = "strides" if found[1:] != shape[1:] else "widths: set `out`, or put a conv_1x1 before it"
            raise ValueError(f"node {name!r} is a {op} of {sizes}: its inputs need equal {way}")
    return (sum(size[0] for _, size in inputs), *shape[1:]) if op == "concat" else shape


def node_cost(
    op: str, shape: Shape, out: int, stride: int, attrs: tuple[tuple[str, Any], ...], affine: bool
) -> tuple[int, int, int, Shape]:
    """Parameters, multiply-adds, those of attention, and the output shape, of one operation on `shape`.

    Raises ValueError for arguments outside what the operation declares.
    """
    primitive = resolve(op)
    given = dict(attrs)
    affine = given.pop("affine", affine)
    primitive.check(shape[0], out, stride, size=min(shape[1:]), **given)
    if primitive.flat and shape[1:] != (1, 1):
        raise ValueError(f"{op} works on channels alone: put a global_avg_pool before it")
    if primitive.cost is None:
        return _measured(op, shape, out, stride, affine, attrs)
    tally = primitive.tally(*shape, out, stride, affine, **given)
    return tally.params, tally.macs, tally.attention, (tally.c, tally.h, tally.w)


@lru_cache(maxsize=4096)
def _measured(
    op: str,
    shape: Shape,
    out: int,
    stride: int,
    affine: bool,
    attrs: tuple[tuple[str, Any], ...],
) -> tuple[int, int, int, Shape]:
    """The cost of a module without a closed form: built on the meta device, counted and run there."""
    primitive = resolve(op)
    given = {name: value for name, value in attrs if name != "affine"}
    with torch.device("meta"):
        module = primitive(shape[0], out, stride, affine, **given).eval()
        counted = module_cost(module, input=shape)
        made = module(torch.empty(1, *shape)).shape[1:]
    if made[0] != out:
        raise ValueError(f"{primitive.name} must give {out} channels, as its node says, and gives {made[0]}")
    height, width = (made[1], made[2]) if len(made) == 3 else (1, 1)
    return counted.params, counted.macs, counted.macs_attention, (out, height, width)


def module_cost(module: nn.Module, *, input: Shape) -> Cost:
    """The cost of any module: a copy of it is run on the meta device under PyTorch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    shadow = _shadow(module)
    example = torch.empty(1, *input, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(example)
    counts = {str(op): flops // 2 for op, flops in counter.get_flop_counts().get("Global", {}).items()}
    between = sum(n for op, n in counts.items() if any(word in op for word in ("bmm", "attention")))
    params = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Cost(params, sum(counts.values()) - between, between)


def _same(x: Tensor) -> Tensor:
    return x


def _shadow(module: nn.Module) -> nn.Module:
    """A copy for evaluation, without storage, in which what keeps shapes and multiplies nothing is idle."""
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.to("meta")
    shadow = copy.deepcopy(module, memo).eval()
    for each in shadow.modules():
        if isinstance(each, ELEMENTWISE):
            each.forward = _same  # type: ignore[method-assign, assignment]
    return shadow


def latency(module: nn.Module, *, input: Shape, repeats: int = 20) -> float:
    """Median milliseconds of one forward pass of one example, after warming up, where the module is."""
    place = next((p.device for p in module.parameters()), torch.device("cpu"))
    return _milliseconds(module, torch.randn(1, *input, device=place), repeats)


class Latencies:
    """The milliseconds of a filled graph on a device: the sum of those of its operations, each alone.

    Every operation is measured once for each shape, with one example (Cai et al. 2019, section 3.3, add up
    such a table, too). What runs side by side, or in the shadow of another, is not seen.
    """

    def __init__(self, device: torch.device, repeats: int = 20) -> None:
        self.device, self.repeats = device, repeats
        self._known: dict[tuple[Any, ...], float] = {}

    def __call__(self, graph: Graph) -> float:
        total, auxiliary = 0.0, set(graph.auxiliary)
        for node, shape, found in operations(graph):
            if node.name in auxiliary:
                continue
            key = (node.op, shape, found[3], node.stride, node.attrs)
            if key not in self._known:
                self._known[key] = self._measure(node, shape, found[3][0])
            total += self._known[key]
        return total

    def _measure(self, node: Node, shape: Shape, out: int) -> float:
        primitive = resolve(str(node.op))
        width = node.out if isinstance(node.out, int) else out
        given = dict(node.attrs)
        affine = bool(given.pop("affine", True))
        module = primitive(shape[0], width, node.stride, affine, **given).eval().to(self.device)
        example = torch.randn(1, *(shape[:1] if primitive.flat else shape), device=self.device)
        return _milliseconds(module, example, self.repeats)


def _milliseconds(module: nn.Module, example: Tensor, repeats: int) -> float:
    times = []
    with torch.no_grad():
        for _ in range(repeats + 3):
            start = time.perf_counter()
            module(example)
            if example.is_cuda:
                torch.cuda.synchronize(example.device)
            times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times[3:])
