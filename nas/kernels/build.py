"""compiled(): a C++ file of this folder as a library, built on first use and kept in the user's cache.

The compiler is ``$CXX`` or g++, version 9 or later (clang++ of version 9 with OpenMP does as well). Nothing
but its standard library is needed. ``NAS_KERNELS=off`` leaves the kernels out.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

TYPES = {torch.float32: "float32", torch.float64: "float64"}
LIBRARIES = ("depthwise", "pointwise", "mixing")
FOLDER = Path(__file__).parent
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp", "-fPIC")
LIMIT = 120  # seconds to build in


@cache
def compiler() -> tuple[str, ...] | None:
    """The C++ compiler of this machine, as a command; None if there is none."""
    program, *options = shlex.split(os.environ.get("CXX", "")) or ["g++"]
    found = shutil.which(program)
    return None if found is None else (found, *options)


@cache
def compiled(name: str) -> ctypes.CDLL | None:
    """The library of ``<name>.cpp``; None if there is none to be had here."""
    command = compiler()
    if os.environ.get("NAS_KERNELS") == "off" or command is None:
        return None
    source = FOLDER / f"{name}.cpp"
    read = [path.read_bytes() for path in (source, *sorted(FOLDER.glob("*.h")))]
    facts = [*read, " ".join(FLAGS).encode(), " ".join(command).encode(), _processor().encode()]
    key = hashlib.sha256(b"\0".join(facts)).hexdigest()[:16]
    try:
        library = _cache() / f"{name}-{key}.so"
        if not library.exists():
            _build(command, source, library)
        return ctypes.CDLL(str(library))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: no home
        logging.getLogger("nas").info("no compiled %s (%s): PyTorch's own is used", name, error)
        return None


def usable(name: str, x: torch.Tensor) -> bool:
    """Whether the library `name` can be had, and computes with such images (batch, channels, h, w)."""
    fits = x.device.type == "cpu" and x.dtype in TYPES and x.dim() == 4 and x.numel() > 0
    return fits and _off == 0 and not torch.compiler.is_compiling() and compiled(name) is not None


_off = 0


@contextmanager
def off() -> Iterator[None]:
    """Within it no kernel is used."""
    global _off
    _off += 1
    try:
        yield
    finally:
        _off -= 1


def _build(compiler: tuple[str, ...], source: Path, library: Path) -> None:
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built = Path(folder) / library.name
        command = [*compiler, *FLAGS, "-shared", str(source), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
        built.replace(library)  # at once, whoever else builds it


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nas"


def _processor() -> str:
    """What a library built for this processor depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
