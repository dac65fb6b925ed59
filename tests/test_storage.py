"""Shared storage: what is written is whole, and a training that was cut off goes on from it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import nas
from nas.data.batches import Examples
from nas.data.dataset import Split
from nas.evaluators import scratch
from nas.execution import Trial
from nas.execution.local import Local
from nas.recipe import Recipe
from nas.storage import load_state, reachable, read, remove, save_state, write


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_what_is_written_is_read_again(tmp_path: Path, scheme: str) -> None:
    place = f"{scheme}{tmp_path}/a/b/state.pt"
    assert read(place) is None
    assert load_state(place) is None
    remove(place)
    save_state(place, {"epoch": 3, "weights": torch.arange(4.0)})
    found = load_state(place)
    assert found is not None
    assert found["epoch"] == 3
    assert torch.equal(found["weights"], torch.arange(4.0))
    write(place, b"torn")
    assert load_state(place) is None  # as if it were not there
    remove(place)
    assert read(place) is None
    reachable(f"{scheme}{tmp_path}")


@pytest.mark.parametrize("place", ["/proc/nowhere", "nothing://here"])
def test_storage_that_is_none_is_told_at_once(place: str) -> None:
    with pytest.raises(ValueError, match="nothing can be written at"):
        Local(lambda trial, *, seed: {}, storage=place)


@pytest.mark.parametrize("hurdles", [(), (0.0,)])
@pytest.mark.parametrize("ended", [1, 3, 4])
def test_a_candidate_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: int, hurdles: tuple[float, ...]
) -> None:
    """Cut off after some epochs and evaluated again: the same result to the bit, only the rest is trained."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 8).astype(np.int64)
    split = Split(rng.integers(0, 256, (32, 1, 8, 8)).astype(np.uint8), labels)
    space = nas.space("nasbench201", channels=2, cells=1, classes=4, input=(1, 8, 8))
    examples = Examples(split, split, (0.4,), (0.3,))
    evaluate = scratch.Scratch(space, examples, Recipe(epochs=4, batch=8, ema=0.9))
    trial = Trial(0, space.sample(Random(1)), hurdles=hurdles)
    expected = evaluate(trial, seed=7)
    kept = Trial(0, trial.architecture, hurdles=hurdles, checkpoint=f"{tmp_path}/s/trial-0.pt")
    saved: list[str] = []

    def save(place: str, state: dict[str, Any]) -> None:
        save_state(place, state)
        saved.append(place)
        if len(saved) == ended:
            raise KeyboardInterrupt

    monkeypatch.setattr(scratch, "save_state", save)
    with pytest.raises(KeyboardInterrupt):
        evaluate(kept, seed=7)
    assert evaluate(kept, seed=7) == expected
    assert len(saved) == 4
    assert not list((tmp_path / "s").iterdir())
