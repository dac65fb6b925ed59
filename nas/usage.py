"""Usage: what training a supernet costs, kept beside the ledger, which is the same for equal searches."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from nas.run import replace

USAGE = "usage.json"


class Usage:
    """Counts and times steps of training, over all processes that worked on a run.

    A step is timed from the end of the one before it; the first of an epoch is not, and nothing is where an
    epoch trains nothing. Memory is the peak of what this process held in main memory, the interpreter and
    the data included, or on CUDA of what was allocated on the device.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.path, self.device = folder / USAGE, device
        self.steps, self.seconds, self.peak = 0, 0.0, 0
        if before := usage(folder):
            self.steps, self.peak = before["steps"], before["peak_memory"]
            self.seconds = before.get("step_seconds", 0.0) * before["steps"]
        self._times: list[float] = []

    def tick(self) -> None:
        """A step has ended."""
        self._times.append(time.perf_counter())

    def epoch(self, *, trained: bool) -> None:
        """An epoch has ended, which trained or only looked."""
        if trained and len(self._times) > 1:
            self.steps += len(self._times) - 1
            self.seconds += self._times[-1] - self._times[0]
        self._times = []
        self.peak = max(self.peak, peak_memory(self.device))
        timed = {"step_seconds": self.seconds / self.steps} if self.steps else {}
        told = {"steps": self.steps, **timed, "peak_memory": self.peak}
        replace(self.path, json.dumps(told) + "\n")


def usage(folder: Path) -> dict[str, Any]:
    """Timed steps, seconds a step (if any) and peak memory in bytes; empty if nothing was measured."""
    path = folder / USAGE
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def peak_memory(device: str) -> int:
    """Bytes: of this process so far, or allocated so far on a CUDA device."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
