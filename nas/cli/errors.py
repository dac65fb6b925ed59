"""What a user sees when something goes wrong: a sentence, and an exit status. Never a traceback for a mistake
in input.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_resume: list[str] = []  # the line that takes up what is at work


_signals: list[int] = []  # that asked for an end
_gentle = False  # whether Ctrl-C first lets what is running end
_stopping = False


def interrupt(number: int, frame: object) -> None:
    """Handles Ctrl-C and SIGTERM."""
    global _stopping
    if number == signal.SIGINT and _gentle and not _stopping:
        _stopping = True
        os.write(2, b"stopping when what is being evaluated has ended; Ctrl-C again stops at once\n")
        return
    _signals.append(number)
    raise KeyboardInterrupt


@contextmanager
def patient() -> Iterator[None]:
    """Within it the first Ctrl-C lets what is running end: a search with workers."""
    global _gentle
    _gentle = True
    try:
        yield
    finally:
        _gentle = False


def stopping() -> bool:
    """Whether Ctrl-C was pressed, and what is running is to end."""
    return _stopping


def stop_if_interrupted() -> None:
    """Raises KeyboardInterrupt if a signal came at a moment when Python swallowed it (in a finaliser)."""
    if _signals:
        raise KeyboardInterrupt


def at_work(folder: object) -> None:
    """Remember the run at work, so that an interruption can say how to go on."""
    goes_on_with(f"nas resume {folder}")


def goes_on_with(command: str) -> None:
    """Remember how to go on after an interruption."""
    _resume[:] = [command]


def exit_status(error: BaseException, *, debug: bool = False) -> int:
    """Print the sentence for `error` to stderr; the exit status."""
    interrupted = isinstance(error, KeyboardInterrupt)
    if isinstance(error, SystemExit):
        interrupted = error.code == INTERRUPTED  # typer's way to say KeyboardInterrupt
    if isinstance(error, SystemExit) and not interrupted:
        return error.code if isinstance(error.code, int) else (DONE if error.code is None else FAILED)
    from nas.run import RunFailed  # here, as most commands come to this place to say that they are done

    if debug:
        import traceback

        traceback.print_exception(error)
    if interrupted:
        say("interrupted" + ("; what is done is saved, go on with:\n  " + _resume[0] if _resume else ""))
        return INTERRUPTED
    if isinstance(error, ArithmeticError | RunFailed):
        say(f"error: {error}")
        return FAILED
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        where = f" ({error.filename})" if error.filename else ""
        say(f"error: {'the disk is full' if full else error.strerror or error}{where}" + _then())
        return FAILED
    if isinstance(error, ValueError):
        say("error: " + str(error).replace("\n", "\nerror: "))
        return USAGE
    say(f"failed: {type(error).__name__}: {error} (--debug shows where)" + _then())
    return FAILED


def _then() -> str:
    return f"; nothing that was saved is lost, go on with:\n  {_resume[0]}" if _resume else ""


def say(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)
