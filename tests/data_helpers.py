"""Data for the tests: the published sets, unpacked once a machine, and small ones in the same layouts."""

from __future__ import annotations

import gzip
import importlib.util
import os
import pickle
import tempfile
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "shared" / "data" / "unpack.py"
COMPLETE = {  # the file that is written last
    "cifar10": "cifar-10-batches-py/batches.meta",
    "cifar100": "cifar-100-binary/test.bin",
    "mnist": "MNIST/raw/train-labels-idx1-ubyte.gz",
    "fashion_mnist": "FashionMNIST/raw/train-labels-idx1-ubyte.gz",
    "text": "text/wikitext2.valid.txt",
}


def unpacked(name: str) -> Path:
    """The folder (a data root) in which the data set `name` lies in its published layout.

    That is NAS_DATA if it is there, else a folder of this user's below the temporary one, which is filled on
    first use. Without the data the test is skipped, and fails in continuous integration (CI=true).
    """
    marker = COMPLETE[name]
    given = os.environ.get("NAS_DATA")
    if given and (Path(given) / marker).exists():
        return Path(given)
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    root = Path(tempfile.gettempdir()) / f"nas-test-data-{user}"
    root.mkdir(mode=0o700, exist_ok=True)
    with FileLock(root / f".{name}.lock"):
        if not (root / marker).exists():
            if not (SCRIPT.exists() and (SCRIPT.parent / name).is_dir()):
                _absent(name)
            _script().UNPACK[name](root)
    return root


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("unpack", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _absent(name: str) -> NoReturn:
    reason = f"the data set {name!r} is not there: set NAS_DATA to the folder that holds it"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def tiny(n: int, *, classes: int, size: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """`n` random images uint8 (n, C, H, W) and labels that count through the classes."""
    images = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (n, *size), dtype=np.uint8)
    return images, np.arange(n) % classes


def write_idx(folder: Path, *, zipped: bool = True, train: int = 40, test: int = 20) -> None:
    """The four IDX files of an MNIST-like set of 28 x 28 images."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, n in (("train", train), ("t10k", test)):
        images, labels = tiny(n, classes=10, size=(1, 28, 28), seed=n)
        for name, array in (("images-idx3", images[:, 0]), ("labels-idx1", labels.astype(np.uint8))):
            header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            content = header + array.tobytes()
            path = folder / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)


def write_cifar(root: Path, *, classes: int, pickled: bool, n: int = 200, train: int = 5) -> Path:
    """CIFAR-10 (`train` batches) or CIFAR-100 in one of the published layouts; returns its folder."""
    ten = classes == 10
    kind = ("py" if ten else "python") if pickled else ("bin" if ten else "binary")
    folder = root / (f"cifar-10-batches-{kind}" if ten else f"cifar-100-{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data_batch_{i + 1}" for i in range(train)] + ["test_batch"] if ten else ["train", "test"]
    for number, name in enumerate(names):
        images, labels = tiny(n, classes=classes, size=(3, 32, 32), seed=number)
        rows = images.reshape(n, -1)
        if pickled:
            batch = {b"data": rows, b"labels" if ten else b"fine_labels": labels.tolist()}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
        else:
            heads = [labels[:, None]] if ten else [labels[:, None] // 5, labels[:, None]]
            records = np.concatenate([*heads, rows], axis=1).astype(np.uint8)
            (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


def write_pictures(
    folder: Path, *, classes: Sequence[str] = ("cat", "dog"), n: int = 5, mode: str = "RGB"
) -> None:
    """`n` PNG files of 12 x 12 for each class."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        images, _ = tiny(n, classes=2, size=(12, 12, 3), seed=number)
        for i, image in enumerate(images):
            Image.fromarray(image).convert(mode).save(folder / name / f"{i}.png")


class Server(ThreadingHTTPServer):
    """A loopback web server with faults: `ranges` off, or one answer that breaks off after `cut` bytes."""

    def __init__(self, files: dict[str, bytes], *, ranges: bool = True, cut: int | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.ranges, self.cut = files, ranges, cut
        self.asked: list[str | None] = []  # the Range header of each request
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut, self.server.cut = self.server.cut, None
        self.wfile.write(content[start:] if cut is None else content[start : start + cut])

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the test's output quiet."""


def tables() -> Path:
    """The folder of NAS-Bench-201's tables; they are read as they are. Absent: as with `unpacked`."""
    for folder in (Path(os.environ.get("NAS_DATA", ".")) / "nas", SCRIPT.parent / "nas"):
        if (folder / "nasbench201.csv.gz").exists():
            return folder
    _absent("nas")
