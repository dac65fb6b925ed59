"""nas cost"""

from __future__ import annotations

from typing import Any

from nas.cli import options as o


def command(
    what: o.What,
    input: o.Input = None,
    classes: o.Classes = None,
    config: o.Config = None,
    set_: o.Set = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    from nas.subject import identify

    scale = network_scale(config, set_, input, classes)
    subject = identify(what)
    found, shape, outputs = subject.cost(**scale)
    document = {"name": subject.name, **found.to_dict(), "input": list(shape), "classes": outputs}
    attention = f", {found.macs_attention:,} in attention" if found.macs_attention else ""
    size = "x".join(str(side) for side in shape)
    figures = f"{found.params:,} parameters, {found.macs:,} multiply-adds{attention}"
    line = f"{subject.name}: {figures}, {size} to {outputs} classes"
    o.answer(document, line, as_json=json)


def network_scale(config: Any, sets: Any, input: str | None, classes: int | None) -> dict[str, Any]:
    """The section ``network`` of files and --set, and the shape and classes of the options.

    Here a key alone means the network's: ``--set width=0.75`` is ``--set network.width=0.75``.
    """
    sets = [text if text.startswith("network.") else f"network.{text}" for text in sets or []]
    scale = dict(o.sections(config, sets, "network")["network"])
    if input is not None:
        scale["input"] = o.shape(input)
    if classes is not None:
        scale["classes"] = classes
    return scale
