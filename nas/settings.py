"""The keys of a configuration that belong to no constructor: each function's signature is a schema."""

from __future__ import annotations

import os
from typing import Annotated, Literal

from pydantic import Field

from nas.goal import ACCURACY


def settings(
    controls: Annotated[int, Field(ge=0)] = 3,
    seed: Annotated[int, Field(ge=0)] = 0,
    device: str = "auto",
    deterministic: bool = False,
    threads: Annotated[int, Field(ge=0)] = 0,
) -> None:
    """The top-level keys that are no sections. threads: 0 means the number of cores."""


def search_settings(
    lag: Annotated[int, Field(ge=0)] | None = None,
    order: Literal["number", "free"] = "number",
    early_stop: Literal["median", "none"] = "none",
    objective: tuple[str, ...] | str = (str(ACCURACY),),
) -> None:
    """The section ``search``: lag (None: workers - 1); order; early_stop: the rule for hopeless trials;
    objective: of the evaluator's metrics, one or several, each perhaps with ``:min`` or ``:max``.
    """


def data_settings(
    name: str = "digits",
    root: str = "data",
    limit: Annotated[int, Field(ge=1)] | None = None,
    shrink: Annotated[int, Field(ge=1)] = 1,
    valid: Annotated[float, Field(gt=0, lt=1)] = 0.5,
) -> None:
    """The section ``data``, but for `augment` and the source's own options."""


def ranking_settings(
    networks: Annotated[int, Field(ge=0)] = 10,
    epochs: Annotated[int, Field(ge=1)] = 5,
    metric: str = ACCURACY.metric,
) -> None:
    """The section ``ranking``: after a search with a supernet, so many random networks (0: none) are
    evaluated alone, trained for so many epochs; how the supernet ranks them is compared with this metric.
    """


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
