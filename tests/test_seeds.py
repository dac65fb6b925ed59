"""Several searches, and the trainings of a comparison, side by side."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from conftest import TINY_RANDOM, Command, ledger, sets

from nas.run import events

SEARCH = ["search", *sets([*TINY_RANDOM, "controls=1"])]


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_seeds_are_searches_of_their_own(nas: Command, tmp_path: Path, workers: int) -> None:
    """Each is what one search with its seed is, and the document tells mean and deviation over them."""
    ended = nas(*SEARCH, "--seeds", 2, "--workers", workers, "--seed", 5, "--run", "r", "--json", "--quiet")
    assert ended.status == 0, ended.err
    told = ended.document
    scores = [search["metrics"]["valid_accuracy"] for search in told["searches"]]
    assert told["metrics"]["valid_accuracy"] == {
        "mean": statistics.fmean(scores), "std": statistics.stdev(scores), "n": 2,
    }  # fmt: skip
    assert set(told["controls"]) == set(told["searches"][0]["controls"])
    for seed in (5, 6):
        own = nas(*SEARCH, "--set", "threads=1", "--seed", seed, "--run", f"own-{seed}", "--json", "--quiet")
        assert own.status == 0, own.err
        assert ledger(Path("r") / f"seed-{seed}", without=()) == ledger(Path(f"own-{seed}"), without=())
    again = nas("resume", "r", "--json", "--quiet")
    assert again.document == told
    assert nas("report", "r").status == 0
    assert "seed-5" in Path("r/report.md").read_text()
    assert "name one" in nas("export", "r").err


def test_the_best_of_a_search_are_trained_side_by_side(nas: Command, tmp_path: Path) -> None:
    """As one after the other: the same results, in the order of the plan."""
    assert nas(*SEARCH, "--controls", 0, "--run", "found", "--quiet").status == 0
    best = sorted(
        (e for e in events(Path("found")) if e["kind"] == "trial"),
        key=lambda e: e["metrics"]["valid_accuracy"], reverse=True,
    )  # fmt: skip
    common = ["compare", "found", "--best", 2, "--seeds", 2, "--budget", "1epochs", "--quiet"]
    common += sets(["threads=1", "data.limit=60"])
    results = []
    for workers in (1, 2):
        ended = nas(*common, "--workers", workers, "--run", f"by-{workers}")
        assert ended.status == 0, ended.err
        told = [e for e in events(Path(f"by-{workers}")) if e["kind"] == "network"]
        results.append([(e["name"], e["seed"], e["metrics"]) for e in told])
    assert results[0] == results[1]
    config = json.dumps(list(events(Path("by-1"))))
    assert "found-1" in config
    assert "found-2" in config
    literals = Path("by-1/config.yaml").read_text()
    assert all(event["literal"] in literals for event in best[:2])


def test_what_has_no_trials_has_no_second_best(nas: Command, tmp_path: Path) -> None:
    given = [
        "search",
        *sets(["space.name=nasbench201", "space.channels=2", "space.cells=1", "data.limit=60"]),
    ]
    given += sets(["controls=0", "budget=1epochs", "ranking.networks=0", "network.channels=2"])
    assert nas(*given, "--strategy", "darts", "--run", "r", "--quiet").status == 0
    ended = nas("compare", "r", "--best", 2)
    assert ended.status == 2
    assert "no trials" in ended.err
