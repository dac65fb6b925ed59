"""The command `nas` in processes of their own.

They are forks of one process that has imported what commands need, which takes five seconds otherwise; from
there on they are like any other, to be interrupted, killed and waited for.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver, get_context
from pathlib import Path

IMPORTED = ["nas.cli.search", "nas.train", "nas.evaluators", "nas.report", "torch._dynamo", "tensorboard"]


class Begun:
    """What `subprocess.Popen` is, as far as the tests use it."""

    def __init__(self, arguments: list[str], folder: Path, before: str, environment: dict[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._said = [Path(self._folder.name, name) for name in ("out", "err")]
        for path in self._said:
            path.touch()
        forkserver.set_forkserver_preload(IMPORTED)
        given = (arguments, folder, before, environment, self._said)
        self._process = get_context("forkserver").Process(target=_command, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("nas", timeout or 0.0)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it said on stdout and stderr, once it has ended."""
        self.wait(timeout)
        out, err = (path.read_text() for path in self._said)
        return out, err

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it is too young to have one
            self.kill()
        self.wait()


def begin(*arguments: object, folder: Path, before: str = "", **environment: str) -> Begun:
    """The command in a folder, in a process and a group of its own; `before`: code that runs first."""
    whole = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", **environment}
    return Begun([str(each) for each in arguments], folder, before, whole)


def executed(*arguments: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same with ``--quiet``, when it has ended."""
    process = begin(*arguments, "--quiet", folder=folder, **environment)
    out, err = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)  # type: ignore[arg-type]


def wait_for(what: Callable[[], bool], process: Begun, *, seconds: float = 90.0) -> None:
    """Wait until something is so, while the process lives."""
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def descendants(pid: int) -> list[int]:
    """The processes that a process began, and those that they began."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            parents[int(path.parent.name)] = int(parent)
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _command(
    arguments: list[str], folder: Path, before: str, environment: dict[str, str], said: list[Path]
) -> None:
    os.setsid()
    os.chdir(folder)
    for number, path in enumerate(said, 1):
        place = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(place, number)
        os.close(place)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["nas", *arguments]
    exec(before, {})
    from nas.cli import main

    try:
        main()
    finally:
        atexit._run_exitfuncs()
