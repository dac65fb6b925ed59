"""The model card: README.md beside the files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nas.exporters.job import Facts

LOADING = {
    "python": "from {stem} import load\n\nnetwork = load()  # reads {second}\nlogits = network(images)",
    "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{file}")\n'
    'logits = session.run(["logits"], {{"input": images}})[0]  # images: a NumPy array',
    "torch": 'import torch\n\nnetwork = torch.export.load("{file}").module()\nlogits = network(images)',
    "yaml": "nas train {file}",
}


def model_card(
    facts: Facts, *, files: Mapping[str, Sequence[str]], max_abs_diff: Mapping[str, float], real: int
) -> str:
    """The card as Markdown.

    Args:
        facts: what the artefacts carry.
        files: format -> file names, the main one first.
        max_abs_diff: format -> the largest absolute difference.
        real: the number of real inputs that the files were compared on.
    """
    size = " x ".join(str(number) for number in facts.input)
    parts = [
        f"# {facts.name.splitlines()[0]}",
        f"An image classifier: normalised images (batch, {', '.join(map(str, facts.input))}) in float32 to "
        f"logits (batch, {len(facts.classes) or 'outputs'}).",
        "## Input",
        f"- {size} (channels x height x width), values in 0..1, then `(image - mean) / std` for each channel"
        f"\n- mean: {list(facts.mean)}\n- std: {list(facts.std)}",
        "## Classes",
        _classes(facts),
        "## Files",
        *(_section(name, names) for name, names in files.items()),
    ]
    if facts.architecture:
        name = f"{facts.architecture['space']}:{facts.architecture['literal']}"
        parts += ["## Architecture", f"```\n{name}\n```", f"Digest {facts.architecture['digest']}"]
    if facts.card:
        parts += ["## Facts", _table(facts.card)]
    if max_abs_diff:
        parts += [
            "## Checked",
            "Each file with weights was loaded again and compared with the network on random inputs, at "
            f"batches of 1 and 5{f', and on {real} real inputs' if real else ''}. "
            "The largest absolute differences of the logits:",
            _table({name: f"{difference:.2e}" for name, difference in max_abs_diff.items()}),
        ]
    return "\n\n".join(parts) + "\n"


def _classes(facts: Facts) -> str:
    if not facts.classes:
        return "The outputs have no names."
    if facts.numbered:
        return f"Numbers, 0 to {len(facts.classes) - 1}."
    return ", ".join(f"{i} {name}" for i, name in enumerate(facts.classes))


def _section(name: str, names: Sequence[str]) -> str:
    listed = " and ".join(f"`{file}`" for file in names)
    if name not in LOADING:
        return f"**{name}**: {listed}"
    code = LOADING[name].format(file=names[0], stem=names[0].rpartition(".")[0], second=names[-1])
    language = "sh" if code.startswith("nas ") else "python"
    return f"**{name}**: {listed}\n\n```{language}\n{code}\n```"


def _table(facts: Mapping[str, Any]) -> str:
    rows = [f"| {_cell(str(key))} | {_cell(_shown(value))} |" for key, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float):
        return str(value)
    return json.dumps(value, default=str, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
