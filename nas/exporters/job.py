"""What is exported, what an artefact carries beside the network, and the registry of formats."""

from __future__ import annotations

import json
import keyword
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from nas.registry import Registry
from nas.run import RunFailed

Factory = tuple[Callable[..., nn.Module], Mapping[str, Any]]  # a top-level function, and its arguments


class ExportError(RunFailed):
    """A format that cannot be written, or that does not compute what the network computes."""


@dataclass(frozen=True)
class Facts:
    """What every artefact carries beside the network.

    Attributes:
        name: of the network, as a person reads it.
        input: (channels, height, width) of one image.
        mean, std: of each channel; what a raw image is normalised with.
        classes: their names, in the order of the outputs.
        architecture: what `Architecture.to_dict` gives; None for a network that is no point of a space.
        card: further facts for the model card: data, recipe, accuracy, cost, seed, origin of the weights.
    """

    name: str
    input: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    architecture: Mapping[str, str] | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name as a file name that Python can import."""
        slug = re.sub(r"\W+", "_", self.name, flags=re.ASCII).strip("_")[:60].rstrip("_") or "model"
        taken = keyword.iskeyword(slug) or slug in sys.stdlib_module_names or slug == "torch"
        return f"network_{slug}" if taken or slug[0].isdigit() else slug

    @property
    def numbered(self) -> bool:
        """Whether the names of the classes are their numbers."""
        return self.classes == tuple(str(i) for i in range(len(self.classes)))

    def metadata(self) -> dict[str, Any]:
        """Name, input size, normalisation and class names, ready for JSON."""
        return {
            "name": self.name,
            "input": list(self.input),
            "mean": list(self.mean),
            "std": list(self.std),
            "classes": list(self.classes),
        }

    def texts(self) -> dict[str, str]:
        """`metadata` as pairs of texts: what is not a text is JSON."""
        return {
            key: value if isinstance(value, str) else json.dumps(value)
            for key, value in self.metadata().items()
        }


@dataclass(frozen=True)
class Job:
    """One network to export: a copy on the CPU in float32 and evaluation mode.

    `example` (2, channels, height, width) is a normalised input for formats that trace.
    """

    network: nn.Module
    facts: Facts
    example: Tensor
    factory: Factory | None = None


Run = Callable[[Sequence[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Written:
    """What a format wrote: its files, the main one first, and how to run what is loaded from them.

    `run` maps inputs (batch, channels, height, width) to outputs; None for a format that holds no weights.
    """

    files: tuple[Path, ...]
    run: Run | None


class Exporter(Protocol):
    """A format: writes files named after ``job.facts.slug`` into an empty folder."""

    def __call__(self, job: Job, *, folder: Path) -> Written: ...


@dataclass(frozen=True)
class Exported:
    """The files by format, the largest absolute difference by format (none for yaml), and the model card."""

    files: dict[str, Path]
    max_abs_diff: dict[str, float]
    card: Path


EXPORTERS: Registry[Exporter] = Registry("export format")
