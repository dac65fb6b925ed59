"""Spaces in YAML: decisions, and nodes in the order in which data flow. No torch.

    summary: three blocks in a row
    scale: {channels: 16}
    decisions:
      block: {options: [conv_3x3, sep_conv_3x3], rows: 2}
    nodes:
      - {name: stem, op: conv_bn_3x3, out: channels}
      - {name: first, op: $block.0}
      - {name: second, op: $block.1, out: 2 * channels, stride: 2}
      - {op: global_avg_pool}
      - {op: linear, out: classes}

A node reads the one before it unless `inputs` say otherwise. ``$decision`` or ``$decision.row`` is a hole;
``$k sliced`` shares one tensor among the options; ``out: $width * channels`` makes them multipliers; ``when:
$decision == option`` lets a node exist. `out` and `stride` are expressions over `scale` and loop variables,
other attributes are values (``=`` before an expression). ``repeat: N`` writes `nodes` N times, ``depth:
$decision`` lets the decision say how many times. `scale` holds the arguments of the space with their
defaults; `classes` and `input` are always among them. `options` may name a set: ``options: nasnet``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from nas.graph import Builder, Hole, Option, Scalar, Shape
from nas.registry import load_folder, unknown
from nas.search_space.decision import Decision
from nas.search_space.expression import evaluate
from nas.search_space.space import SearchSpace

KEYS = ("summary", "scale", "decisions", "supernet", "known", "nodes")
NODE_KEYS = ("name", "op", "inputs", "out", "stride", "when", "loose")
ALWAYS: dict[str, Any] = {"classes": 10, "input": (3, 32, 32)}
HOLE = re.compile(
    r"\$(?P<name>[\w.-]+?)(?:\.(?P<row>\w+))?(?P<sliced> sliced)?(?: == (?P<option>.+)| \* (?P<times>.+))?$"
)
Content = Mapping[str, Any]


def space_file(path: Path) -> Callable[..., SearchSpace]:
    """The function that builds the space which a YAML file describes; its arguments are the file's `scale`.

    Raises ValueError if the file is missing or no mapping, or has keys that mean nothing.
    """
    import yaml

    if not path.is_file():
        raise ValueError(f"no space file {path}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold keys and values: {', '.join(KEYS)}")
    for key in content:
        if key not in KEYS:
            raise ValueError(f"{path}: " + unknown("key", str(key), KEYS))
    if not isinstance(content.get("nodes"), list) or not isinstance(content.get("decisions"), dict):
        raise ValueError(f"{path} needs `decisions` (name -> options) and `nodes` (a list)")
    load_folder(path.parent)  # so that blocks.py:Name in it means the file beside it

    def build(**arguments: Any) -> SearchSpace:
        try:
            return _Writer(content, arguments).space()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    build.__doc__ = str(content.get("summary", f"The space of {path.name}"))
    defaults = {**ALWAYS, **content.get("scale", {})}
    types = {name: Shape if name == "input" else type(value) for name, value in defaults.items()}
    build.__annotations__ = {**types, "return": SearchSpace}
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=types[name])
            for name, value in defaults.items()
        ]
    )
    return build


class _Writer:
    """Writes the graph of one space file with a `Builder`."""

    def __init__(self, content: Content, arguments: Content) -> None:
        self.content = content
        self.arguments = arguments
        self.b = Builder(tuple(arguments["input"]))
        self.decisions = {name: self._decision(name, given) for name, given in content["decisions"].items()}

    def space(self) -> SearchSpace:
        self._nodes(self.content["nodes"], "input", {}, dict(self.arguments), prefix="")
        known = {str(name): str(text) for name, text in self.content.get("known", {}).items()}
        supernet = dict(self.content.get("supernet", {}))
        return SearchSpace(tuple(self.decisions.values()), self.b.graph(), known=known, supernet=supernet)

    def _decision(self, name: str, given: Any) -> Decision:
        fields = dict(given) if isinstance(given, Mapping) else {"options": given}
        for key in fields:
            if key not in ("options", "rows", "keep", "never"):
                raise ValueError(
                    f"decision {name!r}: " + unknown("key", str(key), ("options", "rows", "keep", "never"))
                )
        if isinstance(fields.get("options"), str):
            from nas.search_space.operations import operations

            fields["options"] = operations(fields["options"])
        if not isinstance(fields.get("options"), Sequence):
            raise ValueError(f"decision {name!r} needs a list of options, not {fields.get('options')!r}")
        rows = int(evaluate(fields.get("rows", 1), self.arguments))
        keep = int(evaluate(fields.get("keep", rows), self.arguments))
        options = tuple(self._option(each) for each in fields["options"])
        return Decision(name, options, rows=rows, keep=keep, never=tuple(fields.get("never", ())))

    def _option(self, given: Any) -> Option:
        """An option; ``=2 * channels`` is computed."""
        if isinstance(given, str) and given.startswith("="):
            return cast(Option, evaluate(given[1:], self.arguments))
        return cast(Option, given)

    def _nodes(
        self, entries: Sequence[Content], last: str, scope: Mapping[str, str], names: Content, *, prefix: str
    ) -> str:
        """Write `entries`, the first of which reads `last`; the name of the last node written."""
        here = dict(scope)
        for place, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise ValueError(f"a node holds keys and values, not {entry!r}")
            if "repeat" in entry or "depth" in entry:
                last = self._block(entry, last, here, names, prefix)
            else:
                last = self._node(entry, last, here, names, f"{prefix}{entry.get('name', f'node{place}')}")
            if "name" in entry:
                here[str(entry["name"])] = last
        return last

    def _block(self, entry: Content, last: str, scope: Mapping[str, str], names: Content, prefix: str) -> str:
        """``repeat`` and ``depth``: nodes written several times."""
        kind = "repeat" if "repeat" in entry else "depth"
        for key in entry:
            if key not in (kind, "name", "as", "nodes"):
                raise ValueError(f"a {kind}: " + unknown("key", str(key), (kind, "name", "as", "nodes")))
        name, variable = str(entry.get("name", kind)), str(entry.get("as", "i"))
        hole = self._hole(str(entry["depth"]), names) if kind == "depth" else None
        options = [int(o) for o in self.decisions[hole.decision].legal] if hole else []
        times = max(options) if hole else int(evaluate(entry["repeat"], names))
        states: dict[Option, str] = {0: last}
        for i in range(times):
            inner = {**names, variable: i}
            last = self._nodes(entry.get("nodes", []), last, scope, inner, prefix=f"{prefix}{name}.{i}.")
            states[i + 1] = last
        if hole is None:
            return last
        return self.b.exits(f"{prefix}{name}", hole.decision, {option: states[option] for option in options})

    def _node(self, entry: Content, last: str, scope: Mapping[str, str], names: Content, name: str) -> str:
        if "op" not in entry:
            raise ValueError(f"node {name!r} needs an op, a repeat or a depth; it has {sorted(entry)}")
        given = entry.get("inputs", last)
        sources = [given] if isinstance(given, str) else list(given)
        for source in sources:
            if source not in scope and source not in ("input", last):
                raise ValueError(f"node {name!r} reads " + unknown("node", str(source), [*scope, "input"]))
        attrs = {key: self._value(value, names) for key, value in entry.items() if key not in NODE_KEYS}
        when = self._hole(str(entry["when"]), names) if "when" in entry else None
        if when is not None and when.option is None:
            raise ValueError(f"node {name!r}: `when` reads `$decision == option`, not {entry['when']!r}")
        return self.b(
            name,
            cast("str | Hole", self._value(entry["op"], names)),
            *(scope.get(source, source) for source in sources),
            out=self._number(entry.get("out"), names),
            stride=int(evaluate(entry.get("stride", 1), names)),
            when=when,
            loose=bool(entry.get("loose", False)),
            **attrs,
        )

    def _value(self, given: Any, names: Content) -> Scalar | Hole:
        """An attribute: a hole, an expression after ``=``, or the value itself."""
        if isinstance(given, str) and given.startswith("$"):
            return self._hole(given, names)
        if isinstance(given, str) and given.startswith("="):
            return cast(Scalar, evaluate(given[1:], names))
        return cast(Scalar, given)

    def _number(self, given: Any, names: Content) -> int | Hole | None:
        if given is None or (isinstance(given, str) and given.startswith("$")):
            return None if given is None else self._hole(given, names)
        return int(evaluate(given, names))

    def _hole(self, text: str, names: Content) -> Hole:
        found = HOLE.match(text.strip())
        if not found:
            raise ValueError(f"{text!r} is no hole: write $decision, $decision.row or $decision == option")
        name, row = found["name"], found["row"]
        if row is not None and f"{name}.{row}" in self.decisions:
            name, row = f"{name}.{row}", None
        if name not in self.decisions:
            raise ValueError("a hole asks " + unknown("decision", name, self.decisions))
        options = {str(option): option for option in self.decisions[name].options}
        wanted = found["option"]
        if wanted is not None and wanted not in options:
            raise ValueError(f"decision {name!r}: " + unknown("option", wanted, options))
        at = 0 if row is None else int(evaluate(row, names))
        option = options[wanted] if wanted is not None else None
        return Hole(name, at, option, bool(found["sliced"]), int(evaluate(found["times"] or 1, names)))
