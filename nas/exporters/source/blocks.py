"""Blocks: calls whose names share a prefix. Patterns: blocks that differ in numbers alone, one class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from nas.exporters.source.layout import literal
from nas.exporters.source.program import Call, Number, Program, accepts, default

Read = tuple[int, int]  # the place of a call in its block, and of one of its inputs


class Block(NamedTuple):
    """Consecutive calls of one prefix; an empty prefix for a call of its own.

    `reads` are the inputs that come from outside, `returns` the values that are read outside, in order.
    """

    prefix: str
    calls: tuple[Call, ...]
    reads: dict[Read, str]
    returns: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The prefix without its numbers: ``stages.0.cells.3`` is of kind ``stages.cells``."""
        return ".".join(part for part in self.prefix.split(".") if not part.isdigit())

    def local(self, name: str) -> str:
        """A name without the prefix."""
        return name.removeprefix(f"{self.prefix}.")


@dataclass
class Pattern:
    """What blocks of one class have in common.

    `slots`: the names of the forward arguments; `slot_of`: the slot that a read uses; `parameters`: the names
    of the constructor's arguments, each with its value in every block; `texts`: how each numeric argument of
    each call is written.
    """

    blocks: list[Block]
    name: str = ""
    slots: list[str] = field(default_factory=list)
    slot_of: dict[Read, int] = field(default_factory=dict)
    parameters: dict[str, tuple[Number, ...]] = field(default_factory=dict)
    texts: dict[tuple[int, str], str] = field(default_factory=dict)

    def inputs(self, block: Block) -> tuple[str, ...]:
        """The values that the slots take for one block."""
        values = {slot: block.reads[read] for read, slot in self.slot_of.items()}
        return tuple(values[slot] for slot in range(len(self.slots)))

    def numbers(self, block: Block) -> tuple[Number, ...]:
        """The constructor's arguments for one block."""
        place = next(i for i, each in enumerate(self.blocks) if each is block)
        return tuple(column[place] for column in self.parameters.values())


def blocks(program: Program) -> list[Block]:
    """The program cut into blocks. A prefix whose calls are not consecutive makes no block."""
    runs = [
        (prefix, tuple(calls))
        for prefix, calls in groupby(program.calls, key=lambda call: _prefix(call.name))
    ]
    times = Counter(prefix for prefix, _ in runs)
    pieces: list[tuple[str, tuple[Call, ...]]] = []
    for prefix, calls in runs:
        if prefix and times[prefix] == 1:
            pieces.append((prefix, calls))
        else:
            pieces.extend(("", (call,)) for call in calls)
    home = {call.name: place for place, (_, calls) in enumerate(pieces) for call in calls}
    outside = {program.output}
    for call in program.calls:
        outside.update(name for name in call.inputs if home.get(name) != home[call.name])
    return [_block(prefix, calls, outside) for prefix, calls in pieces]


def _prefix(name: str) -> str:
    """Everything up to the last number before the end of a name, else its first part: cells.3, stem."""
    *parents, _ = name.split(".")
    numbered = [i for i, part in enumerate(parents) if part.isdigit()]
    return ".".join(parents[: numbered[-1] + 1] if numbered else parents[:1])


def _block(prefix: str, calls: tuple[Call, ...], outside: set[str]) -> Block:
    own = {call.name for call in calls}
    reads = {
        (i, j): name for i, call in enumerate(calls) for j, name in enumerate(call.inputs) if name not in own
    }
    return Block(prefix, calls, reads, tuple(call.name for call in calls if call.name in outside))


def patterns(found: Iterable[Block], *, order: Sequence[str], taken: set[str]) -> list[Pattern]:
    """A pattern for every structure among the blocks with a prefix; no class has a name in `taken`.

    `order` has the names of all values, in the order in which they are computed.
    """
    by_structure: dict[object, Pattern] = {}
    for block in found:
        if block.prefix:
            by_structure.setdefault(_structure(block), Pattern([])).blocks.append(block)
    result = list(by_structure.values())
    place = {name: i for i, name in enumerate(order)}
    for pattern in result:
        _find_slots(pattern, place)
        _find_parameters(pattern)
    _name(result, taken)
    return result


def _structure(block: Block) -> object:
    calls = tuple(
        (
            block.local(call.name),
            call.op,
            tuple(None if (i, j) in block.reads else block.local(name) for j, name in enumerate(call.inputs)),
            tuple(name for name, _ in call.numbers),
            call.words,
            call.normed,
        )
        for i, call in enumerate(block.calls)
    )
    return (block.kind, calls, tuple(block.local(name) for name in block.returns))


def _find_slots(pattern: Pattern, place: dict[str, int]) -> None:
    """Reads of the same value in every block share a slot; the oldest value comes first."""
    columns = {read: tuple(block.reads[read] for block in pattern.blocks) for read in pattern.blocks[0].reads}
    ordered = sorted(dict.fromkeys(columns.values()), key=lambda column: sum(place[name] for name in column))
    pattern.slots = ["x"] if len(ordered) == 1 else [f"s{i}" for i in range(len(ordered))]
    pattern.slot_of = {read: ordered.index(column) for read, column in columns.items()}


def _find_parameters(pattern: Pattern) -> None:
    """What varies between the blocks becomes an argument; equal columns of the same meaning share one."""
    first = pattern.blocks[0]
    columns = {
        (i, key): tuple(dict(block.calls[i].numbers)[key] for block in pattern.blocks)
        for i, call in enumerate(first.calls)
        for key, _ in call.numbers
    }
    by_slot = sorted(first.reads, key=lambda read: (pattern.slot_of[read], read))
    entering = [(i, "c_in") for i, _ in by_slot if (i, "c_in") in columns]
    widths = [cell for cell in columns if cell[1] == "c_out"]
    inner = [cell for cell in columns if cell[1] == "c_in"]
    others = [cell for cell in columns if cell[1] not in ("c_in", "c_out")]
    kept = {columns[cell] for cell in widths}
    kept = kept if len(kept) == 1 else set()  # one width throughout
    varying = {columns[cell] for cell in entering if len(set(columns[cell])) > 1} - kept
    for cell in dict.fromkeys((*entering, *widths, *inner, *others)):
        column = columns[cell]
        if len(set(column)) == 1:
            pattern.texts[cell] = repr(column[0])
            continue
        stem = {"c_in": "c_in", "c_out": "channels"}.get(cell[1], cell[1])
        alike = ("c_in", "channels") if cell[1] in ("c_in", "c_out") else (stem,)
        text = _known(pattern, column, alike, multiples=cell[1] == "c_in" and cell not in entering)
        if text is None:
            if cell in entering and column in kept:
                stem = "channels"
            elif cell in entering and len(varying) > 1:
                stem += str(next(pattern.slot_of[read] for read in first.reads if read[0] == cell[0]))
            text = _free(stem, pattern.parameters)
            pattern.parameters[text] = column
        pattern.texts[cell] = text


def _known(
    pattern: Pattern, column: tuple[Number, ...], stems: tuple[str, ...], *, multiples: bool
) -> str | None:
    """The column as a parameter that exists already, or (if `multiples`) as a whole multiple of one."""
    alike = {name: values for name, values in pattern.parameters.items() if name.startswith(stems)}
    for name, values in alike.items():
        if values == column:
            return name
    for name, values in alike.items() if multiples else ():
        factor = int(column[0] // values[0])
        if factor > 1 and all(factor * v == c for v, c in zip(values, column, strict=True)):
            return f"{factor} * {name}"
    return None


def _free(name: str, taken: Iterable[str]) -> str:
    candidates = [name, *(f"{name}{i}" for i in range(2, 1000))]
    return next(candidate for candidate in candidates if candidate not in taken)


def _name(found: list[Pattern], taken: set[str]) -> None:
    """NormalCell and ReductionCell if some patterns of a kind halve the picture, else Cell."""
    for kind in dict.fromkeys(pattern.blocks[0].kind for pattern in found):
        alike = [pattern for pattern in found if pattern.blocks[0].kind == kind]
        halving = [_halves(pattern) for pattern in alike]
        noun = _singular(kind.split(".")[-1])
        for pattern, halves in zip(alike, halving, strict=True):
            adjective = ("Reduction" if halves else "Normal") if len(set(halving)) == 2 else ""
            base = f"{adjective}{noun}"
            letters = ["", *"BCDEFGHIJKLMNOPQRSTUVWXYZ", *(str(i) for i in range(27, 1000))]
            pattern.name = next(f"{base}{letter}" for letter in letters if f"{base}{letter}" not in taken)
            taken.add(pattern.name)


def _halves(pattern: Pattern) -> bool:
    """Whether some call has a stride above 1 in every block."""
    return any(
        all(dict(block.calls[i].numbers).get("stride", 1) > 1 for block in pattern.blocks)
        for i in range(len(pattern.blocks[0].calls))
    )


def _singular(word: str) -> str:
    word = re.sub(r"\W", "", word)
    word = re.sub(r"(?<=ch|sh|ss)es$|(?<!s)s$", "", word)
    return "".join(part.capitalize() for part in word.split("_")) or "Block"


def construction(call: Call, *, maker: str, texts: dict[str, str]) -> str:
    """What builds a call's module: channels by place, the rest only where it is not the default."""
    parts = [texts[name] for name in ("c_in", "c_out") if accepts(call.op, name)]
    if accepts(call.op, "stride") and texts["stride"] != repr(default(call.op, "stride")):
        parts.append(texts["stride"])
    for name, _ in call.numbers[3:]:
        if texts[name] != repr(default(call.op, name)):
            parts.append(f"{name}={texts[name]}")
    parts.extend(f"{name}={literal(value)}" for name, value in call.words)
    made = f"{maker}({', '.join(parts)})"
    return f"nn.Sequential({made}, nn.BatchNorm2d({texts['c_out']}, affine=False))" if call.normed else made
