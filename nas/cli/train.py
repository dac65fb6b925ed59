"""nas train"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options as o
from nas.cli.errors import at_work, say

if TYPE_CHECKING:
    from nas.subject import Subject


Inherit = Annotated[
    bool, typer.Option("--inherit", help="begin with the weights that the search's supernet leaves it")
]


def command(
    what: o.What,
    inherit: Inherit = False,
    data: o.DataName = None,
    recipe: o.RecipeName = None,
    config: o.Config = None,
    set_: o.Set = None,
    seed: o.Seed = None,
    run: o.RunDir = None,
    device: o.Device = None,
    data_dir: o.DataDir = None,
    download: o.Download = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.config import merge, resolve_training
    from nas.subject import identify

    subject = identify(what)
    given = o.layers(config, set_, data=data, data_dir=data_dir, recipe=recipe, seed=seed, device=device)
    if inherit:
        given.append({"inherits": str(subject.run or what)})
    layers = _below(subject, data, recipe)
    resolved = resolve_training([*layers, *given], subject.to_config(), scale=subject.scale)
    from nas.loop import begin
    from nas.train import available
    from nas.training import load_data

    resolved["device"] = available(resolved["device"])
    examples = load_data(resolved, download=download)
    folder = run or _folder(subject)
    if "inherits" in resolved:
        from nas.inherit import prepare

        asked = merge(*given).get("network", {})
        resolved = prepare(subject, resolved, folder, data=examples, asked=asked)
    with begin(resolved, folder, data=examples) as opened:
        finish(opened, examples, quiet=quiet, as_json=json)


def _below(subject: Subject, data: str | None, recipe: str | None) -> list[dict[str, Any]]:
    """The layers under what the user sets: what the architecture chose of the recipe, and its run's settings.

    The settings of a training have these choices in them, or what was set by hand in their place.
    """
    from nas.search_space.joint import applied

    chosen = subject.architecture.recipe if subject.architecture else {}
    train, augment = applied(chosen, train={}, augment={})
    own = {"train": train, "data": {"augment": augment}} if chosen else {}
    return [own, _of_run(subject.run, data, recipe, chosen)] if subject.run else [own]


def _of_run(folder: Path, data: str | None, recipe: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What a run decided about data and training, for a network that comes from it."""
    from nas.documents import read_yaml
    from nas.search_space.joint import with_choices

    config = read_yaml(folder / "config.yaml")
    if config["command"] == "search":
        config = with_choices(config, chosen)
    keep: tuple[str, ...] = ("seed", "device", "deterministic", "threads")
    keep += () if data else ("data",)
    keep += () if data or recipe else ("recipe", "train")
    return {key: config[key] for key in keep if key in config}


def _folder(subject: Any) -> Path:
    from nas.run import new_folder

    if subject.run is None:
        return new_folder(f"train-{subject.name}")
    number = 0
    while (subject.run / "train" / str(number)).exists():
        number += 1
    return Path(subject.run / "train" / str(number))


def finish(run: Any, examples: Any, *, quiet: bool, as_json: bool) -> None:
    """Train to the end, showing it; then the result."""
    from nas.cli.progress import Show
    from nas.training import proceed_training

    at_work(run.folder)
    config = run.config
    with Show(quiet=quiet) as show:
        show.console.print(
            f"training {config['what']['name']} on {config['data']['name']}, recipe {config['recipe']}, "
            f"{config['device']} with {config['threads']} threads\nrun folder: {run.folder}\n"
        )
        past = sum(event["kind"] == "epoch" for event in run.events())
        epochs = None if config["train"].get("seconds") else config["train"]["epochs"]
        show.stage(f"train {config['what']['name']}", epochs, past)
        result = proceed_training(run, data=examples, tick=show.tick, seen=show.event)
    if not quiet:
        say(f"next: nas evaluate {run.folder} | nas export {run.folder}")
    line = (
        f"test accuracy {100 * result['accuracy']:.2f} % on {result['examples']:,} images, "
        f"loss {result['loss']:.4f}, {result['params']:,} parameters, {result['macs']:,} multiply-adds"
    )
    o.answer(result, line, as_json=as_json)
