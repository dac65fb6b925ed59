"""What workers have in common, processes and actors: what they are sent, how they begin, evaluate and end."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from nas.execution.executor import Evaluator, Result, Trial
from nas.registry import load_file, loaded_files


@dataclass(frozen=True)
class Packed:
    """Something on its way to workers, an evaluator perhaps, and what they have to be like.

    It may be made of what users' files define: these come along, as text. `buffers` are the arrays in it, if
    they travel beside it.
    """

    files: tuple[tuple[Path, str], ...]
    pickled: bytes
    threads: int
    deterministic: int
    buffers: Sequence[Any] = ()

    @classmethod
    def of(cls, content: Any, *, threads: int, dumps: Callable[[Any], bytes] = pickle.dumps) -> Packed:
        """Raises ValueError if it cannot be sent."""
        import torch

        try:
            data = dumps(content)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                f"the evaluation cannot be sent to other processes ({error}): define what it calls at the "
                "top of a file, or search with one worker"
            ) from error
        files = tuple((path, path.read_text()) for path in loaded_files())
        return cls(files, data, threads, torch.get_deterministic_debug_mode())

    def content(self) -> Any:
        """What was packed, in a process that is made as it has to be."""
        import torch

        torch.set_num_threads(self.threads)
        torch.set_deterministic_debug_mode(self.deterministic)
        for path, text in self.files:
            load_file(path, text)
        return pickle.loads(self.pickled, buffers=self.buffers)

    def opened(self) -> Evaluator:
        """The evaluator that was packed."""
        try:
            evaluate: Evaluator = self.content()
        except Exception as error:  # told as the failure of each trial; raised here, it would end the process
            return _Failing(error)
        return evaluate


@dataclass(frozen=True)
class _Failing:
    """In place of an evaluator that could not be made in this process."""

    error: Exception

    def __call__(self, trial: Trial, *, seed: int) -> Result:
        raise self.error


def evaluated(evaluate: Evaluator, trial: Trial, *, seed: int) -> Result | Exception:
    """What comes of a trial: an exception is a result too. It can be sent to another process."""
    try:
        return evaluate(trial, seed=seed)
    except (Exception, SystemExit) as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error if isinstance(error, Exception) else RuntimeError(f"it called sys.exit({error})")


def processes(
    count: int, imported: Sequence[str], begin: Callable[..., None], *given: Any
) -> ProcessPoolExecutor:
    """Worker processes, each made ready by ``begin(*given)``; they end with this one.

    Where the system can they are forks of one that has imported these modules and did nothing else: they are
    there at once, and share its memory.
    """
    if sys.platform == "linux":
        context: BaseContext = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(imported))
    else:
        context = multiprocessing.get_context("spawn")
    first = (dict(os.environ), begin, given)
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=first)


def _begin(environment: Mapping[str, str], begin: Callable[..., None], given: Sequence[Any]) -> None:
    os.environ.clear()  # what this is a fork of keeps the environment in which it began
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent knows what Ctrl-C means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(*given)


def _end_with_parent() -> None:
    """A parent that is killed closes nothing: without this its workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def end(pool: ProcessPoolExecutor) -> None:
    """Stop what is running in a pool, and its processes."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
