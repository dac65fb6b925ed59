"""The strategies as searchers of Ray Tune's, and the spaces as suggestions of Optuna's."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import optuna
import pytest
from ray.tune.search import Searcher
from strategy_helpers import ONE_SHOT, Evaluated

from nas.execution.early_stop import STOPPED
from nas.goal import Goal
from nas.integrations.optuna import suggest
from nas.integrations.tune import StrategySearcher
from nas.search_space import SPACES, Architecture, Limit, SearchSpace, space
from nas.strategies import STRATEGIES, AskTell, Task

BLACK_BOX = sorted(name for name, made in STRATEGIES.items() if issubclass(made, AskTell))
ARGUMENTS: dict[str, dict[str, Any]] = {"zero_cost": {"candidates": 8}, "gp": {"startup": 6}}
TRIALS = 14
Begin = Callable[..., subprocess.Popen[str]]
CHAIN, FEW = space("chain", channels=4), space("chain", layers=1, channels=4)
SIZES, RULES = space("nasbench_sss"), space("nasbench101", channels=4, cells=1)
EXAMPLE = Path(__file__).parents[1] / "examples" / "tune_search.py"


def number_of(literal: str) -> float:
    return zlib.crc32(literal.encode()) / 2**32


def result_of(literal: str) -> dict[str, float] | None:
    """A number of an architecture; about one in eight fails."""
    value = number_of(literal)
    return None if value < 1 / 8 else {"a": value}


def fitting(name: str) -> SearchSpace:
    """A space that a strategy can search."""
    return {"cmaes": SIZES, "asha": RULES, "tpe": RULES}.get(name, CHAIN)


def searcher_of(name: str, on: SearchSpace) -> StrategySearcher:
    section = {"name": name, **ARGUMENTS.get(name, {})}
    return StrategySearcher(on, section, metric="a", mode="max", seed=5, trials=TRIALS)


def complete(searcher: StrategySearcher, trial_id: str, config: dict[str, Any]) -> None:
    result = result_of(config["architecture"])
    told = {**result, "training_iteration": 1, "pid": 7, "hostname": "a"} if result else None
    searcher.on_trial_complete(trial_id, result=told, error=result is None)


def one_by_one(searcher: StrategySearcher, trials: int) -> list[tuple[str, int | None]]:
    """What is suggested if each result is told before the next suggestion."""
    found: list[tuple[str, int | None]] = []
    while len(found) < trials:
        config = searcher.suggest(f"trial{len(found)}")
        if config == Searcher.FINISHED:
            break
        assert set(config) <= {"architecture", "epochs"}
        complete(searcher, f"trial{len(found)}", config)
        found.append((config["architecture"], config.get("epochs")))
    return found


def own_search(name: str, on: SearchSpace, trials: int) -> list[tuple[str, int | None]]:
    """What a search of ours evaluates, one trial after the other."""
    executor = Evaluated(lambda trial: result_of(trial.architecture.literal) or {})
    strategy = STRATEGIES[name](**ARGUMENTS.get(name, {}))
    task = Task(on, seed=5, trials=trials, goals=(Goal("a"),), executor=executor)
    strategy.resume(task, (), None)
    list(strategy.reports(task))
    return [(trial.architecture.literal, trial.epochs) for trial in executor.evaluated]


# --- laws of all searchers ----------------------------------------------------------------------------------


# A space of few architectures without numbers: for all that do not need ordered numbers, as cmaes does.
SPACES_OF_ALL = [(name, on) for name in BLACK_BOX for on in ("many", "few") if (name, on) != ("cmaes", "few")]


@pytest.mark.parametrize(("name", "members"), SPACES_OF_ALL)
def test_told_in_order_it_proposes_what_our_search_does(name: str, members: str) -> None:
    """Also where proposals repeat known results, and where there is nothing left to propose."""
    on = FEW if members == "few" else fitting(name)
    found = one_by_one(searcher_of(name, on), TRIALS)
    assert found == own_search(name, on, TRIALS)
    for literal, _ in found:
        assert on.why_not(on.parse(literal)) is None


@pytest.mark.parametrize("name", BLACK_BOX)
def test_saved_anywhere_it_goes_on_identically(name: str, tmp_path: Path) -> None:
    """Three trials at a time, which end in any order; saved and restored, or pickled, it goes on so."""
    on = fitting(name)
    whole, rng = searcher_of(name, on), Random(name)
    cuts, running = {rng.randrange(1, TRIALS) for _ in range(2)}, dict[str, dict[str, Any]]()
    others: list[StrategySearcher] = []
    for number in range(TRIALS):
        if number in cuts:
            whole.save(str(tmp_path / "state"))
            restored = searcher_of(name, on)
            restored.restore(str(tmp_path / "state"))
            others += [restored, pickle.loads(pickle.dumps(whole))]
        config = whole.suggest(f"trial{number}")
        assert [other.suggest(f"trial{number}") for other in others] == [config] * len(others)
        running[f"trial{number}"] = config
        for ended in rng.sample(sorted(running), max(0, len(running) - 2)):
            for searcher in (whole, *others):
                complete(searcher, ended, running[ended])
            del running[ended]
    assert others
    for other in others:
        assert other.strategy.told == whole.strategy.told


# --- what a searcher is told --------------------------------------------------------------------------------


def test_what_cannot_search_is_told() -> None:
    assert ONE_SHOT
    for name in ONE_SHOT:
        with pytest.raises(ValueError, match=r"trains a supernet and proposes no .* random, tpe"):
            StrategySearcher(CHAIN, name, metric="a")
    for wrong, match in (
        ({"strategy": "randon"}, "did you mean 'random'"),
        ({"strategy": {"name": "tpe", "startups": 3}}, "did you mean 'startup'"),
        ({"space": "nasbench201", "strategy": "cmaes"}, "cmaes needs a decision"),
        ({"metric": "a", "mode": "up"}, "'min' or 'max'"),
        ({"metric": ["a", "b"], "mode": "max"}, "does not fit"),
        ({"mode": "max"}, "without a metric"),
    ):
        with pytest.raises(ValueError, match=match):
            StrategySearcher(**{"space": CHAIN, **wrong})
    with pytest.raises(ValueError, match="metric='valid_accuracy'"):
        StrategySearcher(CHAIN).suggest("one")


def test_metrics_and_directions() -> None:
    """In Tune's words or ours, from the searcher or from TuneConfig."""
    made = StrategySearcher(CHAIN, metric=["a", "params"])
    assert (made.metric, made.mode) == (["a", "params"], ["max", "min"])
    made = StrategySearcher(CHAIN, metric="loss")
    assert (made.metric, made.mode) == ("loss", "min")
    made = StrategySearcher(CHAIN)
    assert made.set_search_properties("a", "min", {}, num_samples=7) is False
    assert (made.goals, made.trials) == ((Goal("a", smallest=True),), 7)
    made.set_max_concurrency(3)
    assert made.lag == 2


def test_results_that_are_none(caplog: pytest.LogCaptureFixture) -> None:
    """A trial fails that reports no number; one that is not known, or was told, changes nothing."""
    made = StrategySearcher(CHAIN, metric="a")
    for trial, result in (("x", {"b": 1.0}), ("y", {"a": float("nan")}), ("z", None)):
        config = made.suggest(trial)
        assert made.suggest(trial) == config
        made.on_trial_complete(trial, result)
        made.on_trial_complete(trial, {"a": 1.0})
    made.on_trial_complete("unknown", {"a": 1.0})
    assert [result for _, result in made.strategy.told] == [None] * 3
    assert "not suggested by this searcher" in caplog.text
    assert "it reported no 'a'" in caplog.text


def test_a_stopped_trial_is_never_the_best() -> None:
    made = StrategySearcher(CHAIN, {"name": "random", "epochs": 4}, metric="a", time_attr="epoch")
    for trial, epochs, value in (("x", 4, 0.5), ("y", 2, 0.9)):
        assert made.suggest(trial)["epochs"] == 4
        made.on_trial_complete(trial, {"a": value, "epoch": epochs})
    assert [result for _, result in made.strategy.told] == [{"a": 0.5}, {"a": 0.9, STOPPED: 2.0}]
    assert made.strategy.best_trial is not None
    assert made.strategy.best_trial.number == 0


def test_a_state_of_another_search_is_refused(tmp_path: Path) -> None:
    made, state = StrategySearcher(CHAIN, "tpe", metric="a"), str(tmp_path / "state")
    complete(made, "x", made.suggest("x"))
    made.save(state)
    for other in (
        StrategySearcher(FEW, "tpe", metric="a"),
        StrategySearcher(CHAIN, "random", metric="a"),
        StrategySearcher(CHAIN, "tpe", metric="b"),
        StrategySearcher(CHAIN, "tpe", metric="a", seed=1),
    ):
        with pytest.raises(ValueError, match="is of another search"):
            other.restore(state)
    later = StrategySearcher(CHAIN, "tpe")  # whose metric TuneConfig would give
    later.restore(state)
    assert later.suggest("y") == made.suggest("y")
    Path(state).write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match="was not written by"):
        made.restore(state)


def test_neither_package_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, nas.api, nas.strategies, nas.integrations; print({'ray', 'optuna'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


# --- Tune itself --------------------------------------------------------------------------------------------

# Trial `BLOCKED` waits for a file: there the driver is killed. Every evaluation leaves a line.
BLOCKED = 4
DRIVER = f"""
import sys, time, zlib
from pathlib import Path
import ray
from ray import tune
from nas.integrations.tune import StrategySearcher

folder = Path(sys.argv[1])

def train(config):
    literal = config["architecture"]
    with open(folder / "evaluated", "a") as file:
        file.write(literal + chr(10))
    while len((folder / "evaluated").read_text().split()) > {BLOCKED} and not (folder / "go").exists():
        time.sleep(0.05)
    tune.report({{"a": zlib.crc32(literal.encode()) / 2**32}})

if __name__ == "__main__":
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    if tune.Tuner.can_restore(folder / "search"):
        tuner = tune.Tuner.restore(str(folder / "search"), train)
    else:
        searcher = StrategySearcher("chain?layers=1", "regularized_evolution", metric="a", mode="max", seed=5)
        settings = {{"num_samples": 50, "max_concurrent_trials": 1, "reuse_actors": True}}
        chosen = tune.TuneConfig(search_alg=searcher, **settings)
        tuner = tune.Tuner(train, tune_config=chosen, run_config=tune.RunConfig("search", str(folder)))
    found = tuner.fit()
    print(len(found), len(found.errors), found.get_best_result("a", "max").config["architecture"])
"""


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins a Python process in a group of its own, which ends with the test."""
    made: list[subprocess.Popen[str]] = []

    def begin(*command: object, **environment: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", **environment}
        words = [sys.executable, *map(str, command)]
        made.append(subprocess.Popen(words, env=environment, start_new_session=True, **pipes))  # type: ignore[call-overload]
        return made[-1]

    yield begin
    for process in made:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def events(folder: Path) -> list[dict[str, Any]]:
    """What the searcher was asked and told, as of the newest state in a folder of Tune's."""
    with suppress(IndexError, ValueError):  # there is none yet, or it is being written
        return list(json.loads(sorted(folder.glob("searcher-state-*"))[-1].read_text())["events"])
    return []


def blocked(folder: Path) -> bool:
    """Whether all trials before the one that waits are in the state, and that one runs."""
    kinds = [event["kind"] for event in events(folder / "search")]
    running = kinds == ["start", "trial"] * BLOCKED + ["start"]
    return running and len((folder / "evaluated").read_text().split()) > BLOCKED


@pytest.mark.slow
def test_killed_the_driver_goes_on_with_restore(tmp_path: Path, begin: Begin) -> None:
    """After kill -9 nothing that ended is evaluated again, and what is proposed is as if never killed.

    The space has few networks: in the end the strategy has nothing to propose, and Tune ends.
    """
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = begin(tmp_path / "driver.py", tmp_path, TUNE_GLOBAL_CHECKPOINT_S="0.5")
    until = time.monotonic() + 90
    while not blocked(tmp_path):
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(2)  # until the state in the storage is a whole one
    driver.kill()
    driver.wait()
    before = (tmp_path / "evaluated").read_text().split()
    (tmp_path / "go").touch()
    output, _ = (driver := begin(tmp_path / "driver.py", tmp_path)).communicate(timeout=100)
    assert driver.returncode == 0, output
    evaluated = (tmp_path / "evaluated").read_text().split()
    assert len(before) == BLOCKED + 1
    again = evaluated[len(before) :]
    assert again[0] == before[-1]  # which ran when the driver was killed
    made = StrategySearcher("chain?layers=1", "regularized_evolution", metric="a", mode="max", seed=5)
    expected: list[str] = []
    while (config := made.suggest(f"{len(expected)}")) != Searcher.FINISHED:
        made.on_trial_complete(f"{len(expected)}", {"a": number_of(config["architecture"])})
        expected.append(config["architecture"])
    assert before[:-1] + again == expected
    assert output.split()[-3:] == [f"{len(expected)}", "0", max(expected, key=number_of)]


def test_the_example(tmp_path: Path, begin: Begin) -> None:
    """Tune's scheduler stops trials, and the folder stays small."""
    output, _ = (process := begin(EXAMPLE, tmp_path)).communicate(timeout=110)
    assert process.returncode == 0, output
    literal, accuracy = output.split()[-2:]
    assert space("nasbench201").parse(literal)
    assert float(accuracy) > 0.3
    told = [event["metrics"] for event in events(tmp_path / "tune_search") if event["kind"] == "trial"]
    assert len(told) == 8
    assert any(STOPPED in metrics for metrics in told)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 1_000_000


# --- Optuna -------------------------------------------------------------------------------------------------


def study_of(sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize", sampler=sampler)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("name", sorted(SPACES))
def test_suggestions_are_legal_or_pruned(name: str, conditional: bool) -> None:
    """The parameters of a trial, and its literal, give its architecture again."""
    made, study = space(name), study_of(optuna.samplers.RandomSampler(seed=0))
    legal = 0
    for _ in range(10):
        trial = study.ask()
        try:
            found = suggest(trial, made, conditional=conditional)
        except optuna.TrialPruned:
            continue
        legal += 1
        assert made.why_not(found) is None
        assert made.parse(trial.user_attrs["literal"]) == found
        again = optuna.trial.FixedTrial(trial.params)
        assert suggest(again, made, conditional=conditional) == found
    assert legal >= 3


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("conditional", [True, False])
def test_every_network_can_be_suggested(conditional: bool) -> None:
    made, study = space("chain?layers=2"), study_of(optuna.samplers.BruteForceSampler(seed=0))
    found: list[Architecture] = []

    def objective(trial: optuna.Trial) -> float:
        found.append(suggest(trial, made, conditional=conditional))
        return number_of(found[-1].literal)

    study.optimize(objective, 1000)
    every = [made.at(place) for place in range(made.size)]
    assert {each.digest for each in found} == {each.digest for each in every}
    if not conditional:
        assert {each.literal for each in found} == {each.literal for each in every}
    assert len(found) == len({each.literal for each in found})


def test_every_row_and_option_can_be_suggested() -> None:
    """A DARTS node keeps two of its rows."""
    made, study = space("darts"), study_of(optuna.samplers.RandomSampler(seed=0))
    seen = set()
    for _ in range(200):
        for name, value in suggest(study.ask(), made, conditional=False).choices.items():
            seen |= {(name, row, option) for row, option in value}
    assert seen == {
        (d.name, row, option) for d in made.decisions for row in range(d.rows) for option in d.legal
    }


def test_a_study_goes_on_past_what_breaks_a_limit() -> None:
    """And its best trial keeps the limit."""
    plain = space("nasbench201", channels=4, cells=1)
    convolutions = Limit("convolutions", 2, lambda each: each.literal.count("conv"))
    made, study = plain.limited(convolutions), study_of(optuna.samplers.TPESampler(seed=0))
    study.optimize(lambda trial: float(suggest(trial, made).literal.count("conv")), 60)
    states = [trial.state.name for trial in study.trials]
    assert set(states) == {"COMPLETE", "PRUNED"}
    with pytest.raises(optuna.TrialPruned, match=r"is not legal: convolutions is 6, more than 2"):
        suggest(optuna.trial.FixedTrial(dict.fromkeys(study.trials[0].params, "nor_conv_3x3")), made)
    assert study.best_value == 2
    assert suggest(optuna.trial.FixedTrial(study.best_params), made).literal.count("conv") == 2
