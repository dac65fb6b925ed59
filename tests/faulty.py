"""An evaluator that fails on demand, in workers of any kind: what tests of executors send to them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.execution import Trial


@dataclass(frozen=True)
class Faulty:
    """Its result is the trial's number, half of it, and its seed.

    `faults`: by the trial's number; ``once-`` in front: at the first attempt alone, whoever makes it;
    ``slow-then-raise``: the first attempt takes long, any other fails.
    `folder`: where attempts are counted, and processes leave their numbers.
    """

    folder: Path
    faults: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    def __call__(self, trial: Trial, *, seed: int) -> Any:
        attempt = self._count(trial.number)
        fault = self.faults.get(trial.number, "")
        once, fault = fault.startswith("once-"), fault.removeprefix("once-")
        if fault == "slow-then-raise":
            if attempt > 1:
                raise MemoryError("a small machine")
            time.sleep(7)
        elif fault and (attempt == 1 or not once):
            return self._fail(fault)
        time.sleep(self.seconds)
        print(f"evaluated {trial.number}")
        return {"valid_accuracy": trial.number / 2, "seed": seed}

    def _count(self, number: int) -> int:
        """Which attempt at this trial this is, from 1."""
        for attempt in range(1, 1000):
            try:
                (self.folder / f"{number}-{attempt}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return attempt
        raise AssertionError

    def _fail(self, fault: str) -> Any:
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "exit":
            os._exit(3)
        elif fault == "hang":
            threading.Event().wait()
        elif fault == "slow":
            time.sleep(60)
        elif fault == "memory":
            bytearray(1 << 50)
        elif fault == "disk":
            with open("/dev/full", "w") as full:
                full.write("x" * 100_000)
        elif fault == "raise":
            raise ValueError("no such layer")
        elif fault == "unsendable":
            raise type("Own", (Exception,), {})("of a class of its own")
        elif fault == "diverge":
            return {"valid_accuracy": float("nan")}
        elif fault == "nonsense":
            return "all went well"
        elif fault == "unpicklable":
            return {"valid_accuracy": threading.Lock()}
        elif fault == "leave":
            sys.exit(1)
        raise AssertionError(fault)
