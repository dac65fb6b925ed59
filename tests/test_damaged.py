"""A ledger that is damaged, and data that are not those with which a run began."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.data import load
from nas.run import Run, events
from nas.training import facts_of, same_data


def test_a_damaged_line_is_named_and_nothing_after_it_is_lost(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {"command": "search"}, {}) as run:
        run.log("epoch", step=1)
        run.log("epoch", step=2)
    path = tmp_path / "run" / "events.jsonl"
    damaged = b"rubbish\n" + path.read_bytes()
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="line 1"):
        list(events(tmp_path / "run"))
    with pytest.raises(ValueError, match="line 1"):
        Run.open(tmp_path / "run")
    assert path.read_bytes() == damaged


def test_other_data_are_refused(tmp_path: Path) -> None:
    config = {"command": "search", "seed": 0, "data": {"valid": 0.5}}
    began = load("digits", root=tmp_path, limit=100)
    with Run.create(tmp_path / "run", config, facts_of(config, began)) as run:
        same_data(run, began)
        with pytest.raises(ValueError, match="the data are not those"):
            same_data(run, load("digits", root=tmp_path, limit=90))
