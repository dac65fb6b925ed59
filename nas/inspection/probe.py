"""look(): one forward pass, and the value of every layer in it.

A layer is a module, by its path, or a node of a searched network that joins others (a sum, a concatenation):
joins are no modules. What a forward method computes between its modules has no name, but is seen: the last
map of a network may be such a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from nas.graph import JOINS
from nas.network import Network, Step

LISTED = 12  # layers that an error names
NAMELESS = "the last map"  # of a network whose forward method computes it between its modules

See = Callable[[str, Any], None]


@dataclass(frozen=True)
class Seen:
    """What one forward pass computed: the output, the layers' values in their order, the last map.

    A layer that is called more than once has its last value. `last`: the name and the value of the last
    tensor (batch, channels, height, width) with more than one row and column; None if there is none. `ratio`:
    of an image's rows to its columns.
    """

    output: Any
    values: Mapping[str, Tensor]
    last: tuple[str, Tensor] | None
    ratio: float = 1.0

    @property
    def logits(self) -> Tensor:
        """The output, (batch, classes). Raises ValueError for a network that does not classify."""
        if not isinstance(self.output, Tensor) or self.output.dim() != 2:
            shape = tuple(getattr(self.output, "shape", ())) or type(self.output).__name__
            raise ValueError(f"this needs a classifier, whose output is (batch, classes), not {shape}")
        return self.output

    def value(self, name: str) -> Tensor:
        """The value of a layer. Raises ValueError with the nearest name and what there is."""
        if name not in self.values:
            raise ValueError(no_layer(name, self.values))
        return self.values[name]

    def map(self, name: str | None) -> tuple[str, Tensor]:
        """A layer that has rows and columns, the last one by default. Raises ValueError if it has none."""
        if name is None:
            if self.last is None:
                raise ValueError("this network has no layer with rows and columns: there is no map to draw")
            return self.last
        value = self.value(name)
        if not is_map(value, self.ratio):
            there = f"; the last that has them is {self.last[0]!r}" if self.last else ""
            raise ValueError(f"layer {name!r} gives {tuple(value.shape[1:])}, no rows and columns{there}")
        return name, value


def is_map(value: Any, ratio: float) -> bool:
    """Whether it is (batch, channels, height, width) with more than one row and column.

    Other orders put channels last, tables of attention are (batch, heads, tokens, tokens), and tokens are
    (batch, channels, tokens, 1): a map has the image's `ratio` of rows to columns, to a rounding.
    """
    if not isinstance(value, Tensor) or value.dim() != 4 or min(value.shape[2:]) < 2:
        return False
    return bool(abs(value.shape[2] - value.shape[3] * ratio) <= max(1.0, ratio))


def no_layer(name: str, known: Mapping[str, Any]) -> str:
    """The sentence for a layer that does not exist: the nearest one, and the outermost of all."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    names = sorted(known, key=lambda each: each.count("."))[:LISTED]
    names = [each for each in known if each in names]
    more = f" and {len(known) - len(names)} within them" if len(known) > len(names) else ""
    return f"no layer {name!r}{hint} (there are: {', '.join(names)}{more})"


class _Maps(TorchFunctionMode):
    """Keeps the last map of this batch that any function was given or gave.

    It is no larger than the map before it: of tokens there are more than of the rows that they come from.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.batch, self.ratio = len(images), images.shape[2] / images.shape[3]
        self.sides = tuple(images.shape[2:])
        self.last: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in [*tree_leaves(args), result]:
            if isinstance(each, nn.Parameter) or not is_map(each, self.ratio) or len(each) != self.batch:
                continue
            rows, columns = each.shape[2:]
            if rows <= self.sides[0] and columns <= self.sides[1]:
                self.last, self.sides = each, (rows, columns)
        return result


def look(network: nn.Module, images: Tensor) -> Seen:
    """Run the network on (batch, channels, height, width), and keep every layer's value.

    With gradients enabled the values are parts of the output's graph. The network is left as it was.
    """
    values: dict[str, Tensor] = {}

    def see(name: str, value: Any) -> None:
        first = next((each for each in tree_leaves(value) if isinstance(each, Tensor)), None)
        if first is not None:
            values.pop(name, None)  # so that the order is that of the last calls
            values[name] = first

    with _modules(network, see), _joins(network, see), _Maps(images) as maps:
        output = network(images)
    if maps.last is None:
        return Seen(output, values, None, maps.ratio)
    names = [name for name, value in values.items() if value is maps.last]
    return Seen(output, values, (names[-1] if names else NAMELESS, maps.last), maps.ratio)


@contextmanager
def _modules(network: nn.Module, see: See) -> Iterator[None]:
    def watch(name: str) -> Any:
        return lambda module, inputs, output: see(name, output)

    hooks = [module.register_forward_hook(watch(name)) for name, module in network.named_modules() if name]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _joins(network: nn.Module, see: See) -> Iterator[None]:
    """The nodes of a searched network that are no modules: its program is replaced by one that shows them."""
    if not isinstance(network, Network):
        yield
        return
    program, names = network._program, [node.name for node in network.graph.nodes]
    joins = {place for place, node in enumerate(network.graph.nodes) if node.op in JOINS}

    def shown(step: Step) -> Step:
        if step.target not in joins:
            return step

        def run(*inputs: Tensor) -> Tensor:
            value = step.run(*inputs)
            see(names[step.target], value)
            return value

        return step._replace(run=run)

    network._program = program._replace(inference=tuple(map(shown, program.inference)))
    try:
        yield
    finally:
        network._program = program
