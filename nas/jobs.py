"""Jobs: whole trainings and searches, side by side on the workers of an executor.

Each works in a folder of its own, which must be where all workers see it. A job that loses its worker goes on
elsewhere from what is in the folder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from nas.data import Dataset
from nas.execution import EXECUTORS, Result, Trial
from nas.loop import Watcher
from nas.run import CONFIG, RunFailed
from nas.settings import cores
from nas.signature import bind


@dataclass(frozen=True)
class Job:
    """One of them, by its place in a list that every worker has. What it has done is in its folder."""

    number: int


@dataclass(frozen=True)
class Jobs(ABC):
    """Jobs by their place in a list, each in a folder of its own in `folder`. Can be sent to workers."""

    folder: Path
    config: Mapping[str, Any]
    data: Dataset

    def __call__(self, job: Job, *, seed: int) -> Result:
        return self.do(job.number, Watcher())

    @abstractmethod
    def do(self, place: int, watcher: Watcher) -> Result:
        """Do one from the beginning, or go on where it was cut off."""


def bound(given: Mapping[str, Any] | None, threads: int | None = None) -> dict[str, Any]:
    """The section ``executor``, with its defaults. Raises ValueError for unknown names, keys and values, and
    for a storage: jobs keep what they did in their folders.

    `threads`: of a job, if that is said; else those of this machine are shared among processes of it.
    """
    own = dict(given or {})
    name = own.pop("name", "local")
    if own.get("storage") is not None:
        raise ValueError(
            f"executor.storage {own['storage']!r}: whole searches and trainings go on from what is in the "
            "run's folder, which all workers see: leave it out, and name a --run that they see"
        )
    if name == "local" and isinstance(own.get("workers"), int) and own["workers"] > 1:
        own.setdefault("threads", threads or max(1, cores() // own["workers"]))
    elif threads:
        own.setdefault("threads", threads)
    return {"name": name, **bind(EXECUTORS.resolve(name), own, where="executor", skip=2)}


def apart(section: Mapping[str, Any]) -> bool:
    """Whether an executor works elsewhere than in this process."""
    local = section.get("name", "local") == "local" and section.get("workers", 1) == 1
    return not local or section.get("timeout") is not None


def carried_out(
    jobs: Jobs, places: Iterable[int], section: Mapping[str, Any], watcher: Watcher
) -> Iterator[tuple[int, Result | Exception]]:
    """What comes of each place, in their order: side by side on an executor's workers, or here and watched.

    A training that diverges is a result.
    """
    if apart(section):
        yield from _in_order(places, _side_by_side(jobs, places, section, watcher))
        return
    for place in places:
        try:
            yield place, jobs.do(place, watcher)
        except FloatingPointError as error:
            yield place, error


def _side_by_side(
    jobs: Jobs, places: Iterable[int], section: Mapping[str, Any], watcher: Watcher
) -> Iterator[tuple[int, Result | Exception]]:
    """What comes of each place, as they end."""
    settings = dict(section)
    pool = EXECUTORS.resolve(settings.pop("name"))(jobs, 0, **settings)
    pool.note, pool.logs = watcher.note, jobs.folder / "workers"
    pool.copies = False  # two would work in one folder
    try:
        for place in places:
            pool.submit(cast(Trial, Job(place)))  # a pool looks at the number alone
        for job, outcome in pool.completed():
            yield job.number, outcome
    finally:
        pool.close()


def _in_order(
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
