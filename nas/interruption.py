"""Interruption: Ctrl-C and SIGTERM wait while something is done that must not be left in the middle."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held() -> Iterator[None]:
    """Signals that ask for an end take effect after the block.

    An exception out of the middle of another thread's lock or queue can leave that thread waiting for ever.
    """
    if threading.current_thread() is not threading.main_thread():  # signals only ever interrupt that one
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in ASKED}
    try:
        for number in ASKED:
            signal.signal(number, lambda number, frame: came.append((number, frame)))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        for asked, frame in came:
            handler = before[signal.Signals(asked)]
            if callable(handler):
                handler(asked, frame)
            else:
                signal.raise_signal(asked)
