"""Usage: what training a supernet costs, kept beside the ledger, which is the same for equal searches."""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from nas.run import replace

USAGE = "usage.json"
STATUS = Path("/proc/self/status")


class Usage:
    """Counts and times steps of training, over all processes that worked on a run.

    A step is timed from the end of the one before it; the first of an epoch is not, and nothing is where an
    epoch trains nothing. Memory is the peak since the search began of what this process held in main memory,
    the interpreter and the data included (on Linux; elsewhere since the process began), or on CUDA of what
    was allocated on the device.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.path, self.device = folder / USAGE, device
        self.steps, self.seconds, self.peak = 0, 0.0, 0
        if before := usage(folder):
            self.steps, self.peak = before["steps"], before["peak_memory"]
            self.seconds = before.get("step_seconds", 0.0) * before["steps"]
        self._first: tuple[int, float] | None = None  # tick of this epoch: step, time
        self._last = (0, 0.0)
        self._begun = False

    def tick(self, done: int, total: int) -> None:
        """`done` of `total` steps of an epoch have ended."""
        if not self._begun:
            self._begun = True
            _forget_peak(self.device)
        if self.device.startswith("cuda") and done in (1, total):  # it works behind this process
            import torch

            torch.cuda.synchronize(self.device)
        self._last = done, time.perf_counter()
        self._first = self._first or self._last

    def epoch(self, *, trained: bool, peak: int | None = None) -> None:
        """An epoch has ended, which trained or only looked. `peak`: of memory, where others train."""
        if trained and self._first is not None and self._last[0] > self._first[0]:
            self.steps += self._last[0] - self._first[0]
            self.seconds += self._last[1] - self._first[1]
        self._first = None
        self.peak = max(self.peak, peak_memory(self.device) if peak is None else peak)
        timed = {"step_seconds": self.seconds / self.steps} if self.steps else {}
        told = {"steps": self.steps, **timed, "peak_memory": self.peak}
        replace(self.path, json.dumps(told) + "\n")


def usage(folder: Path) -> dict[str, Any]:
    """Timed steps, seconds a step (if any) and peak memory in bytes; empty if nothing was measured."""
    path = folder / USAGE
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def peak_memory(device: str) -> int:
    """Bytes, since they were last forgotten: held by this process, or allocated on a CUDA device."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device)
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    elif STATUS.exists():
        with contextlib.suppress(OSError):  # a container may not allow it
            STATUS.with_name("clear_refs").write_text("5")
