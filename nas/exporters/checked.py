"""export: write a network in several formats, load every one again and compare, then move the files.

Everything is written and checked in a hidden folder; only when all formats have passed do the files move to
their places, each atomically. A format that fails leaves nothing behind.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nas.exporters.card import model_card
from nas.exporters.job import EXPORTERS, Exported, ExportError, Factory, Facts, Job, Run

TOLERANCE = 1e-4  # of max(1, max |output|), in float32
BATCHES = (1, 5)  # of the random inputs


def export(
    network: nn.Module,
    *,
    formats: Sequence[str],
    out: Path,
    facts: Facts,
    real: Tensor | None = None,
    factory: Factory | None = None,
) -> Exported:
    """Write `network` in `formats` to the folder `out`, with a model card; the caller's module is untouched.

    Args:
        network: maps (batch, channels, height, width) to one tensor. It is exported as in evaluation.
        formats: names in `EXPORTERS`.
        out: made if it is missing.
        facts: what the artefacts carry.
        real: normalised inputs (n, channels, height, width) to compare on, beside random ones.
        factory: the top-level function and the arguments that built a module that is not a `Network`.

    Raises ValueError for an unknown format (nearest match), no format, or `facts` and `real` that do not fit
    the network, before anything is written; ExportError (a ValueError) for a format that cannot be written or
    computes something else.
    """
    exporters = {name: EXPORTERS[name] for name in dict.fromkeys(formats)}
    if not exporters:
        raise ValueError(f"no format to export to: name some of {', '.join(EXPORTERS)}")
    job, inputs, expected = _prepare(network, facts=facts, real=real, factory=factory)
    out.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".export-", dir=out))
    try:
        files: dict[str, list[Path]] = {}
        differences: dict[str, float] = {}
        for name, exporter in exporters.items():
            folder = staging / name
            folder.mkdir()
            try:
                written = exporter(job, folder=folder)
                if written.run is not None:
                    differences[name] = _compare(name, written.run, inputs=inputs, expected=expected)
            except ExportError:
                raise
            except Exception as error:
                reason = (str(error).strip() or "no message").splitlines()[0]
                raise ExportError(f"format {name!r} failed: {type(error).__name__}: {reason}") from error
            files[name] = list(written.files)
        card = staging / "README.md"
        names = {name: [path.name for path in paths] for name, paths in files.items()}
        card.write_text(
            model_card(facts, files=names, max_abs_diff=differences, real=0 if real is None else len(real)),
            encoding="utf-8",
        )
        placed = {name: _place_all(paths, out) for name, paths in files.items()}
        return Exported(placed, differences, _place(card, out))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _place_all(paths: Sequence[Path], out: Path) -> Path:
    """Move files to their folder, the main one (the first) last; gives its place."""
    return [_place(path, out) for path in reversed(paths)][-1]


def _place(path: Path, out: Path) -> Path:
    os.replace(path, out / path.name)
    return out / path.name


def _prepare(
    network: nn.Module, *, facts: Facts, real: Tensor | None, factory: Factory | None
) -> tuple[Job, list[Tensor], list[Tensor]]:
    """The job, the inputs to compare on and what the network gives for them."""
    clone = copy.deepcopy(network).to("cpu", torch.float32)
    clone = clone.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(n, *facts.input, generator=generator) for n in BATCHES]
    if real is not None and len(real):
        if tuple(real.shape[1:]) != facts.input:
            raise ValueError(
                f"real inputs are (n, channels, height, width), each {facts.input}, not {tuple(real.shape)}"
            )
        inputs.append(real.detach().to("cpu", torch.float32).contiguous())
    with torch.inference_mode():
        expected = [clone(x) for x in inputs]
    if not isinstance(expected[0], Tensor):
        kind = type(expected[0]).__name__
        raise ValueError(f"a network to export gives one tensor, not {kind}: wrap it in a module that does")
    if not all(output.isfinite().all() for output in expected):
        raise ExportError("the network's outputs are not finite: no file can be compared with it")
    if facts.classes and expected[0].shape[-1] != len(facts.classes):
        raise ValueError(f"{len(facts.classes)} class names for a network of {expected[0].shape[-1]} outputs")
    for key in ("mean", "std"):
        if len(getattr(facts, key)) != facts.input[0]:
            raise ValueError(
                f"{key!r} has one number a channel ({facts.input[0]}), not {getattr(facts, key)}"
            )
    example = torch.randn(2, *facts.input, generator=generator)
    return Job(clone, facts, example, factory), inputs, expected


def _compare(name: str, run: Run, *, inputs: list[Tensor], expected: list[Tensor]) -> float:
    """The largest absolute difference. Raises ExportError if it is above the tolerance, or not a number."""
    largest = 0.0
    for ours, theirs in zip(expected, run(inputs), strict=True):
        if ours.shape != theirs.shape:
            raise ExportError(
                f"format {name!r} gives {tuple(theirs.shape)} where the network gives {tuple(ours.shape)}"
            )
        difference = (ours - theirs).abs().max().item()
        allowed = TOLERANCE * max(1.0, ours.abs().max().item())
        if not difference <= allowed:
            raise ExportError(
                f"format {name!r} does not compute what the network computes: the largest difference is "
                f"{difference:.3g}, allowed are {allowed:.3g}; nothing was written"
            )
        largest = max(largest, difference)
    return largest
