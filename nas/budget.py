"""Budget: how long a search may take."""

from __future__ import annotations

import re
from dataclasses import dataclass

UNITS = {"epochs": "epochs", "epoch": "epochs", "trials": "trials", "trial": "trials"}
HOURS = {"s": 1 / 3600, "min": 1 / 60, "m": 1 / 60, "h": 1.0, "gpuh": 1.0}


@dataclass(frozen=True)
class Budget:
    """One or several limits; the first reached stops. An epoch limit is also the horizon of a strategy's
    schedules.
    """

    epochs: int | None = None
    trials: int | None = None
    hours: float | None = None
    device_hours: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``50epochs``, ``200trials``, ``3h``, ``90min``, ``8gpuh``, or several with commas.

        Raises ValueError.
        """
        found: dict[str, float] = {}
        for part in str(text).split(","):
            match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", part)
            amount, unit = (float(match[1]), match[2]) if match else (0.0, "")
            whole = unit in UNITS and amount != int(amount)
            if amount <= 0 or whole or unit not in {**UNITS, **HOURS}:
                raise ValueError(
                    f"budget {part.strip()!r} is not a number above 0 and a unit "
                    "(epochs, trials, s, min, h, gpuh), as in 50epochs or 200trials,3h"
                )
            name = UNITS.get(unit) or ("device_hours" if unit == "gpuh" else "hours")
            found[name] = min(found.get(name, float("inf")), amount * HOURS.get(unit, 1.0))
        counts = {name: int(value) for name, value in found.items() if name in ("epochs", "trials")}
        return cls(**{**found, **counts})  # type: ignore[arg-type]

    def told(self, *, seconds: float, devices: float = 1) -> str:
        """How much of the limits of time is used, in words; empty if there are none."""
        hours = seconds / 3600
        parts = [] if self.hours is None else [f"{hours:.2f} of {self.hours:g} hours"]
        if self.device_hours is not None:
            parts.append(f"{hours * devices:.2f} of {self.device_hours:g} device-hours")
        return ", ".join(parts)

    def spent(self, *, seconds: float, devices: float = 1) -> str | None:
        """Which limit of time is reached, in words, or None. `devices`: as many were in use all the time."""
        hours = seconds / 3600
        if self.hours is not None and hours >= self.hours:
            return _told(self.hours)
        if self.device_hours is not None and hours * devices >= self.device_hours:
            return f"{self.device_hours:g} device-hours"
        return None


def _told(hours: float) -> str:
    """A time in the largest unit of which there is one."""
    amount, unit = (hours, "hours") if hours >= 1 else (60 * hours, "minutes")
    return f"{amount:g} {unit}" if amount >= 1 else f"{60 * amount:g} seconds"
