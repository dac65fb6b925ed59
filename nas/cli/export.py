"""nas export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nas.cli import options as o
from nas.cli.cost import network_scale
from nas.cli.errors import say


def command(
    what: o.What,
    format: Annotated[
        str | None, typer.Option("--format", help="of yaml,python,onnx,torch (default: all there are)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder to write to (default: export/ in the run)")] = None,
    input: o.Input = None,
    classes: o.Classes = None,
    config: o.Config = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    data_dir: o.DataDir = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.artefacts import export_subject
    from nas.subject import identify

    subject = identify(what)
    every = ["yaml", "python", "onnx", "torch"] if subject.architecture else ["python", "onnx", "torch"]
    formats = every if format is None else [part.strip() for part in format.split(",") if part.strip()]
    folder = out or (subject.run / "export" if subject.run else Path("export") / subject.name)
    scale = network_scale(config, set_, input, classes)
    exported, trained = export_subject(
        subject, formats=formats, out=folder, scale=scale, seed=seed or 0, root=data_dir
    )
    if not quiet:
        say(
            "trained weights"
            if trained
            else "initial weights, not trained (a run that was trained has others)"
        )
        for name, path in exported.files.items():
            difference = exported.max_abs_diff.get(name)
            checked = "" if difference is None else f"loaded again, largest difference {difference:.3g}"
            say(f"  {name:<7} {path}  {checked}")
    document: dict[str, Any] = {
        "files": {name: str(path) for name, path in exported.files.items()},
        "max_abs_diff": exported.max_abs_diff,
    }
    o.answer(document, str(folder), as_json=json)
