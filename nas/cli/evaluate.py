"""nas evaluate"""

from __future__ import annotations

from typing import Annotated

import typer

from nas.cli import options as o


def command(
    run: o.RunFolder,
    split: Annotated[str, typer.Option(help="test | valid")] = "test",
    device: o.Device = None,
    data_dir: o.DataDir = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.documents import read_yaml
    from nas.registry import unknown
    from nas.subject import trained

    if split not in ("test", "valid"):
        raise ValueError(unknown("split", split, ["test", "valid"]))
    folder = trained(run)
    if folder is None:
        raise ValueError(f"{run} has no trained network: `nas train {run}` trains its best one")
    from nas.train import available
    from nas.training import evaluate, load_data

    config = read_yaml(folder / "config.yaml")
    where = available(device or config["device"])
    result = evaluate(folder, data=load_data(config, root=data_dir), split=split, device=where)
    measured = f"{split} accuracy {100 * result['accuracy']:.2f} % on {result['examples']:,} images"
    line = f"{measured}, loss {result['loss']:.4f}"
    o.answer(result, line, as_json=json)
