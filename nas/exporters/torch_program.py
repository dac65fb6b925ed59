"""torch: a program of torch.export (.pt2), which runs without the code that made it, for any batch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nas.exporters.job import EXPORTERS, Job, Written

FACTS = "facts.json"  # the extra file inside the archive


@EXPORTERS.register("torch")
def write_torch(job: Job, *, folder: Path) -> Written:
    """A program of torch.export (.pt2) with a free batch size; its facts are in the extra file facts.json"""
    path = folder / f"{job.facts.slug}.pt2"
    metadata = json.dumps(job.facts.metadata())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            job.network, (job.example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # where the code lay on this machine
        torch.export.save(program, path, extra_files={FACTS: metadata})

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        found = {FACTS: ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.export.load(path, extra_files=found).module()
        if found[FACTS] != metadata:
            raise ValueError(f"the archive lost its {FACTS}")
        with torch.no_grad():
            return [loaded(x) for x in inputs]

    return Written((path,), run)
