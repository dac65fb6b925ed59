"""The chain of blocks: runs of blocks that each read the last outputs become one list and one loop."""

from __future__ import annotations

from typing import NamedTuple

from nas.exporters.source.blocks import Block, Pattern
from nas.exporters.source.program import Call, Number


class Item(NamedTuple):
    """One line of the network's forward: a block, or a call outside of any.

    `maker` is the class or function that builds it from `numbers`; None for a join.
    """

    path: str  # the attribute that holds it
    maker: str | None
    numbers: tuple[Number, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    call: Call | None = None
    kind: str = ""


class Loop(NamedTuple):
    """Items that slide a window over the values: each reads all of it, oldest first, and adds its output."""

    items: tuple[Item, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The window before the first item."""
        return self.items[0].inputs

    @property
    def window(self) -> tuple[str, ...]:
        """The window after the last item."""
        values = (*self.inputs, *(item.outputs[0] for item in self.items))
        return values[len(values) - len(self.inputs) :]


def item(block: Block, pattern: Pattern | None, *, maker: str | None) -> Item:
    """The item of a block; `maker` names the function of a block that is one call."""
    call = block.calls[0]
    if pattern is not None:
        return Item(
            block.prefix,
            pattern.name,
            pattern.numbers(block),
            pattern.inputs(block),
            block.returns,
            None,
            block.kind,
        )
    numbers = dict(call.numbers)
    given = tuple(numbers[key] for key in ("c_in", "c_out", "stride") if key in numbers)
    return Item(block.prefix or call.name, maker, given, call.inputs, (call.name,), call, block.kind)


def loops(items: list[Item], *, output: str) -> list[Item | Loop]:
    """The items with every run that slides a window, of three or of two alike, folded into a loop."""
    result: list[Item | Loop] = []
    start = 0
    while start < len(items):
        end = _end(items, start, output)
        run = items[start:end]
        if len(run) > 2 or (len(run) == 2 and run[0].maker == run[1].maker):
            result.append(Loop(tuple(run)))
        else:
            result.append(items[start])
            end = start + 1
        start = end
    return result


def _end(items: list[Item], start: int, output: str) -> int:
    """Where the longest run from `start` ends; what is read after it must still be in the window."""
    window, end = items[start].inputs, start
    while end < len(items) and _fits(items[end], window):
        window = (*window[1:], items[end].outputs[0])
        end += 1
    while end - start > 1:
        made = {each.outputs[0] for each in items[start:end]}
        read = {output, *(name for each in items[end:] for name in each.inputs)}
        if (made & read) <= set(Loop(tuple(items[start:end])).window):
            break
        end -= 1
    return end


def _fits(each: Item, window: tuple[str, ...]) -> bool:
    plain = each.call is None or not (each.call.words or each.call.numbers[3:])
    return bool(each.kind) and plain and bool(window) and each.inputs == window and len(each.outputs) == 1
