"""The command `nas`: one file a sub-command."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings


def main() -> None:
    """Entry point. Sets what must be set before torch is imported, then hands over to the sub-command."""
    # The default spin-waiting of OpenMP stalls small parallel regions on small machines. A user's own setting
    # wins.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from nas.cli.errors import interrupt

        # The second is what batch systems send before they kill.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        threading.excepthook = _thread_failed
        warnings.showwarning = _note
        from nas.cli.app import app

        app(prog_name="nas")
    except BaseException as error:
        for number in (signal.SIGINT, signal.SIGTERM):  # it is ending
            signal.signal(number, signal.SIG_IGN)
        from nas.cli.errors import exit_status

        sys.exit(exit_status(error, debug="--debug" in sys.argv))


def _note(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
    """A warning of ours is a line to read; those of libraries are for developers."""
    if category is UserWarning and "/nas/" in str(place[0] if place else ""):
        from nas.cli.errors import say

        say(f"note: {message}")


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """A full disk is met by TensorBoard's thread too, which raises it again in the main thread: one sentence
    is enough.
    """
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)
