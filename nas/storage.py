"""Storage: files that several machines see, on a shared folder or in an object store, by their address."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.run import packed_state, replace, unpacked


def reachable(place: str) -> None:
    """Raises ValueError if nothing can be written at `place`, a folder or an address like s3://bucket/folder."""
    probe = f"{place.rstrip('/')}/.probe-{os.getpid()}"
    try:
        write(probe, b"")
        remove(probe)
    except (OSError, ImportError, ValueError) as error:
        raise ValueError(
            f"nothing can be written at {place!r} ({error}): name a folder or an address of shared storage"
        ) from error


def whole(place: str) -> str:
    """The address, or the whole path of a folder: workers have other working directories."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def write(place: str, data: bytes) -> None:
    """Write a file so that the old or the new one is there, whole. Makes its folder."""
    from fsspec.implementations.local import LocalFileSystem

    system, path = _located(place)
    if isinstance(system, LocalFileSystem):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        replace(Path(path), data)
    else:
        with _reached(place):
            system.pipe_file(path, data)


@contextmanager
def _reached(place: str) -> Iterator[None]:
    """What an object store's library raises, as ConnectionError: another attempt may succeed."""
    try:
        yield
    except (OSError, ImportError, ValueError):
        raise
    except Exception as error:
        raise ConnectionError(f"{place}: {type(error).__name__}: {error}") from error


def read(place: str) -> bytes | None:
    """What the file holds, or None if there is none."""
    system, path = _located(place)
    try:
        with _reached(place):
            data: bytes = system.cat_file(path)
    except FileNotFoundError:
        return None
    return data


def remove(place: str) -> None:
    """Remove a file, if it is there."""
    system, path = _located(place)
    with _reached(place):
        if system.exists(path):
            system.rm_file(path)


def save_state(place: str, state: Mapping[str, Any]) -> None:
    """Write tensors and numbers."""
    write(place, packed_state(state))


def load_state(place: str) -> dict[str, Any] | None:
    """What `save_state` wrote; None if there is nothing, or nothing that can be read."""
    data = read(place)
    try:
        return None if data is None else unpacked(data)
    except Exception:  # torn or foreign: whatever the unpickler meets
        return None


def _located(place: str) -> tuple[Any, str]:
    import fsspec

    found: tuple[Any, str] = fsspec.core.url_to_fs(place)
    return found
