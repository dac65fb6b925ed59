"""The file that TensorBoard reads, written so that an interruption cannot stop its thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.interruption import held


class _Whole:
    """An event writer of TensorBoard each of whose calls is finished before an interruption takes effect.

    It hands events to a thread through a queue; half a call would leave that thread waiting, and the process
    waiting for it at its end.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._writer, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **more: Any) -> Any:
            with held():
                return found(*arguments, **more)

        return call


def event_file(folder: Path) -> Any:
    """A `SummaryWriter` that writes into `folder`."""
    from torch.utils.tensorboard import SummaryWriter

    opened: Any = SummaryWriter
    with held():
        writer = opened(str(folder))
        writer.file_writer.event_writer = _Whole(writer.file_writer.event_writer)
    return writer
