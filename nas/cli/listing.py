"""nas list"""

from __future__ import annotations

import ast
import json as encoder
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli import options as o
from nas.cli.stand_in import stand_in

Row = dict[str, Any]


@dataclass(frozen=True)
class Imported:
    """What a package registers; PyTorch, of which the list tells nothing, is left out."""

    package: str
    registry: str

    def __call__(self) -> list[Row]:
        with stand_in("torch"):
            registry = getattr(import_module(self.package), self.registry)
            return [{"name": each, "summary": registry.summary(each)} for each in sorted(registry)]


@dataclass(frozen=True)
class Read(Imported):
    """The same, where all of it is registered by decorators in the package's own files: these are read, as
    importing them takes up to a second without PyTorch, too.
    """

    def __call__(self) -> list[Row]:
        spec = find_spec(self.package)
        assert spec is not None
        assert spec.origin is not None
        files = sorted(Path(spec.origin).parent.glob("*.py"))
        found = [row for path in files for row in registered(path.read_text(encoding="utf-8"), self.registry)]
        return sorted(found, key=lambda row: str(row["name"]))


def registered(text: str, registry: str) -> Iterator[Row]:
    """Name and summary of what a module's text registers by a decorator."""
    decorator = f"{registry}.register"
    for node in ast.parse(text).body if f"@{decorator}(" in text else ():
        for call in getattr(node, "decorator_list", ()):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == decorator:
                doc = ast.get_docstring(node) or ""  # type: ignore[arg-type]
                yield {"name": ast.literal_eval(call.args[0]), "summary": doc.partition("\n")[0]}


def _primitives() -> list[Row]:
    with stand_in("torch"):
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

    return [
        {
            "name": name,
            "family": entry.get("family") or entry["space"].partition("?")[0].partition(":")[0],
            **{key: entry[key] for key in ("params", "macs", "input", "classes")},
        }
        for name, entry in published().items()
    ]


def _recipes() -> list[Row]:
    from nas.recipe import recipes

    return [{"name": name, "summary": summary} for name, summary in recipes().items()]


def _runs() -> list[Row]:
    from nas.documents import read_yaml
    from nas.run import CONFIG, events, of_one

    rows = []
    for path in sorted(Path("runs").glob(f"*/{CONFIG}")):
        try:
            config, kinds = read_yaml(path), [event["kind"] for event in events(path.parent)]
            one = of_one(config)
            what = one.get("strategy", config.get("what", {})).get("name", "")
            what = what or f"{len(config.get('networks', ()))} networks"
            steps = sum(kind in ("epoch", "trial", "network", "search") for kind in kinds)
            state = "done" if "done" in kinds else f"unfinished, {steps} steps"
            summary = f"{config['command']} {what} on {one['data']['name']}: {state}"
        except (ValueError, KeyError, AttributeError) as error:
            summary = f"cannot be read: {error}"
        rows.append({"name": str(path.parent), "summary": summary})
    return rows


KINDS: dict[str, Callable[[], list[Row]]] = {
    "spaces": Read("nas.search_space", "SPACES"),
    "primitives": _primitives,
    "operations": _operations,
    "strategies": Read("nas.strategies", "STRATEGIES"),
    "evaluators": Read("nas.evaluators", "EVALUATORS"),
    "proxies": Imported("nas.evaluators", "PROXIES"),
    "baselines": _baselines,
    "inspections": Read("nas.inspection", "INSPECTIONS"),
    "prunings": Imported("nas.pruning", "PRUNINGS"),
    "data": Read("nas.data", "DATA"),
    "recipes": _recipes,
    "runs": _runs,
}


UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}


def command(
    kind: Annotated[str, typer.Argument(help=" | ".join(KINDS), metavar="KIND")],
    family: Annotated[str | None, typer.Option(help="baselines: of this family")] = None,
    max_params: Annotated[str | None, typer.Option(help="baselines: parameters, at most, as in 5M")] = None,
    max_macs: Annotated[str | None, typer.Option(help="baselines: multiply-adds, at most")] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.registry import unknown

    if kind not in KINDS:
        raise ValueError(unknown("list", kind, KINDS))
    rows = KINDS[kind]()
    if kind == "baselines":
        rows = _chosen(rows, family, {"params": max_params, "macs": max_macs})
    elif family or max_params or max_macs:
        raise ValueError(f"--family, --max-params and --max-macs choose among baselines, not {kind}")
    if json:
        print(encoder.dumps(rows))
        return
    table = [[row["name"], row["summary"]] if "summary" in row else _figures(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        padded = (
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(cells, widths, strict=True)
        )
        print("  ".join(padded).rstrip())


def _chosen(rows: list[Row], family: str | None, most: dict[str, str | None]) -> list[Row]:
    """The baselines of a family that cost at most so much, in the order of the list."""
    from nas.registry import unknown

    families = {row["family"] for row in rows}
    if family is not None and family not in families:
        raise ValueError(unknown("family", family, families))
    limits = {key: _amount(text) for key, text in most.items() if text is not None}
    return [
        row
        for row in rows
        if family in (None, row["family"]) and all(row[key] <= limit for key, limit in limits.items())
    ]


def _amount(text: str) -> float:
    """``5M``, ``0.6G``, ``3e6`` as a number. Raises ValueError for anything else."""
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].lower() in UNITS else (text, "")
    try:
        return float(number) * UNITS[unit]
    except ValueError as error:
        raise ValueError(f"{text!r} is no number with k, M or G behind it, as in 5M") from error


def _figures(row: Row) -> list[str]:
    size = "x".join(str(side) for side in row["input"])
    classes = f"{row['classes']} classes" if row["classes"] else ""
    costs = f"{row['params']:,} parameters", f"{row['macs']:,} multiply-adds"
    return [row["name"], row["family"], *costs, size, classes]
