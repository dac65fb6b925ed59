"""The command `nas`: one file a sub-command."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Entry point. Sets what must be set before torch is imported, then hands over to the sub-command."""
    # The default spin-waiting of OpenMP stalls small parallel regions on small machines. A user's own setting
    # wins.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        from nas.cli.errors import interrupt

        for number in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # the second is what batch systems send before they kill
            signal.signal(number, interrupt)
        from nas.cli.app import app

        app(prog_name="nas")
    except BaseException as error:
        from nas.cli.errors import exit_status

        sys.exit(exit_status(error, debug="--debug" in sys.argv))
