"""Randomness keyed by what it is for: (seed, purpose, number). Nothing depends on what was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random


def derive(*key: object) -> int:
    """A seed (63 bits) for this key, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def generator(*key: object) -> Random:
    """A generator of Python's for this key."""
    return Random(derive(*key))


@contextmanager
def randomness(*key: object) -> Iterator[None]:
    """PyTorch's global generators seeded by this key inside the block, as they were after it."""
    import torch

    # Asking CUDA for its state would start it; where it has not started, there is no state to keep.
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count())) if used else []):
        torch.manual_seed(derive(*key))
        yield
