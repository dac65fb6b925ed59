"""Trial, Evaluator, Executor: what is evaluated, by whom, and where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nas.registry import Registry
from nas.search_space import Architecture

Result = Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """One evaluation to make.

    `epochs`: how long to train, None for the evaluator's own default. `hurdles`: validation accuracies by
    epoch, below which the trial is hopeless and stops (`nas.execution.early_stop`); empty: it never does, and
    nothing is measured on the way. `checkpoint`: a path or address at which the evaluation may leave what
    another attempt at the same trial goes on from; it removes it when it has its result.
    """

    number: int
    architecture: Architecture
    epochs: int | None = None
    hurdles: tuple[float, ...] = ()
    checkpoint: str | None = None


class Evaluator(Protocol):
    """Gives an architecture's result. Picklable; the same trial and seed give the same result."""

    def __call__(self, trial: Trial, *, seed: int) -> Result: ...


class Executor(ABC):
    """Evaluates trials, somewhere. A failing evaluation is a result (an exception), not a crash."""

    @abstractmethod
    def submit(self, trial: Trial) -> None:
        """Start, or queue, the evaluation."""

    @abstractmethod
    def completed(self) -> Iterator[tuple[Trial, Result | Exception]]:
        """The submitted trials as they finish; ends when none is left."""

    def halt(self) -> None:
        """Begin nothing more: `completed` gives what is running, and forgets what waits."""
        return

    @abstractmethod
    def close(self) -> None:
        """Stop what is running."""

    #: Is told, in a sentence, what happens to the workers.
    note: Callable[[str], None] = staticmethod(lambda text: None)
    #: Tells whether nothing more is to begin.
    stopping: Callable[[], bool] = staticmethod(lambda: False)
    #: Whether a trial that is late may be evaluated twice at a time.
    copies = True
    #: A folder for what they print, if it does not go where this process prints.
    logs: Path | None = None

    def facts(self) -> Mapping[str, Any]:
        """What its workers do and did; empty where there is nothing to tell."""
        return {}


def devices(config: Mapping[str, Any], supernet: bool) -> float:
    """The devices that a search keeps busy, by its configuration; 1 where it does not count them.

    ``cuda`` means all of a machine's, another name one; a cluster's workers have what they ask for. One
    process of this machine trains a `supernet`.
    """
    import torch

    section, device = config["executor"], str(config["device"])
    workers = section.get("workers", 1)
    if section["name"] == "ray":
        gpus = section["gpus"]
        asked = workers * (float(device.startswith("cuda")) if gpus is None else gpus)
        return float(asked or 1)
    return max(1, min(1 if supernet else workers, torch.cuda.device_count())) if device == "cuda" else 1


EXECUTORS: Registry[Callable[..., Executor]] = Registry("executor")
