"""Limits on what may be found: honoured by all ways to an architecture; impossible ones end."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import Command, sets

from nas.constraints import constrained
from nas.counting import cost
from nas.graph import Builder, Hole
from nas.search_space import SPACES, Architecture, Decision, SearchSpace, space
from nas.search_space.rules import ranked

# Spaces with the median of parameters or multiply-adds as the limit: about half of the draws break it.
CASES = [
    (name, figure) for name in ("nasbench201", "darts", "mobile", "blocks") for figure in ("params", "macs")
]


def limited(name: str, figure: str, share: float = 0.5) -> tuple[SearchSpace, float]:
    made = space(name, **SPACES.facts(name)["small"])
    figures = sorted(measured(made, made.sample(Random(i)), figure) for i in range(60))
    most = figures[int(share * len(figures))]
    return constrained(made, {f"max_{figure}": most}, scale=made.scale), most


def measured(made: SearchSpace, architecture: Architecture, figure: str) -> float:
    return float(getattr(cost(made.fill(architecture)), figure))


@pytest.mark.parametrize(("name", "figure"), CASES)
def test_all_ways_to_an_architecture_honour_a_limit(name: str, figure: str) -> None:
    made, most = limited(name, figure)
    parents = [made.sample(Random(i)) for i in range(12)]
    children = [made.mutate(parent, Random(i)) for i, parent in enumerate(parents)]
    crossed = [made.cross(a, b, Random(0)) for a, b in zip(parents, children, strict=True)]
    rng = Random(0)
    tables = [
        {d.name: [[rng.random() for _ in d.options] for _ in range(d.rows)] for d in made.decisions}
        for _ in range(4)
    ]
    derived = [made.project(table) for table in tables]
    near = list(made.neighbours(parents[0]))
    for each in (*parents, *children, *crossed, *derived, *near):
        assert measured(made, each, figure) <= most
    assert all(child.digest != parent.digest for parent, child in zip(parents, children, strict=True))


@pytest.mark.parametrize("name", ["nasbench201", "blocks"])
def test_tight_limits_are_met(name: str) -> None:
    """A limit that hardly any draw meets: the closest one is repaired."""
    made = space(name, **SPACES.facts(name)["small"])
    least = min(measured(made, made.sample(Random(i)), "params") for i in range(200))
    tight = constrained(made, {"max_params": least}, scale=made.scale)
    assert all(measured(made, tight.sample(Random(i)), "params") <= least for i in range(5))
    tables = {d.name: [[float(i) for i in range(len(d.options))]] * d.rows for d in made.decisions}
    assert measured(made, tight.project(tables), "params") <= least


def test_impossible_limits_end_with_the_closest() -> None:
    made = space("nasbench201", channels=4, cells=1)
    impossible = constrained(made, {"max_params": 10}, scale=made.scale)
    smallest = min(measured(made, made.sample(Random(i)), "params") for i in range(300))
    with pytest.raises(ValueError, match=rf"the closest is .*: params is {smallest:,.0f}, more than 10"):
        impossible.sample(Random(0))
    tables = {d.name: d.mask(made.parse("best").choices[d.name]) for d in made.decisions}
    with pytest.raises(ValueError, match=r"the closest is"):
        impossible.project(tables)
    with pytest.raises(ValueError, match="no other legal network"):
        impossible.mutate(made.parse("best"), Random(0))


def test_candidates_come_best_first() -> None:
    """`ranked` meets every architecture once, from the best sum of scores to the worst."""
    b = Builder((1, 8, 8))
    b("a", Hole("first"), "input", out=2)
    b("b", Hole("second", 1), "a", out=2)
    b("c", Hole("second", 0), "a", out=2)
    b("d", "sum", "b", "c")
    b("pool", "global_avg_pool", "d")
    b("classifier", "linear", "pool", out=2)
    decisions = (
        Decision("first", ("conv_1x1", "conv_3x3", "conv_5x5")),
        Decision("second", ("conv_1x1", "conv_3x3"), rows=2, keep=1),
    )
    made = SearchSpace(decisions, b.graph())
    for seed in range(100):
        rng = Random(seed)
        scores = {d.name: [[rng.random() for _ in d.options] for _ in range(d.rows)] for d in decisions}
        found = list(ranked(made, scores))
        totals = [
            sum(
                scores[d.name][row][d.options.index(option)]
                for d in decisions
                for row, option in each.choices[d.name]
            )
            for each in found
        ]
        assert len(found) == len(set(found)) == made.size == 12
        assert totals == sorted(totals, reverse=True)
        assert made.project(scores) == found[0]


def test_limits_travel_to_other_processes() -> None:
    made, most = limited("nasbench201", "params")
    again = pickle.loads(pickle.dumps(made))
    assert all(measured(made, again.sample(Random(i)), "params") <= most for i in range(5))


FEW = """
def few(architecture):
    "At most two empty edges"
    n = architecture.literal.count("none")
    return None if n <= 2 else f"{n} edges are empty, at most 2 may be"
"""


def sampled(nas: Command, *settings: str) -> list[dict[str, Any]]:
    outcome = nas("sample", "nasbench201", "-n", "8", "--json", *sets(list(settings)))
    assert outcome.status == 0, outcome.err
    return list(outcome.document)


def test_limits_on_the_command_line(nas: Command, tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(FEW)
    assert all(row["params"] <= 6e5 for row in sampled(nas, "space.max_params=6e5"))
    assert all(row["macs"] <= 8e7 for row in sampled(nas, "space.max_macs=8e7"))
    assert all(row["literal"].count("none") <= 2 for row in sampled(nas, "space.rule=rules.py:few"))
    assert sampled(nas, "space.max_latency_ms=1e6", "network.channels=2", "network.cells=1")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("space.max_params=0", "greater than 0"),
        ("space.max_params=many", "space.max_params = 'many'"),
        ("space.max_parms=3", "did you mean 'max_params'?"),
        ("space.rule=missing.py:few", "no Python file"),
        ("space.max_macs=1", "the closest is"),
    ],
)
def test_wrong_limits_are_one_sentence(nas: Command, setting: str, words: str, tmp_path: Path) -> None:
    outcome = nas(
        "search", "--space", "nasbench201", "--strategy", "random", "--set", setting, "--run", "run"
    )
    assert outcome.status == 2
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_search_finds_within_the_limit(nas: Command) -> None:
    settings = ["data.limit=60", "network.channels=4", "network.cells=1", "space.channels=2", "space.cells=1"]
    for strategy, budget in (("darts", "1epochs"), ("random", "2trials")):
        outcome = nas(
            *("search", "--space", "nasbench201", "--strategy", strategy, "--budget", budget, "--json"),
            *("--controls", "0", "--run", strategy, *sets([*settings, "space.max_params=6000"])),
        )
        assert outcome.status == 0, outcome.err
        assert json.loads(outcome.out)["params"] <= 6000
