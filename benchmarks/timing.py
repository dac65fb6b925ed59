"""What the benchmarks have in common: ways to do the same, timed in turn, and lines of a table.

Rounds alternate, so that what else the machine does hits all; a ratio is the median over rounds of the
reference's figure by ours, with the least and the greatest.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from nas.data import Split
from nas.data.batches import Examples
from nas.search_space import SearchSpace
from nas.strategies import Task

Step = Callable[[], object]
HEAD = "| | reference | here | reference / here |\n|---|---|---|---|"


def seconds(step: Step, device: str = "cpu") -> float:
    """Of one call, the device's work included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternated(ways: Mapping[str, Step], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Seconds of each way in each round; a round before the first warms up."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, step in ways.items():
            found[name].append(seconds(step, device))
    return {name: each[1:] for name, each in found.items()}


def line(what: str, reference: Sequence[float], ours: Sequence[float], unit: str = "s") -> str:
    """A line of the table. Figures of one round belong together."""
    ratios = sorted(a / b for a, b in zip(reference, ours, strict=True))
    spread = f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if len(ratios) > 1 else ""
    figures = (told(statistics.median(each), unit) for each in (reference, ours))
    return f"| {what} | {' | '.join(figures)} | {statistics.median(ratios):.2f}{spread} |"


def told(figure: float, unit: str) -> str:
    """With its unit; of seconds a part of them, three digits."""
    if unit != "s":
        return f"{figure:,.0f} {unit}".rstrip()
    scale, unit = (1.0, "s") if figure >= 1 else (1e3, "ms") if figure >= 1e-3 else (1e6, "us")
    figure *= scale
    return f"{figure:.{0 if figure >= 100 else 1 if figure >= 10 else 2}f} {unit}"


def machine() -> str:
    """What the figures are of."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [each.partition(":")[2].strip() for each in lines if each.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def show(*parts: Iterable[str]) -> None:
    """Print a table, each line when it is known."""
    print(HEAD)
    for part in parts:
        for each in part:
            print(each, flush=True)
        gc.collect()
        with suppress(AttributeError, OSError):  # glibc keeps what was freed, and the next part starves
            ctypes.CDLL(None).malloc_trim(0)
    print(f"\n{machine()}")


def task(made: SearchSpace, *, batch: int, size: int, device: str = "cpu") -> Task:
    """A search on images of zeros that is about to begin."""
    images = np.zeros((2 * batch, size, size, 3), dtype=np.uint8).transpose(0, 3, 1, 2)
    part = Split(images=images, labels=np.zeros(2 * batch, dtype=np.int64))
    return Task(made, device=device, examples=Examples(part, part, (0.5,) * 3, (0.2,) * 3))


def pair(batch: int, size: int, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Random images (batch, 3, size, size) and labels, the same in each call."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((batch, 3, size, size), generator=generator)
    return x.to(device), torch.randint(10, (batch,), generator=generator).to(device)
