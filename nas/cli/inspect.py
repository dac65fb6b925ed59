"""nas inspect"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nas.cli import options as o
from nas.cli.errors import say

Kinds = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="of cam,gradcam,saliency,guided,deconvnet,filters,activations,receptive_field,landscape "
        "(default: gradcam,saliency,receptive_field)",
    ),
]
Layer = Annotated[str | None, typer.Option(help="of the network, as blocks.2 (default: each kind's own)")]
Images = Annotated[int, typer.Option(min=1, help="test images to show, in turn of each class")]
Out = Annotated[Path | None, typer.Option(help="folder to write to (default: inspection/ in the run)")]


def command(
    what: o.What,
    kind: Kinds = None,
    data: o.DataName = None,
    layer: Layer = None,
    images: Images = 8,
    out: Out = None,
    config: o.Config = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.inspection import INSPECTIONS, inspect_subject
    from nas.subject import identify
    from nas.train import available

    kinds = None if kind is None else [part.strip() for part in kind.split(",") if part.strip()]
    root = data_dir or (Path(os.environ["NAS_DATA"]) if os.environ.get("NAS_DATA") else None)
    inspected = inspect_subject(
        identify(what),
        kinds,
        out=out,
        data=data,
        layer=layer,
        images=images,
        settings=o.sections(config, set_, *(kinds or INSPECTIONS)),
        device=available(device or "auto"),
        seed=seed or 0,
        root=root,
        download=download,
        seen=lambda kind: None if quiet else say(f"  {kind}"),
    )
    if not inspected.trained and not quiet:
        say("initial weights, not trained: the pictures show the start, not what was learnt")
    lines = "\n".join(str(path) for paths in inspected.files.values() for path in paths)
    o.answer(inspected.to_dict(), lines, as_json=json)
