"""The classes of a program as text: one a pattern of blocks, then the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from nas.exporters.source.blocks import Block, Pattern, blocks, construction, patterns
from nas.exporters.source.chain import Item, Loop, item, loops
from nas.exporters.source.layout import COLUMNS, folded, wrapped
from nas.exporters.source.program import Number, Program
from nas.exporters.source.scope import Scope, attribute, joined


@dataclass(frozen=True)
class Listing:
    """The text of the classes, and the path of each node's module in the network that they make."""

    text: str
    paths: dict[str, str]


def listing(program: Program, *, summary: str, maker: Callable[[str], str], taken: set[str]) -> Listing:
    """Write a program as classes.

    Args:
        program: what to write.
        summary: the first line of the docstring of `Network`.
        maker: op -> the name of the function that makes its module.
        taken: names that no class may have.
    """
    pieces = blocks(program)
    order = [program.input, *(call.name for call in program.calls)]
    found = patterns([block for block in pieces if not _single(block)], order=order, taken=taken)
    home = {id(block): pattern for pattern in found for block in pattern.blocks}
    items = []
    for block in pieces:
        pattern = home.get(id(block))
        function = None if pattern or block.calls[0].join else maker(block.calls[0].op)
        items.append(item(block, pattern, maker=function))
    steps = loops(items, output=program.output)
    names = _list_names([step for step in steps if isinstance(step, Loop)], taken)
    places = {id(each): place for place, each in _places(steps, names)}
    paths = {}
    for block, each in zip(pieces, items, strict=True):
        for call in block.calls:
            if not call.join:
                inner = f".{attribute(block.local(call.name))}" if id(block) in home else ""
                paths[call.name] = places[id(each)] + inner
    texts = [_block_class(pattern, maker) for pattern in found]
    arguments = {pattern.name: tuple(pattern.parameters) for pattern in found}
    for step in steps:
        if isinstance(step, Loop) and not _bare(step):
            texts.append("\n".join(_table(step, names[id(step)], arguments)))
    texts.append(_network_class(program, steps, names=names, summary=summary))
    return Listing("\n\n\n".join(texts), paths)


def _single(block: Block) -> bool:
    """Whether the block is one call that needs no class of its own."""
    call = block.calls[0]
    return len(block.calls) == 1 and not (call.join or call.normed or call.words or call.numbers[3:])


def _list_names(found: Sequence[Loop], taken: set[str]) -> dict[int, str]:
    """The attribute of each loop's list: its kind, or ``blocks`` for several kinds."""
    names: dict[int, str] = {}
    for loop in found:
        kinds = {each.kind for each in loop.items}
        name = attribute(kinds.pop().split(".")[-1]) if len(kinds) == 1 else "blocks"
        candidates = [name, *(f"{name}{i}" for i in range(2, 1000))]
        names[id(loop)] = next(c for c in candidates if c not in names.values() and c.upper() not in taken)
    return names


def _places(steps: Iterable[Item | Loop], names: dict[int, str]) -> Iterable[tuple[str, Item]]:
    """The path of every item in the network."""
    for step in steps:
        if isinstance(step, Loop):
            yield from ((f"{names[id(step)]}.{i}", each) for i, each in enumerate(step.items))
        else:
            yield _attribute(step, names), step


def _attribute(step: Item, names: dict[int, str]) -> str:
    name = attribute(step.path)
    return f"{name}_" if name in names.values() else name


def _block_class(pattern: Pattern, maker: Callable[[str], str]) -> str:
    first = pattern.blocks[0]
    kinds = {
        name: "int" if all(isinstance(value, int) for value in column) else "float"
        for name, column in pattern.parameters.items()
    }
    lines = [f"class {pattern.name}(nn.Module):"]
    made = []
    for i, call in enumerate(first.calls):
        if not call.join:
            texts = {key: pattern.texts[i, key] for key, _ in call.numbers}
            built = construction(call, maker=maker(call.op), texts=texts)
            made.extend(wrapped(f"self.{attribute(first.local(call.name))} = {built}", indent=8))
    if made:
        given = "".join(f", {name}: {kind}" for name, kind in kinds.items())
        lines += [f"    def __init__(self{given}) -> None:", "        super().__init__()", *made, ""]
    given = "".join(f", {slot}: Tensor" for slot in pattern.slots)
    tensors = "Tensor, ..." if len(first.returns) > 4 else ", ".join("Tensor" for _ in first.returns)
    returned = "Tensor" if len(first.returns) == 1 else f"tuple[{tensors}]"
    lines += [folded(f"    def forward(self{given}) -> {returned}:"), *_block_body(pattern)]
    return "\n".join(lines)


def _block_body(pattern: Pattern) -> list[str]:
    """The statements of a block's forward."""
    block = pattern.blocks[0]
    sources = [
        [f"/{pattern.slot_of[i, j]}" if (i, j) in block.reads else name for j, name in enumerate(call.inputs)]
        for i, call in enumerate(block.calls)
    ]
    slots = {f"/{i}": slot for i, slot in enumerate(pattern.slots)}
    last, reads = _lifetimes([*sources, block.returns])
    scope = Scope(last, reads, len(sources), slots)
    for step, (call, inputs) in enumerate(zip(block.calls, sources, strict=True)):
        name = block.local(call.name)
        if call.join:
            if call.name == block.returns[0] and reads[call.name] == 1 and len(block.returns) == 1:
                scope.inlined[call.name] = joined(call, [scope.text(value) for value in inputs])
            else:
                scope.assign(
                    step, [call.name], joined(call, [scope.text(value) for value in inputs]), name=name
                )
        else:
            scope.call(step, [call.name], inputs, write=_applied(attribute(name)), name=name)
    scope.result(block.returns)
    return scope.lines


def _lifetimes(sources: Sequence[Sequence[str]]) -> tuple[dict[str, int], dict[str, int]]:
    """For each value the last step that reads it, and how often it is read, by one step or by several."""
    last: dict[str, int] = {}
    reads: dict[str, int] = {}
    for step, inputs in enumerate(sources):
        for value in inputs:
            last[value] = step
            reads[value] = reads.get(value, 0) + 1
    return last, reads


def _applied(name: str) -> Callable[[Sequence[str]], str]:
    return lambda inputs: f"self.{name}({', '.join(inputs)})"


def _bare(loop: Loop) -> bool:
    """Whether the blocks are all of one class that takes no arguments."""
    return len({each.maker for each in loop.items}) == 1 and not any(each.numbers for each in loop.items)


def _table(loop: Loop, name: str, arguments: dict[str, tuple[str, ...]]) -> list[str]:
    """The list of a loop's blocks as a constant, equal neighbours counted."""
    mixed = len({each.maker for each in loop.items}) > 1
    rows = []
    for (maker, numbers), run in groupby(loop.items, key=lambda each: (each.maker, each.numbers)):
        count = len(list(run))
        row = f"({maker}, {_tuple(numbers)})" if mixed else _tuple(numbers)
        rows.append((row, count))
    makers = {str(each.maker): None for each in loop.items}
    columns = {maker: arguments.get(maker, ("c_in", "c_out", "stride")) for maker in makers}
    shown = {maker: ", ".join(names) or "no arguments" for maker, names in columns.items()}
    comments = [f"# {maker}: {text}" for maker, text in shown.items()]
    if len(set(columns.values())) == 1:
        comments = [f"# {text}" for text in {*shown.values()} - {"no arguments"}]
    return [*comments, *_rows(name.upper(), rows)]


def _tuple(numbers: Sequence[Number]) -> str:
    return repr(tuple(numbers))


def _rows(name: str, rows: list[tuple[str, int]]) -> list[str]:
    """``NAME = [a, b] + [c] * 3``, on as many lines as it needs."""
    terms: list[str] = []
    for repeated, group in groupby(rows, key=lambda row: row[1] > 1):
        if repeated:
            terms += [f"[{row}] * {count}" for row, count in group]
        else:
            terms.append(f"[{', '.join(row for row, _ in group)}]")
    line = f"{name} = {' + '.join(terms)}"
    if len(line) <= COLUMNS:
        return [line]
    lines = [f"{name} = ["]
    for row, count in rows:
        lines.append(f"    *[{row}] * {count}," if count > 1 else f"    {row},")
    return [*lines, "]"]


def _network_class(
    program: Program, steps: Sequence[Item | Loop], *, names: dict[int, str], summary: str
) -> str:
    lines = ["class Network(nn.Module):", f'    """{summary}"""', ""]
    lines += ["    def __init__(self) -> None:", "        super().__init__()"]
    for step in steps:
        if isinstance(step, Loop):
            name = names[id(step)]
            makers = {each.maker for each in step.items}
            each = ("block", "block, numbers") if len(makers) > 1 else (str(makers.pop()), "numbers")
            built = f"{each[0]}(*numbers) for {each[1]} in {name.upper()}"
            if _bare(step):
                built = f"{each[0]}() for _ in range({len(step.items)})"
            lines.append(f"        self.{name} = nn.ModuleList({built})")
        elif step.maker is not None:
            lines.extend(wrapped(f"self.{_attribute(step, names)} = {_built(step)}", indent=8))
    scope = _network_body(program, steps, names)
    return "\n".join([*lines, "", "    def forward(self, x: Tensor) -> Tensor:", *scope.lines])


def _built(step: Item) -> str:
    """The expression that builds a block that stands alone."""
    if step.call is None:
        return f"{step.maker}({', '.join(repr(number) for number in step.numbers)})"
    texts = {key: repr(value) for key, value in step.call.numbers}
    return construction(step.call, maker=str(step.maker), texts=texts)


def _network_body(program: Program, steps: Sequence[Item | Loop], names: dict[int, str]) -> Scope:
    sources = [tuple(dict.fromkeys(s.inputs)) if isinstance(s, Loop) else s.inputs for s in steps]
    last, reads = _lifetimes([*sources, (program.output,)])
    scope = Scope(last, reads, len(sources), {program.input: "x"}, reuse=True)
    for number, step in enumerate(steps):
        if isinstance(step, Loop):
            name = names[id(step)]
            each = name[:-1] if name.endswith("s") else "block"
            scope.loop(number, step.inputs, step.window, over=name, each=each)
        elif step.call is not None and step.call.join:
            text = joined(step.call, [scope.text(value) for value in step.inputs])
            scope.assign(number, step.outputs, text, name=step.path)
        else:
            name = _attribute(step, names)
            scope.call(number, step.outputs, step.inputs, write=_applied(name), name=name)
    scope.result([program.output])
    return scope
