"""The options that several sub-commands share, and how they become layers of configuration."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

What = Annotated[
    str,
    typer.Argument(
        help="run folder | architecture.yaml | SPACE:LITERAL | SPACE:KNOWN | baseline", metavar="WHAT"
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="folder of a run", metavar="RUN")]
Config = Annotated[
    list[Path] | None, typer.Option("--config", help="YAML file of settings; repeatable, later wins")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="one setting, as in train.epochs=10; repeatable")
]
Seed = Annotated[int | None, typer.Option(help="of everything random (default 0)")]
RunDir = Annotated[Path | None, typer.Option("--run", help="folder of the new run")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps")]
DataName = Annotated[str | None, typer.Option("--data", help="name | folder:DIR | npz:FILE")]
DataDir = Annotated[Path | None, typer.Option(help="folder of the data files (default: NAS_DATA, or ./data)")]
Download = Annotated[bool, typer.Option("--download", help="fetch data that are missing")]
RecipeName = Annotated[str | None, typer.Option("--recipe", help="training recipe, by name or YAML file")]
Budget = Annotated[str | None, typer.Option(help="50epochs, 200trials, 3h, 8gpuh, or several with commas")]
Controls = Annotated[int | None, typer.Option(min=0, help="networks a group trained for comparison; 0: none")]
Objectives = Annotated[
    list[str] | None,
    typer.Option(
        "--objective", help="what is improved: valid_accuracy (default), params:min ...; repeatable"
    ),
]
ExecutorName = Annotated[str | None, typer.Option("--executor", help="where work is done: local, ray")]
Workers = Annotated[int | None, typer.Option(min=1, help="trials, or trainings, at a time")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress, no tables")]
Json = Annotated[bool, typer.Option("--json", help="the result as one JSON document on stdout")]
Debug = Annotated[bool, typer.Option("--debug", help="show where an error comes from")]
Input = Annotated[str | None, typer.Option("--input", help="shape of one image: C,H,W")]
Classes = Annotated[int | None, typer.Option("--classes", min=1, help="outputs of the classifier")]


def layers(
    config: list[Path] | None,
    sets: list[str] | None,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    **flags: Any,
) -> list[dict[str, Any]]:
    """Files, then flags, then --set, as layers of configuration; later wins.

    The settings are one layer, so that their order among each other decides only between equal keys.
    """
    from nas.config import merge, override
    from nas.documents import read_yaml

    section = {} if data is None else {"name": data}
    root = data_dir or os.environ.get("NAS_DATA")
    if root:
        section["root"] = str(Path(root).absolute())
    flags = {key: value for key, value in flags.items() if value is not None}
    files = [read_yaml(path) for path in config or []]
    return [*files, {"data": section}, flags, merge(*(override(text) for text in sets or []))]


def executor(name: str | None, workers: int | None) -> dict[str, Any] | None:
    """The section ``executor`` as the flags have it."""
    given = {"name": name, "workers": workers}
    return {key: value for key, value in given.items() if value is not None} or None


def sections(config: list[Path] | None, sets: list[str] | None, *names: str) -> dict[str, dict[str, Any]]:
    """The named sections of files and --set, each perhaps empty. Raises ValueError for any other section."""
    from nas.config import merge, override
    from nas.documents import read_yaml
    from nas.registry import unknown

    given = merge(*(read_yaml(path) for path in config or []), *(override(text) for text in sets or []))
    for key, section in given.items():
        if key not in names:
            some = f"section {names[0]} applies" if len(names) == 1 else f"sections {', '.join(names)} apply"
            raise ValueError(f"here only the {some}; " + unknown("key", key, names))
        if not isinstance(section, dict):
            raise ValueError(f"{key} must hold keys and values, not {section!r}")
    return {name: given.get(name, {}) for name in names}


def shape(text: str | None) -> tuple[int, int, int] | None:
    """``3,32,32`` as a tuple. Raises ValueError for anything else."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) for part in parts):
        raise ValueError(f"--input takes channels,height,width, as in 3,32,32, not {text!r}")
    c, h, w = (int(part) for part in parts)
    return c, h, w


def answer(document: Any, line: str, *, as_json: bool) -> None:
    """The result, on stdout: a line, or one JSON document."""
    print(json.dumps(document) if as_json else line, file=sys.stdout, flush=True)
