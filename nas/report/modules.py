"""module_outline(): the outline of any nn.Module, from one forward pass on the meta device. Torch at use."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from nas.report.cell import Cell, lettered
from nas.report.items import Figures, Item, Line, Outline, Shape, folded, told_once
from nas.report.traced import said, traced

if TYPE_CHECKING:
    from torch import nn

CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")


def module_outline(network: nn.Module, *, input: Shape, title: str) -> Outline:
    """The outline of a network whose input is (channels, height, width).

    Containers are opened; every other module with parts is a block. Modules stand in the order in which they
    are called first; what a forward method computes by itself has no line of its own.
    """
    seen = _run(network, input)
    parts = list(_parts(network, "", seen))
    pictures = _pictures(parts)
    items = [Item("input", "input", "input", tuple(input))]
    for path, module in parts:
        items.append(_item(path, module, seen, before=items[-1], picture=pictures.get(path, "")))
    chained = [replace(item, reads=(place - 1,) if place else ()) for place, item in enumerate(items)]
    return Outline(title, tuple(told_once(folded(chained))), _cells(parts, pictures))


@dataclass
class _Seen:
    """What one forward pass tells of each module, by path: order of first call, shapes, multiply-adds."""

    order: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)  # of a module or of a part of it
    came: dict[str, Shape] = field(default_factory=dict)
    went: dict[str, Shape] = field(default_factory=dict)
    cost: dict[str, Figures] = field(default_factory=dict)


def _run(network: nn.Module, input: Shape) -> _Seen:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    shadow = copy.deepcopy(network).to("meta").eval()
    seen = _Seen()

    def watch(path: str) -> Any:
        def before(module: Any, inputs: Any) -> None:
            seen.order.setdefault(path, len(seen.order))
            seen.came.setdefault(path, _shape(inputs))

        def after(module: Any, inputs: Any, output: Any) -> None:
            seen.went[path] = _shape(output)

        return before, after

    for path, module in shadow.named_modules():
        before, after = watch(path)
        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)
    x = torch.empty(1, *input, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(x)
    outputs: Any = getattr(shadow, "outputs", None)
    if outputs is not None:  # auxiliary classifiers: parameters, and no multiply-adds of the network
        with torch.no_grad():
            outputs(x)
    for path, place in seen.order.items():
        words = path.split(".")
        for end in range(1, len(words) + 1):
            seen.first.setdefault(".".join(words[:end]), place)
    counts = counter.get_flop_counts()
    root = type(shadow).__name__
    for path, module in network.named_modules():
        found: Mapping[Any, int] = counts.get(f"{root}.{path}" if path else "Global", {})
        halves = {str(op): flops // 2 for op, flops in found.items()}
        between = sum(n for op, n in halves.items() if "bmm" in op or "attention" in op)
        params = sum(p.numel() for p in module.parameters() if p.requires_grad)
        seen.cost[path] = Figures(params, sum(halves.values()) - between, between)
    return seen


def _shape(value: Any) -> Shape:
    """Of the first tensor, without the batch; (c, 1, 1) for a vector, (c, length, 1) for tokens."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    sides = tuple(getattr(value, "shape", ()))[1:]
    if len(sides) == 2:
        sides = (sides[1], sides[0])
    return (*sides, *(1,) * (3 - len(sides))) if sides else ()


def _parts(module: nn.Module, path: str, seen: _Seen) -> Iterator[tuple[str, nn.Module]]:
    """The modules that are one item each, in the order of their first call."""
    children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
    last = len(seen.order)
    for name, child in sorted(children, key=lambda each: seen.first.get(each[0], last)):
        if type(child).__name__ in CONTAINERS:
            yield from _parts(child, name, seen)
        elif name in seen.order:
            yield name, child


def _pictures(parts: Sequence[tuple[str, nn.Module]]) -> dict[str, str]:
    """The name of its picture, for each block that has one: its class, with a letter where blocks differ."""
    looks: dict[object, list[str]] = {}
    classes: dict[object, str] = {}
    for path, module in parts:
        drawn = traced(module) if any(True for _ in module.children()) else None
        if drawn is not None:
            states = tuple((name, *fields.values()) for name, fields in drawn.nodes(data=True))
            key = (type(module).__name__, states, tuple(drawn.edges()))
            looks.setdefault(key, []).append(path)
            classes[key] = type(module).__name__
    names = lettered([classes[key] for key in looks])
    return {path: name for name, paths in zip(names, looks.values(), strict=True) for path in paths}


def _cells(parts: Sequence[tuple[str, nn.Module]], pictures: Mapping[str, str]) -> tuple[Cell, ...]:
    first = {pictures[path]: module for path, module in reversed(parts) if path in pictures}
    counts = Counter(pictures.values())
    drawn = [(name, traced(first[name])) for name in counts]
    return tuple(Cell(name, graph, counts[name]) for name, graph in drawn if graph is not None)


def _item(path: str, module: nn.Module, seen: _Seen, *, before: Item, picture: str) -> Item:
    shape, came = seen.went[path] or before.shape, seen.came[path] or before.shape
    lines = tuple(_lines(module, path, seen, 0))
    name, detail, kind = said(module)
    halved = came[1] / shape[1] if shape[1:] != (1, 1) else 1
    return Item(
        name=path,
        label=picture or name,
        kind=kind,
        shape=shape,
        detail=detail,
        stride=max(1, round(halved)),
        cost=seen.cost[path],
        lines=lines,
        key=(picture, type(module), detail, came, shape, tuple((line.label, line.shape) for line in lines)),
    )


def _lines(module: nn.Module, path: str, seen: _Seen, depth: int) -> Iterator[Line]:
    for name, child in _parts(module, path, seen):
        label, detail, _ = said(child)
        words = f"{name[len(path) + 1 :]}  {label}" + (f" ({detail})" if detail else "")
        yield Line(words, seen.went[name], seen.cost[name], depth)
