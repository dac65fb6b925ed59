"""Files over HTTP: resumed after an interruption, checked, and in place only when complete.

Nothing here runs unless the user asks for it (``--download``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from http.client import HTTPResponse

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if the server says
BLOCK = 1 << 20
log = logging.getLogger(__name__)


def missing(name: str, *, folders: Sequence[Path], files: Sequence[str], url: str) -> str:
    """The sentence for data that are not there: where they were looked for and how to come by them."""
    return (
        f"data {name!r} not found in {' or '.join(str(folder) for folder in folders)} "
        f"(expected files: {', '.join(files)}; published at {url}): "
        "--download fetches them, --data-dir DIR or NAS_DATA=DIR names another folder"
    )


def fetch(
    url: str, target: Path, *, digest: str | None, progress: Progress | None = None, timeout: float = 30.0
) -> Path:
    """Bring `url` to `target` and return it; a `target` that is there already (and has `digest`) is kept.

    `digest` is ``md5:HEX``, ``sha256:HEX`` or None. What arrived before an interruption stays in
    ``target.part`` and is continued if there is a digest to tell whether the whole fits together.
    `progress` is called with (bytes so far, bytes in all or None); `timeout` is in seconds of silence.
    Raises ValueError for a wrong checksum or an address that is not http(s), OSError if the network fails.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"only http:// and https:// addresses can be fetched, not {url!r}")
    if target.is_file() and _matches(target, digest):
        return target
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    resumed = digest is not None and part.is_file()
    if not resumed:
        part.unlink(missing_ok=True)
    log.info("fetching %s", url)
    _transfer(url, part, progress=progress, timeout=timeout)
    if resumed and not _matches(part, digest):  # the part was of another file or another version of it
        part.unlink()
        _transfer(url, part, progress=progress, timeout=timeout)
    if digest is not None and not _matches(part, digest):
        found = checksum(part, digest.partition(":")[0])
        part.unlink()
        raise ValueError(
            f"{url} has the wrong checksum: expected {digest}, got {found}; nothing was kept. The file "
            "behind the address has changed or a proxy answered: fetch it by hand or from another mirror"
        )
    os.replace(part, target)
    return target


def checksum(path: Path, kind: str) -> str:
    """``kind:hex`` of a file. Raises ValueError for a kind other than md5 and sha256."""
    import hashlib

    if kind not in ("md5", "sha256"):
        raise ValueError(f"a digest is 'md5:HEX' or 'sha256:HEX', not of kind {kind!r}")
    with path.open("rb") as file:
        return f"{kind}:{hashlib.file_digest(file, kind).hexdigest()}"


def _matches(path: Path, digest: str | None) -> bool:
    return digest is None or checksum(path, digest.partition(":")[0]) == digest.lower()


def _transfer(url: str, part: Path, *, progress: Progress | None, timeout: float) -> None:
    """Append to `part` what it lacks of `url`, or write it anew if the server cannot continue."""
    import http.client
    import urllib.error
    import urllib.request

    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            _receive(response, part, start=start, progress=progress)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise OSError(f"{url} could not be fetched: HTTP {error.code} {error.reason}") from error
        if error.headers.get("Content-Range", "").endswith(f"*/{start}"):
            return  # the part is the whole file already
        part.unlink()  # longer than the file: of something else
        _transfer(url, part, progress=progress, timeout=timeout)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise OSError(
            f"{url} could not be fetched: {reason}. Check the network, then run the same command again: "
            "it continues where this one stopped; or put the file in place by hand"
        ) from error


def _receive(response: HTTPResponse, part: Path, *, start: int, progress: Progress | None) -> None:
    answer = response.headers.get("Content-Range", "")
    continued = response.status == 206 and answer.startswith(f"bytes {start}-")
    if response.status == 206 and not continued:
        raise ConnectionError("the server answered with another range than it was asked for")
    done = start if continued else 0
    length = response.headers.get("Content-Length")
    total = done + int(length) if length is not None else None
    with part.open("ab" if continued else "wb") as file:
        while block := response.read(BLOCK):
            file.write(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
    if total is not None and done != total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")


def extract(archive: Path, dest: Path) -> None:
    """Unpack a tar archive (any compression) into `dest`; files there of the same name are replaced.

    Everything is unpacked beside them first, so that an archive that breaks off leaves nothing. Members
    that would land outside `dest` are refused by tarfile's "data" filter (PEP 706). Raises ValueError.
    """
    import shutil
    import tarfile
    import tempfile
    import zlib

    if not hasattr(tarfile, "data_filter"):
        raise ValueError("unpacking safely needs Python 3.11.4 or newer; unpack the archive by hand")
    dest.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".extract-", dir=dest))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        for source in sorted(path for path in scratch.rglob("*") if path.is_file()):
            target = dest / source.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ValueError(f"{archive} cannot be unpacked ({error}): delete it and fetch it again") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
