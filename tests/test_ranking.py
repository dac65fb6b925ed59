"""Ranking: what a rank correlation says, and that a search measures what it says it measures."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from conftest import TINY_DARTS, Command, sets
from scipy.stats import kendalltau, spearmanr
from strategy_helpers import ONE_SHOT, tiny_search

from nas.correlation import FEWEST, SHARED, Correlation, _kendall, _spearman, told
from nas.execution import Trial
from nas.loop import Search
from nas.run import Run, events
from nas.search_space import space
from nas.seeding import derive
from nas.strategies import OneShot
from nas.training import load_data

ORDER = ("do not trust", "doubt", "trust")


def pairs(count: int, *, noise: float, seed: int = 0) -> list[tuple[float, float]]:
    """Values of which the second follow the first, but for noise; some are equal."""
    rng = Random(seed)
    firsts = [round(rng.uniform(0, 1), 1) for _ in range(count)]
    return [(x, round(x + rng.gauss(0, noise), 2)) for x in firsts]


# --- the statistics ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5, 5.0])
def test_kendall_counts_pairs(noise: float) -> None:
    """tau-b (Kendall 1945): concordant less discordant pairs, over the pairs that are not tied in either."""
    values = pairs(25, noise=noise)
    signs = [(((a > c) - (a < c)), ((b > d) - (b < d))) for (a, b), (c, d) in combinations(values, 2)]
    agreement = sum(x * y for x, y in signs)
    norm = (sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)) ** 0.5
    assert Correlation(values).kendall == pytest.approx(agreement / norm)


@pytest.mark.parametrize("noise", [0.0, 0.3, 5.0])
def test_both_are_those_of_the_literature(noise: float) -> None:
    """Against scipy, for all pairs and for those that a resample has."""
    for seed in range(5):
        values = pairs(15, noise=noise, seed=seed)
        found = Correlation(values)
        assert found.kendall == pytest.approx(kendalltau(*zip(*values, strict=True)).statistic)
        assert found.spearman == pytest.approx(spearmanr(*zip(*values, strict=True)).statistic)
        drawn = Random(seed).choices(range(15), k=15)
        again = [values[i] for i in drawn]
        counts = np.array([[float(drawn.count(i)) for i in range(15)]])
        columns = np.array(values).T
        assert _kendall(columns, counts)[0] == pytest.approx(kendalltau(*zip(*again, strict=True)).statistic)
        assert _spearman(columns, counts)[0] == pytest.approx(spearmanr(*zip(*again, strict=True)).statistic)


@pytest.mark.parametrize("noise", [0.0, 0.3, 5.0])
def test_correlations_are_of_ranks_alone(noise: float) -> None:
    values = pairs(20, noise=noise)
    stretched = [(x**3, 7 * y - 2) for x, y in values]
    turned = [(x, -y) for x, y in values]
    for name in ("kendall", "spearman"):
        found = getattr(Correlation(values), name)
        assert getattr(Correlation(stretched), name) == pytest.approx(found)
        assert getattr(Correlation(turned), name) == pytest.approx(-found)
        low, high = Correlation(values).intervals[name]
        assert -1 <= low <= found <= high <= 1


def test_the_interval_narrows_with_more_networks() -> None:
    widths = []
    for count in (10, 40, 160):
        low, high = Correlation(pairs(count, noise=0.3)).intervals["kendall"]
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_the_word_is_that_of_the_lower_end() -> None:
    same = [(x / 10, x / 10) for x in range(10)]
    assert Correlation(same).word == "trust"
    assert Correlation([(x, -y) for x, y in same]).word == "do not trust"
    assert Correlation([(0.5, y) for _, y in same]).word == "do not trust"
    found = {}
    for seed in range(40):
        each = Correlation(pairs(12, noise=0.4, seed=seed))
        found[each.word] = each
        low = each.intervals["kendall"][0]
        for other in found.values():  # the words follow the lower end
            if other.intervals["kendall"][0] <= low:
                assert ORDER.index(other.word) <= ORDER.index(each.word)
    assert len(found) == 3
    for word, each in found.items():
        sentence = told({"word": word, "metrics": each.metrics()})
        assert sentence.lower().startswith(f"{word} ")


def test_chance_is_hardly_ever_trusted() -> None:
    words = [
        Correlation([(rng.random(), rng.random()) for _ in range(12)]).word for rng in map(Random, range(200))
    ]
    assert words.count("trust") <= 4
    assert words.count("do not trust") >= 180


# --- in a search -------------------------------------------------------------------------------------------


def searched(folder: Path, nas: Command, *settings: str) -> dict[str, Any]:
    done = nas("search", *sets(list(settings)), "--device", "cpu", "--run", folder, "--json")
    assert done.status == 0, done.err
    return dict(done.document)


@pytest.mark.parametrize(
    "name", ["darts", "rsws", *(pytest.param(n, marks=pytest.mark.slow) for n in ONE_SHOT)]
)
def test_what_is_compared_is_what_supernet_and_evaluator_say(name: str, tmp_path: Path, nas: Command) -> None:
    document = searched(tmp_path / "r", nas, *tiny_search(name))
    lines = [event for event in events(tmp_path / "r") if event["kind"] == "ranked"]
    assert [event["number"] for event in lines] == list(range(3))
    assert len({event["digest"] for event in lines}) == 3
    with Run.open(tmp_path / "r") as run:
        config = run.config
        search = Search(run, config, load_data(config))
        assert isinstance(search.strategy, OneShot)
        task = search.task(None)
        search.strategy.resume(task, (), run.load())
        search.strategy.begin(task)
        evaluate = search.executor().evaluate  # type: ignore[attr-defined]
    sound = [event for event in lines if "error" not in event]
    for event in sound:
        architecture = search.space.parse(event["literal"])
        assert event["metrics"][SHARED] == search.strategy.score(architecture)
        seed = derive(search.seed, "trial", event["number"])
        alone = evaluate(Trial(event["number"], architecture, 1), seed=seed)
        assert alone["valid_accuracy"] == event["metrics"]["valid_accuracy"]
    values = [(event["metrics"][SHARED], event["metrics"]["valid_accuracy"]) for event in sound]
    assert document["ranking"] == {"word": Correlation(values).word, **Correlation(values).metrics()}


def test_a_table_is_as_good_as_training(tmp_path: Path, nas: Command) -> None:
    made = space("nasbench201", channels=2, cells=1, classes=10, input=(1, 8, 8))
    cells = {each.literal: Random(each.literal).random() for each in map(made.at, range(made.size))}
    table = tmp_path / "t.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows([("arch", "known"), *cells.items()])
    known = ["evaluator.name=table", f"evaluator.path={table}", "evaluator.columns=[known]"]
    given = [*known, "ranking.metric=known", "ranking.networks=5"]
    searched(tmp_path / "r", nas, *tiny_search("rsws"), *given)
    lines = [event for event in events(tmp_path / "r") if event["kind"] == "ranked"]
    assert len(lines) == 5
    assert all(event["metrics"]["known"] == cells[event["literal"]] for event in lines)


@pytest.mark.parametrize(
    ("metric", "settings"),
    [("latency_ms", []), ("valid_loss:min", []), ("snip", ["evaluator=zero_cost"]), ("params:max", [])],
)
def test_what_is_compared_is_measured(metric: str, settings: list[str], tmp_path: Path, nas: Command) -> None:
    given = [*settings, f"ranking.metric={metric}", "ranking.networks=4"]
    document = searched(tmp_path / "r", nas, *tiny_search("rsws"), *given)
    name, _, direction = metric.partition(":")
    lines = [event["metrics"] for event in events(tmp_path / "r") if event["kind"] == "ranked"]
    assert all(set(line) == {SHARED, name} for line in lines)
    sign = -1 if direction == "min" or name == "latency_ms" else 1
    values = [(line[SHARED], sign * line[name]) for line in lines]
    assert document["ranking"]["kendall"] == Correlation(values).kendall
    assert document["ranking"]["networks"] == 4


def test_few_networks_tell_nothing(tmp_path: Path, nas: Command) -> None:
    document = searched(tmp_path / "r", nas, *tiny_search("rsws"), f"ranking.networks={FEWEST - 1}")
    assert document["ranking"] == {"word": None, "networks": FEWEST - 1}
    assert "ranking" not in searched(tmp_path / "s", nas, *tiny_search("rsws"), "ranking.networks=0")


def test_what_was_measured_is_not_measured_again(tmp_path: Path, nas: Command) -> None:
    whole = searched(tmp_path / "r", nas, *tiny_search("rsws"))
    ledger = tmp_path / "r" / "events.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    second = next(i for i, line in enumerate(lines) if '"number": 1' in line)
    kept = lines[: second + 1]
    kept[second] = kept[second].replace(f'"{SHARED}": ', f'"{SHARED}": 0.5, "was": ')
    ledger.write_text("".join(kept))
    nas("resume", tmp_path / "r", "--quiet")
    again = [event for event in events(tmp_path / "r") if event["kind"] == "ranked"]
    first = [json.loads(line) for line in lines if '"ranked"' in line]
    assert again[1]["metrics"][SHARED] == 0.5
    for place in (0, 2):
        assert again[place]["metrics"] == first[place]["metrics"]
    assert whole["ranking"]["networks"] == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["strategy=random", "budget=1trials", "ranking.networks=3"], "has no supernet"),
        (["strategy=darts", "ranking.metric=valid_acuracy"], "did you mean 'valid_accuracy'"),
        (["strategy=darts", "ranking.network=3"], "did you mean 'networks'"),
        (["strategy=darts", "evaluator=table"], "evaluator.path has no default"),
        (["strategy=darts", "evaluator.name=table", "evaluator.path=nowhere.csv"], "no file is there"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: list[str], sentence: str, nas: Command) -> None:
    own = [each for each in TINY_DARTS if not each.startswith(("ranking", "budget", "strategy"))]
    done = nas("search", *sets([*own, *settings]), "--run", "r")
    assert done.status == 2
    assert sentence in done.err
    assert not Path("r").exists()
