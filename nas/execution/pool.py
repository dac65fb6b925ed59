"""Pool: workers that evaluate one trial each, and what happens when one is lost.

What a worker is, a process or an actor of a cluster, is a subclass's matter: `begin`, `send`, `wait`,
`outcome`, `drop`. Here is what all pools do: trials wait in a queue; a worker that is ready gets the next;
one that dies or is late is replaced, and its trial is evaluated again, later and if possible elsewhere; a
trial that runs much longer than others is given to an idle worker too, and the first result counts. Results
are equal wherever a trial is evaluated, so none of this changes a search.
"""

from __future__ import annotations

import errno
import math
import statistics
import time
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Generic, TypeVar

from pydantic import Field

from nas.execution.executor import Evaluator, Executor, Result, Trial
from nas.run import InUse, RunFailed
from nas.seeding import derive
from nas.storage import reachable, whole

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Handle = TypeVar("Handle", bound=Hashable)
Outcome = Result | Exception

LATE = 3.0  # times the median of the last trials: an idle worker begins such a trial too
KNOWN = 5  # trials that a median is taken of, at least
REMEMBERED = 101
LONGEST = 60.0  # seconds between two attempts
LONGEST_WAIT = 1.0  # seconds: a wait in a library's depths may not notice Ctrl-C
LEAST = 1.0  # seconds: what is shorter is never late
ELSEWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)  # another machine may have none of these


class Lost(Exception):
    """A worker is gone, and with it what it did; says why."""


@dataclass(frozen=True)
class _Attempt:
    trial: Trial
    worker: int
    since: float


class Pool(Executor, Generic[Handle]):
    """The common part of executors with several workers.

    Args:
        workers: at most so many work at a time; one that cannot be had yet joins when it can.
        threads: of each.
        timeout: seconds after which a trial's worker is ended; None: it may take for ever.
        retries: how often a trial is begun again that lost its worker, came late or met a full disk.
        backoff: seconds before the first retry; they double with each.
        storage: a folder, or an address like s3://..., that all workers see: trainings leave there what a
            later attempt goes on from.
    """

    def __init__(
        self, evaluate: Evaluator, seed: int = 0, *, workers: Positive = 1, threads: Positive = 1,
        timeout: Seconds | None = None, retries: Count = 2, backoff: Seconds = 1.0,
        storage: str | None = None,
    ) -> None:  # fmt: skip
        self.evaluate, self.seed, self.workers, self.threads = evaluate, seed, workers, threads
        self.timeout, self.retries, self.backoff, self.storage = timeout, retries, backoff, storage
        if storage is not None:
            self.storage = storage = whole(storage)
            reachable(storage)
        self._halted = False
        self._queue: deque[Trial] = deque()
        self._delayed: list[tuple[float, Trial]] = []  # when they are due
        self._open: set[int] = set()  # numbers of the trials without result
        self._results: deque[tuple[Trial, Outcome]] = deque()
        self._starting: dict[Handle, int] = {}
        self._running: dict[Handle, _Attempt] = {}
        self._idle: set[int] = set()
        self._due: dict[int, float] = {}  # of workers that could not be started: when to try again
        self._ended: deque[Handle] = deque()
        self._losses: Counter[int] = Counter()  # by trial
        self._misfires: Counter[int] = Counter()  # by worker: starts in a row that failed
        self._copied: set[int] = set()  # trials that two workers are evaluating
        self._tried_twice: set[int] = set()  # those that were copied once, and are not again
        self._avoid: dict[int, int] = {}  # trial -> the worker that it was last lost with
        self._took: dict[int | None, deque[float]] = {}  # seconds of the last trials, by their epochs
        self._told: Counter[str] = Counter()

    # --- what a subclass does -------------------------------------------------------------------------------

    @abstractmethod
    def begin(self, worker: int) -> Handle:
        """Begin to make a worker ready; the handle ends when it is."""

    @abstractmethod
    def send(self, worker: int, trial: Trial, seed: int) -> Handle:
        """Have a worker evaluate; the handle ends when it has. Raises Lost if the worker is gone."""

    @abstractmethod
    def wait(self, handles: Sequence[Handle], seconds: float) -> Sequence[Handle]:
        """Those that ended; waits for one, at most so long."""

    @abstractmethod
    def outcome(self, handle: Handle) -> Any:
        """What came of a handle that ended. Raises Lost."""

    @abstractmethod
    def drop(self, worker: int) -> None:
        """End a worker, whatever it is doing."""

    # --- the executor's side --------------------------------------------------------------------------------

    def submit(self, trial: Trial) -> None:
        self._open.add(trial.number)
        self._queue.append(trial)
        self._dispatch()

    def completed(self) -> Iterator[tuple[Trial, Outcome]]:
        while self._open or self._results:
            while self._results:
                yield self._results.popleft()
            if self.stopping():
                self.halt()
            if not self._open:
                return
            self._dispatch()
            if not self._ended:
                self._ended.extend(self._waited())
                self._expire()
            while self._ended and not self._results:
                self._conclude(self._ended.popleft())

    def halt(self) -> None:
        self._halted = True
        for trial in (*self._queue, *(trial for _, trial in self._delayed)):
            self._open.discard(trial.number)
        self._queue.clear()
        self._delayed.clear()

    def close(self) -> None:
        for worker in range(self.workers):  # what is still being evaluated is evaluated again on resume
            self.drop(worker)

    def facts(self) -> dict[str, float]:
        return {
            "workers": len(self._running) + len(self._idle),
            "running": len(self._running),
            "queued": len(self._queue) + len(self._delayed),
            **{name: self._told[name] for name in ("done", "failed", "retried")},
        }

    # --- handing out ----------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        """Start workers as far as there is work for them, and give trials to those that are ready."""
        now = time.monotonic()
        for entry in [entry for entry in self._delayed if entry[0] <= now]:
            self._delayed.remove(entry)
            self._queue.appendleft(entry[1])
        self._start_workers(now)
        while self._queue and self._idle:
            self._give(self._queue.popleft())
        if self.copies and self._idle and not (self._delayed or self._halted):
            for trial in self._late(now)[: len(self._idle)]:
                self._copied.add(trial.number)
                self._tried_twice.add(trial.number)
                self._give(trial)

    def _start_workers(self, now: float) -> None:
        wanted = min(self.workers, len(self._open))
        if len(self._running) + len(self._idle) + len(self._starting) >= wanted:
            return
        busy = {attempt.worker for attempt in self._running.values()}
        there = busy | self._idle | set(self._starting.values())
        for worker in range(self.workers):
            if len(there) >= wanted:
                return
            if worker not in there and self._due.get(worker, 0.0) <= now:
                self._starting[self.begin(worker)] = worker
                there.add(worker)

    def _give(self, trial: Trial) -> None:
        """Send a trial to a worker that is idle, not to the one that it was lost with if there is another."""
        others = self._idle - {self._avoid.get(trial.number, -1)}
        worker = min(others or self._idle)
        self._idle.discard(worker)
        try:
            handle = self.send(worker, self.kept(trial), self.key(trial))
        except Lost as loss:
            self._again(trial, worker, str(loss))
        else:
            self._running[handle] = _Attempt(trial, worker, time.monotonic())

    def _late(self, now: float) -> list[Trial]:
        """Trials that run alone, and much longer than others did; the longest first."""
        if now - self._oldest() <= LEAST:
            return []
        alone = (each for each in self._running.values() if each.trial.number not in self._tried_twice)
        return [each.trial for each in alone if now - each.since > self._limit(each.trial)]

    def _oldest(self) -> float:
        """When the attempt began that has been running longest."""
        return next((attempt.since for attempt in self._running.values()), math.inf)

    def _limit(self, trial: Trial) -> float:
        """Seconds after which a trial is late, by those of as many epochs; never, if few are known."""
        took = self._took.get(_length(trial), ())
        return max(LEAST, LATE * statistics.median(took)) if len(took) >= KNOWN else math.inf

    def kept(self, trial: Trial) -> Trial:
        """The trial, with the place where its training may leave what a later attempt goes on from."""
        if self.storage is None:
            return trial
        return replace(trial, checkpoint=f"{self.storage.rstrip('/')}/trial-{trial.number}.pt")

    def key(self, trial: Trial) -> int:
        """The seed of a trial."""
        return derive(self.seed, "trial", trial.number)

    # --- taking back ----------------------------------------------------------------------------------------

    def _waited(self) -> Sequence[Handle]:
        """The handles that ended, or none if something else is due first."""
        due = [when for when, _ in self._delayed]
        due += [when for worker, when in self._due.items() if worker not in self._starting.values()]
        due += [self._oldest() + self.timeout] if self.timeout else []
        now = time.monotonic()
        seconds = min([LONGEST_WAIT, *(when - now for when in due if when > now)])
        handles = [*self._starting, *self._running]
        if handles:
            return self.wait(handles, seconds)
        time.sleep(seconds)
        return []

    def _conclude(self, handle: Handle) -> None:
        """Enter what came of a handle. One that is not known any more is of a worker that was ended."""
        if handle in self._starting:
            self._started(self._starting.pop(handle), handle)
        elif handle in self._running:
            attempt = self._running.pop(handle)
            try:
                outcome = self.outcome(handle)
            except Lost as loss:
                self._again(attempt.trial, attempt.worker, str(loss))
            else:
                self._returned(attempt, outcome)

    def _started(self, worker: int, handle: Handle) -> None:
        try:
            told = self.outcome(handle)
        except Lost as loss:
            self._misfires[worker] += 1
            self.drop(worker)
            if self._misfires[worker] > self.retries and not (self._idle or self._running):
                raise RunFailed(f"no worker can be started: {loss}") from loss
            self._due[worker] = time.monotonic() + self._delay(self._misfires[worker])
            self.note(f"worker {worker} did not start ({loss}); it is tried again")
        else:
            self._misfires.pop(worker, None)
            self._due.pop(worker, None)
            self._idle.add(worker)
            self.note(f"worker {worker} joined{f', {told}' if isinstance(told, str) else ''}")

    def _returned(self, attempt: _Attempt, outcome: Outcome) -> None:
        number = attempt.trial.number
        if isinstance(outcome, MemoryError) or type(outcome).__name__ == "OutOfMemoryError":
            self.drop(attempt.worker)  # what it could not free must not weigh on the next trial
        else:
            self._idle.add(attempt.worker)
        if isinstance(outcome, Exception):
            if number in self._copied:
                self._copied.discard(number)
                return  # the other one goes on
            if _elsewhere(outcome):
                self._avoid[number] = attempt.worker
                self._again(attempt.trial, None, str(outcome), last=outcome)
                return
        else:
            took = self._took.setdefault(_length(attempt.trial), deque(maxlen=REMEMBERED))
            took.append(time.monotonic() - attempt.since)
        self._finish(attempt.trial, outcome)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        if trial.number in self._copied:
            self._copied.discard(trial.number)
            for handle, attempt in list(self._running.items()):
                if attempt.trial.number == trial.number:  # the slower one, which may hang
                    del self._running[handle]
                    self.drop(attempt.worker)
        self._open.discard(trial.number)
        self._losses.pop(trial.number, None)
        self._tried_twice.discard(trial.number)
        self._avoid.pop(trial.number, None)
        self._told["failed" if isinstance(outcome, Exception) else "done"] += 1
        self._results.append((trial, outcome))

    def _again(self, trial: Trial, worker: int | None, why: str, *, last: Exception | None = None) -> None:
        """Begin a trial once more after a while, or give it up. `worker`: one that has to be replaced."""
        number = trial.number
        if worker is not None:
            self.drop(worker)
            self._idle.discard(worker)
            self._avoid[number] = worker
        if number in self._copied:
            self._copied.discard(number)
            return  # the other one goes on
        if self._halted:
            self._open.discard(number)
            return  # it begins again when the search goes on
        self._losses[number] += 1
        lost = self._losses[number]
        if lost > self.retries:
            self.note(f"trial {number} failed: {why}, {lost} times")
            self._finish(trial, last or RuntimeError(f"{why}, {lost} times"))
            return
        self._told["retried"] += 1
        self.note(f"trial {number} begins again: {why}")
        self._delayed.append((time.monotonic() + self._delay(lost), trial))

    def _delay(self, times: int) -> float:
        return float(min(LONGEST, self.backoff * 2 ** (times - 1)))

    def _expire(self) -> None:
        """End the workers of trials that are late."""
        now = time.monotonic()
        if self.timeout is None or now - self._oldest() < self.timeout:
            return
        for handle, attempt in list(self._running.items()):
            if now - attempt.since >= self.timeout and handle not in self._ended:
                del self._running[handle]
                self._again(attempt.trial, attempt.worker, f"no result after {self.timeout:g} s")


def _elsewhere(error: Exception) -> bool:
    """Whether the same evaluation may succeed on another machine, or later."""
    return isinstance(error, ConnectionError | InUse) or (
        isinstance(error, OSError) and error.errno in ELSEWHERE
    )


def _length(trial: Trial) -> int | None:
    """What trials whose times can be compared have in common."""
    return getattr(trial, "epochs", None)
