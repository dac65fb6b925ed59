"""The body of a forward: values get variables, and what is read once is written where it is read."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from nas.exporters.source.layout import wrapped
from nas.exporters.source.program import Call

INLINE = 60  # characters; a longer expression gets a variable
RESERVED = {*dir(nn.Module()), *keyword.kwlist, *keyword.softkwlist, "torch", "nn", "self", "Tensor"}


def attribute(name: str) -> str:
    """A node's name as an attribute or a variable: dots become underscores."""
    text = "".join(c if c.isalnum() else "_" for c in name)
    text = f"_{text}" if text[:1].isdigit() else text
    return f"{text}_" if text in RESERVED else text


def joined(call: Call, inputs: Sequence[str]) -> str:
    """The expression of a join."""
    if call.op == "concat":
        return f"torch.cat([{', '.join(inputs)}], dim=1)"
    total = " + ".join(inputs)
    if call.op == "sum":
        return total
    if call.op == "mean":
        return f"({total}) / {len(inputs)}"
    raise ValueError(f"no Python is known for the join {call.op!r}: export to onnx or torch")


@dataclass
class Scope:
    """One forward, written statement by statement.

    Args:
        last: for every value the number of the step that reads it last.
        reads: for every value how many steps read it.
        end: the number of the return.
        variables: value -> variable, of the arguments to begin with.
        reuse: name a value ``x`` where that is free, as in a network's forward.
    """

    last: dict[str, int]
    reads: dict[str, int]
    end: int
    variables: dict[str, str]
    reuse: bool = False
    lines: list[str] = field(default_factory=list)
    inlined: dict[str, str] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)

    def text(self, value: str) -> str:
        """The value's variable, or its expression if it has none."""
        return self.inlined[value] if value in self.inlined else self.variables[value]

    def free(self, variable: str, step: int) -> bool:
        """Whether no value that is read after `step` lives in the variable."""
        return all(
            self.last.get(value, -1) <= step for value, name in self.variables.items() if name == variable
        )

    def call(
        self,
        step: int,
        outputs: Sequence[str],
        inputs: Sequence[str],
        *,
        write: Callable[..., str],
        name: str,
    ) -> None:
        """Write one operation: `write` makes its expression of its inputs'; `name` is what it is called."""
        expression = write([self.text(value) for value in inputs])
        depth = 1 + max((self.depths.get(value, 0) for value in inputs), default=0)
        near = not self.reuse or all(self.last[value] <= step + 1 for value in outputs)
        once = len(outputs) == 1 and self.reads[outputs[0]] == 1 and near
        if once and (self.last[outputs[0]] == self.end or (depth <= 2 and len(expression) <= INLINE)):
            self.inlined[outputs[0]], self.depths[outputs[0]] = expression, depth
            return
        self.assign(step, outputs, expression, name=name)

    def assign(self, step: int, outputs: Sequence[str], expression: str, *, name: str) -> None:
        """Give the values of an expression variables."""
        targets = []
        for value in outputs:
            brief = self.reuse and self.last[value] <= step + 1 and self.free("x", step)
            own = attribute(name if len(outputs) == 1 else value)
            variable = "x" if brief and len(outputs) == 1 else self._unused(own)
            self.variables[value] = variable
            targets.append(variable)
        self.lines.extend(wrapped(f"{', '.join(targets)} = {expression}", indent=8))

    def _unused(self, name: str) -> str:
        while name in self.variables.values():
            name += "_"
        return name

    def loop(self, step: int, inputs: Sequence[str], window: Sequence[str], *, over: str, each: str) -> None:
        """Write a loop that slides a window: `inputs` fill it before, `window` are the values in it after."""
        texts = [self.text(value) for value in inputs]
        each = self._unused(each)
        if len(inputs) == 1:
            names = [next(v for v in ("x", "state", "state2", "state3") if self.free(v, step))]
        else:
            stems = [s for s in "stuvw" if all(self.free(f"{s}{i}", step) for i in range(len(inputs)))]
            names = [f"{stems[0]}{i}" for i in range(len(inputs))]
        if texts != names:
            same = len(set(texts)) == 1
            left = (" = " if same else ", ").join(names)
            self.lines.extend(wrapped(f"{left} = {texts[0] if same else ', '.join(texts)}", indent=8))
        shift = ", ".join(names)
        moved = ", ".join([*names[1:], f"{each}({shift})"])
        self.lines += [f"        for {each} in self.{over}:", f"            {shift} = {moved}"]
        for value in [value for value, name in self.variables.items() if name in names]:
            del self.variables[value]
        self.variables.update(zip(window, names, strict=True))

    def result(self, values: Sequence[str]) -> None:
        """Write the return."""
        self.lines.extend(wrapped(f"return {', '.join(self.text(value) for value in values)}", indent=8))
