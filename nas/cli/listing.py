"""nas list"""

from __future__ import annotations

import json as encoder
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli import options as o

Row = dict[str, Any]


def _registry(module: str, name: str) -> Callable[[], list[Row]]:
    def rows() -> list[Row]:
        import importlib

        registry = getattr(importlib.import_module(module), name)
        return [{"name": each, "summary": registry.summary(each)} for each in registry]

    return rows


def _primitives() -> list[Row]:
    from nas.primitives import PRIMITIVES

    return [
        {
            "name": name,
            "summary": PRIMITIVES.summary(name),
            "kind": primitive.kind,
            "strides": list(primitive.strides),
            "attributes": {key: list(values) for key, values in primitive.attributes.items()},
        }
        for name, primitive in PRIMITIVES.items()
    ]


def _operations() -> list[Row]:
    from nas.search_space import OPERATIONS

    return [{"name": name, "summary": ", ".join(names)} for name, names in OPERATIONS.items()]


def _baselines() -> list[Row]:
    from nas.hand_designed import published

    keys = ("family", "params", "macs", "input", "classes")
    return [{"name": name, **{key: entry[key] for key in keys}} for name, entry in published().items()]


def _recipes() -> list[Row]:
    from nas.config import recipes

    return [{"name": name, "summary": summary} for name, summary in recipes().items()]


def _runs() -> list[Row]:
    from nas.run import CONFIG, events, read_yaml

    rows = []
    for path in sorted(Path("runs").glob(f"*/{CONFIG}")):
        config, kinds = read_yaml(path), [event["kind"] for event in events(path.parent)]
        what = config.get("strategy", config.get("what", {})).get("name", "")
        state = (
            "done" if "done" in kinds else f"unfinished, {sum(k in ('epoch', 'trial') for k in kinds)} steps"
        )
        rows.append(
            {
                "name": str(path.parent),
                "summary": f"{config['command']} {what} on {config['data']['name']}: {state}",
            }
        )
    return rows


KINDS: dict[str, Callable[[], list[Row]]] = {
    "spaces": _registry("nas.search_space", "SPACES"),
    "primitives": _primitives,
    "operations": _operations,
    "strategies": _registry("nas.strategies", "STRATEGIES"),
    "evaluators": _registry("nas.evaluators", "EVALUATORS"),
    "baselines": _baselines,
    "data": _registry("nas.data", "DATA"),
    "recipes": _recipes,
    "runs": _runs,
}


def command(
    kind: Annotated[str, typer.Argument(help=" | ".join(KINDS), metavar="KIND")],
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.registry import unknown

    if kind not in KINDS:
        raise ValueError(unknown("list", kind, KINDS))
    rows = KINDS[kind]()
    if json:
        print(encoder.dumps(rows))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:<{width}}  {row.get('summary') or _figures(row)}")


def _figures(row: Row) -> str:
    size = "x".join(str(side) for side in row["input"])
    return (
        f"{row['params']:>12,} parameters {row['macs']:>15,} multiply-adds  {size}, {row['classes']} classes"
    )
