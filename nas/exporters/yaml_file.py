"""yaml: the architecture alone, which every command reads again; no weights."""

from __future__ import annotations

from pathlib import Path

import yaml

from nas.exporters.job import EXPORTERS, ExportError, Job, Written


@EXPORTERS.register("yaml")
def write_yaml(job: Job, *, folder: Path) -> Written:
    """The architecture as YAML: space, literal, digest, and what the network expects; no weights"""
    if job.facts.architecture is None:
        raise ExportError(
            f"format 'yaml' holds a point of a space, and {job.facts.name!r} is none: choose another format"
        )
    path = folder / f"{job.facts.slug}.yaml"
    content = {**job.facts.architecture, **job.facts.metadata()}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
    path.write_text(text, encoding="utf-8")
    return Written((path,), None)
