"""Jobs: whole trainings and searches, side by side on the workers of an executor.

Each works in a folder of its own, which must be where all workers see it. A job that loses its worker goes on
elsewhere from what is in the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nas.execution import EXECUTORS, Result, Trial
from nas.run import CONFIG, RunFailed
from nas.settings import cores
from nas.signature import bind


@dataclass(frozen=True)
class Job:
    """One of them, by its place in a list that every worker has. What it has done is in its folder."""

    number: int
    checkpoint: str | None = None


def bound(given: Mapping[str, Any] | None, threads: int | None = None) -> dict[str, Any]:
    """The section ``executor``, with its defaults. Raises ValueError for unknown names, keys and values.

    `threads`: of a job, if that is said; else those of this machine are shared among processes of it.
    """
    own = dict(given or {})
    name = own.pop("name", "local")
    if name == "local" and isinstance(own.get("workers"), int) and own["workers"] > 1:
        own.setdefault("threads", threads or max(1, cores() // own["workers"]))
    elif threads:
        own.setdefault("threads", threads)
    return {"name": name, **bind(EXECUTORS.resolve(name), own, where="executor", skip=2)}


def apart(section: Mapping[str, Any]) -> bool:
    """Whether an executor works elsewhere than in this process."""
    here = section.get("name", "local") == "local" and section.get("workers", 1) == 1
    return not here or section.get("timeout") is not None


def side_by_side(
    work: Callable[..., Result],
    places: Iterable[int],
    section: Mapping[str, Any],
    *,
    note: Callable[[str], None],
    logs: Path,
) -> Iterator[tuple[int, Result | Exception]]:
    """What comes of each place, as they end. `work(job, seed=...)` can be sent to workers."""
    settings = dict(section)
    pool = EXECUTORS.resolve(settings.pop("name"))(work, 0, **settings)
    pool.note, pool.logs = note, logs.absolute()
    pool.copies = False  # two would work in one folder
    try:
        for place in places:
            pool.submit(cast(Trial, Job(place)))  # a pool looks at the number alone
        for job, outcome in pool.completed():
            yield job.number, outcome
    finally:
        pool.close()


def in_order(
    places: Iterable[int], ended: Iterator[tuple[int, Result | Exception]]
) -> Iterator[tuple[int, Result | Exception]]:
    """The same, in the order of the places."""
    waiting: dict[int, Result | Exception] = {}
    for wanted in places:
        while wanted not in waiting:
            place, outcome = next(ended)
            waiting[place] = outcome
        yield wanted, waiting.pop(wanted)


def here(folder: Path) -> Path:
    """The folder of a run, as a worker sees it. Raises RunFailed if it does not."""
    if not (folder / CONFIG).is_file():
        import socket

        raise RunFailed(
            f"{socket.gethostname()} does not see {folder}: name a --run on a file system of all nodes"
        )
    return folder
