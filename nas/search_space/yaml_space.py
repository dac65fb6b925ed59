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
from dataclasses import replace
from keyword import iskeyword
from pathlib import Path
from typing import Any

from nas.documents import read_yaml
from nas.graph import Builder, Graph, Hole, Option, Scalar, Shape
from nas.registry import unknown
from nas.search_space.decision import Decision
from nas.search_space.expression import evaluate, whole
from nas.search_space.space import SearchSpace

KEYS = ("summary", "scale", "decisions", "supernet", "known", "nodes")
NODE_KEYS = ("name", "op", "inputs", "out", "stride", "when", "loose")
DECISION_KEYS = ("options", "rows", "keep", "never")
SUPERNET_KEYS = ("affine", "pool_norm")
RESERVED = ("name", "rule", "max_params", "max_macs", "max_latency_ms")  # keys of the section ``space``
ALWAYS: dict[str, Any] = {"classes": 10, "input": (3, 32, 32)}
HOLE = re.compile(
    r"\$(?P<name>[\w.-]+?)(?:\.(?P<row>\w+))?(?P<tail> sliced| == (?P<option>.+)| \* (?P<times>.+))?$"
)
Content = Mapping[str, Any]


def space_file(path: Path) -> Callable[..., SearchSpace]:
    """The function that builds the space which a YAML file describes; its arguments are the file's `scale`.

    Raises ValueError if the file is missing or no mapping, or has keys that mean nothing.
    """
    if not path.is_file():
        raise ValueError(
            f"no space file {path}: a space is a name that `nas list spaces` shows, file.yaml or file.py:name"
        )
    content = read_yaml(path)
    try:
        _check(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error

    defaults = {**ALWAYS, **content.get("scale", {})}

    def build(**arguments: Any) -> SearchSpace:
        try:
            return _Writer(content, {**defaults, **arguments}, path.parent).space()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    build.__doc__ = str(content.get("summary", f"The space of {path.name}"))
    types = {name: Shape if name == "input" else type(value) for name, value in defaults.items()}
    build.__annotations__ = {**types, "return": SearchSpace}
    build.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=types[name])
            for name, value in defaults.items()
        ]
    )
    return build


def _check(content: Any) -> None:
    """The file's outer shape. Raises ValueError for what is missing, unknown or of another kind."""
    _mapping(content, "a space file", KEYS)
    for key in ("decisions", "nodes"):
        if not content.get(key):
            raise ValueError("it needs `decisions` (name -> options) and `nodes` (a list)")
    _mapping(content["decisions"], "decisions")
    _sequence(content["nodes"], "nodes")
    for name, value in _mapping(content.get("scale", {}), "scale").items():
        if (
            not name.isidentifier()
            or iskeyword(name)
            or name in RESERVED
            or not isinstance(value, int | float | str | bool | list)
        ):
            raise ValueError(f"scale holds arguments with their defaults, not {name!r}: {value!r}")
    shape = content.get("scale", {}).get("input", ALWAYS["input"])
    if len(_sequence(shape, "scale.input")) != 3 or not all(isinstance(side, int) for side in shape):
        raise ValueError(f"scale.input is [channels, height, width], not {shape!r}")
    for name, flag in _mapping(content.get("supernet", {}), "supernet", SUPERNET_KEYS).items():
        if not isinstance(flag, bool):
            raise ValueError(f"supernet.{name} is true or false, not {flag!r}")
    for name, text in _mapping(content.get("known", {}), "known").items():
        if not isinstance(text, str):
            raise ValueError(f"known.{name} is a literal in quotes, not {text!r}")


def _mapping(value: Any, what: str, keys: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must hold keys and values, not {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise ValueError(f"{what}: keys are words, not {key!r}: put it in quotes")
        if keys and key not in keys:
            raise ValueError(f"{what}: " + unknown("key", key, keys))
    return value


def _sequence(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} must be a list, not {value!r}")
    return value


class _Writer:
    """Writes the graph of one space file with a `Builder`."""

    def __init__(self, content: Content, arguments: Content, folder: Path) -> None:
        self.content = content
        self.arguments = arguments
        self.folder = folder
        self.aliases: dict[str, str] = {}
        self.b = Builder(tuple(arguments["input"]))
        self.decisions = {name: self._decision(name, given) for name, given in content["decisions"].items()}

    def space(self) -> SearchSpace:
        self._nodes(self.content["nodes"], "input", {}, dict(self.arguments), prefix="")
        graph = Graph(self.b.nodes, input=self.b.input, aliases=self.aliases)
        supernet = dict(self.content.get("supernet", {}))
        made = SearchSpace(tuple(self.decisions.values()), graph, supernet=supernet)
        known = dict(self.content.get("known", {}))
        for name, text in known.items():
            try:
                made.parse(text)
            except ValueError as error:
                raise ValueError(f"known.{name}: {error}") from error
        return replace(made, known=known)

    def _decision(self, name: str, given: Any) -> Decision:
        what = f"decision {name!r}"
        fields = (
            dict(_mapping(given, what, DECISION_KEYS)) if isinstance(given, Mapping) else {"options": given}
        )
        if isinstance(fields.get("options"), str):
            from nas.search_space.operations import operations

            fields["options"] = operations(fields["options"])
        options = tuple(
            self._option(each, what) for each in _sequence(fields.get("options"), f"{what}: options")
        )
        rows = whole(fields.get("rows", 1), self.arguments, f"{what}: rows")
        keep = whole(fields.get("keep", rows), self.arguments, f"{what}: keep")
        never = tuple(_sequence(fields.get("never", ()), f"{what}: never"))
        for each in never:
            if each not in options:
                raise ValueError(f"{what}: never names " + unknown("option", str(each), map(str, options)))
        return Decision(name, options, rows=rows, keep=keep, never=never)

    def _option(self, given: Any, what: str) -> Option:
        """An option; ``=2 * channels`` is computed, ``blocks.py:Own`` is looked for beside the space file."""
        if isinstance(given, str) and given.startswith("="):
            given = evaluate(given[1:], self.arguments)
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise ValueError(
                f"{what}: an option is a number or a word, not {given!r}; put yes and no in quotes"
            )
        self._located(given)
        return given

    def _located(self, op: Scalar) -> Scalar:
        """The whole path of an operation of one's own, which is also what the option of that name means."""
        file, colon, name = str(op).rpartition(":")
        if not colon or not file.endswith(".py"):
            return op
        found = self.aliases[str(op)] = f"{(self.folder / file).resolve()}:{name}"
        return found

    def _nodes(
        self, entries: Any, last: str, scope: Mapping[str, str], names: Content, *, prefix: str
    ) -> str:
        """Write `entries`, the first of which reads `last`; the name of the last node written."""
        here = dict(scope)
        for place, entry in enumerate(_sequence(entries, "nodes")):
            _mapping(entry, "a node")
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
        _mapping(entry, f"a {kind}", (kind, "name", "as", "nodes"))
        if not entry.get("nodes"):
            raise ValueError(f"a {kind} needs `nodes`, what is written several times")
        name, variable = str(entry.get("name", kind)), str(entry.get("as", "i"))
        hole = self._hole(entry["depth"], names, "depth") if kind == "depth" else None
        options: list[int] = []
        if hole is not None:
            decision = self.decisions[hole.decision]
            what = f"an option of {decision.name!r}, a number of layers,"
            options = [whole(option, {}, what, least=0) for option in decision.legal]
        times = max(options) if hole else whole(entry["repeat"], names, "repeat")
        states: dict[Option, str] = {0: last}
        for i in range(times):
            inner = {**names, variable: i}
            last = self._nodes(entry["nodes"], last, scope, inner, prefix=f"{prefix}{name}.{i}.")
            states[i + 1] = last
        if hole is None:
            return last
        exits = {option: states[option] for option in options}
        return self.b.exits(f"{prefix}{name}", hole.decision, exits, row=hole.row)

    def _node(self, entry: Content, last: str, scope: Mapping[str, str], names: Content, name: str) -> str:
        try:
            return self._written(entry, last, scope, names, name)
        except ValueError as error:
            text = str(error)
            raise ValueError(text if repr(name) in text else f"node {name!r}: {text}") from error

    def _written(self, entry: Content, last: str, scope: Mapping[str, str], names: Content, name: str) -> str:
        if not isinstance(entry.get("op"), str):
            raise ValueError(f"node {name!r} needs an op, a repeat or a depth; it has {sorted(entry)}")
        given = entry.get("inputs", last)
        sources = [given] if isinstance(given, str) else _sequence(given, "inputs")
        for source in map(str, sources):
            if source not in scope and source not in ("input", last):
                raise ValueError(f"node {name!r} reads " + unknown("node", str(source), [*scope, "input"]))
        if not isinstance(entry.get("loose", False), bool):
            raise ValueError(f"loose is true or false, not {entry['loose']!r}")
        if not entry.keys().isdisjoint(("c_in", "c_out")):
            raise ValueError("channels in are those of the input, channels out are `out`")
        attrs = {key: self._value(value, names, key) for key, value in entry.items() if key not in NODE_KEYS}
        op: str = entry["op"]
        return self.b(
            name,
            self._hole(op, names, "op") if op.startswith("$") else str(self._located(op)),
            *(scope.get(source, source) for source in map(str, sources)),
            out=self._number(entry.get("out"), names),
            stride=whole(entry.get("stride", 1), names, "stride"),
            when=self._hole(entry["when"], names, "when") if "when" in entry else None,
            loose=entry.get("loose", False),
            **attrs,
        )

    def _value(self, given: Any, names: Content, key: str) -> Scalar | Hole:
        """An attribute: a hole, an expression after ``=``, or the value itself."""
        if isinstance(given, str) and given.startswith("$"):
            return self._hole(given, names, "attribute")
        if isinstance(given, str) and given.startswith("="):
            given = evaluate(given[1:], names)
        if not isinstance(given, int | float | str | bool):
            raise ValueError(f"the attribute {key} is a number or a word, not {given!r}")
        return given

    def _number(self, given: Any, names: Content) -> int | Hole | None:
        if isinstance(given, str) and given.startswith("$"):
            return self._hole(given, names, "out")
        return None if given is None else whole(given, names, "out")

    def _hole(self, text: Any, names: Content, where: str) -> Hole:
        """A hole, with what may follow it at that place: op, attribute, out, when or depth."""
        found = HOLE.match(text.strip()) if isinstance(text, str) else None
        if not found:
            raise ValueError(f"{text!r} is no hole: write $decision or $decision.row")
        wanted, times = found["option"], found["times"]
        tail = "option" if wanted else "times" if times else "sliced" if found["tail"] else ""
        if tail not in {"when": ("option",), "out": ("", "times"), "attribute": ("", "sliced")}.get(
            where, ("",)
        ):
            forms = {"when": "$decision == option", "out": "$decision, perhaps * channels"}
            forms |= {"attribute": "$decision, perhaps followed by sliced"}
            raise ValueError(f"{where} reads {forms.get(where, '$decision')}, not {text!r}")
        name, row = found["name"], found["row"]
        if row is not None and f"{name}.{row}" in self.decisions:
            name, row = f"{name}.{row}", None
        if name not in self.decisions:
            raise ValueError("a hole asks " + unknown("decision", name, self.decisions))
        options = {str(option): option for option in self.decisions[name].options}
        if wanted is not None and wanted not in options:
            raise ValueError(f"decision {name!r}: " + unknown("option", wanted, options))
        if where == "out" and not all(isinstance(option, int | float) for option in options.values()):
            raise ValueError(f"out needs numbers, and decision {name!r} has {list(options)}")
        return Hole(
            name,
            0 if row is None else whole(row, names, f"the row of {text!r}", least=0),
            None if wanted is None else options[wanted],
            tail == "sliced",
            float(evaluate(times or 1, names)),
        )
