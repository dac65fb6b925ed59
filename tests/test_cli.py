"""The command line: documents, exit statuses, sentences in place of tracebacks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TINY, TINY_DARTS, TINY_RANDOM, TINY_TRAIN, Command, Outcome, sets
from PIL import Image

V2 = "darts:DARTS_V2"
COST = {"name", "params", "macs", "macs_attention", "input", "classes"}
SEARCH = {"run", "space", "strategy", "best", "params", "macs", "metrics", "controls", "cost"}
TRAIN = {"run", "accuracy", "loss", "split", "examples", "params", "macs"}
OWN = '''
from nas.search_space import SearchSpace, space
from nas.strategies import AskTell, Trial

def small(channels: int = 2, classes: int = 10, input: tuple[int, int, int] = (3, 32, 32)) -> SearchSpace:
    """NAS-Bench-201, one cell a stage"""
    return space("nasbench201", channels=channels, cells=1, classes=classes, input=input)

class First(AskTell):
    """Samples by number"""

    def __init__(self, epochs: int = 1) -> None:
        super().__init__()
        self.epochs = epochs

    def ask(self, number):
        from random import Random
        return Trial(number, self.task.space.sample(Random(number)), self.epochs)
'''


def assert_refused(outcome: Outcome, *parts: str) -> None:
    """Status 2, one sentence on stderr, nothing on stdout."""
    assert outcome.status == 2, outcome
    assert "Traceback" not in outcome.err
    assert not outcome.out
    for part in parts:
        assert part in outcome.err, outcome.err


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search and a finished training: ``search`` and ``train``."""
    folder = tmp_path_factory.mktemp("runs")
    call = [
        sys.executable,
        "-c",
        "import sys; from nas.cli import main\nfor sys.argv in ARGUMENTS:\n    "
        "try: main()\n    except SystemExit as e: assert not e.code",
    ]
    first = [
        "nas",
        "search",
        *sets([*TINY_RANDOM, "controls=1"]),
        "--device",
        "cpu",
        "--run",
        "search",
        "--quiet",
    ]
    then = ["nas", "train", V2, *sets(TINY_TRAIN), "--device", "cpu", "--run", "train", "--quiet"]
    call[2] = call[2].replace("ARGUMENTS", repr([first, then]))
    subprocess.run(call, cwd=folder, check=True, capture_output=True)
    return folder


# --- documents ----------------------------------------------------------------------------------------------


def test_search_document(nas: Command) -> None:
    found = nas("search", *sets([*TINY_RANDOM, "controls=1"]), "--json", "--device", "cpu", "--run", "r")
    assert found.status == 0, found.err
    document = found.document
    assert set(document) == SEARCH
    assert document["run"] == "r"
    assert (document["space"], document["strategy"]) == ("nasbench201", "random")
    assert set(document["cost"]) == {"seconds", "gpu_hours", "trials", "replays"}
    assert document["cost"]["trials"] == 3
    assert {"found", "random"} < set(document["controls"])
    assert all(
        set(group) == {"mean", "std", "n"} and group["n"] == 1 for group in document["controls"].values()
    )
    assert all(isinstance(value, float | int) for value in document["metrics"].values())
    assert "trial 3/3" in found.err
    again = nas(
        "cost",
        f"nasbench201:{document['best']}",
        "--input",
        "1,8,8",
        *sets(["network.channels=2", "network.cells=1"]),
        "--json",
    )
    assert (again.document["params"], again.document["macs"]) == (document["params"], document["macs"])


def test_without_controls_the_result_says_so(nas: Command) -> None:
    found = nas("search", *sets(TINY_DARTS), "--device", "cpu", "--json")
    assert found.document["controls"] == {}
    assert "luck" in found.err
    assert re.fullmatch(r"runs/\d{8}-darts-nasbench201-1", found.document["run"])


def test_result_on_stdout_and_the_rest_on_stderr(nas: Command) -> None:
    found = nas("search", *sets(TINY_DARTS), "--device", "cpu", "--run", "r")
    assert found.out.count("\n") == 1
    assert found.out.startswith("nasbench201:|")
    assert "epoch 2/2" in found.err
    assert "nas report r" in found.err
    trained = nas("train", "r", "--device", "cpu")
    assert trained.out.count("\n") == 1
    assert "test accuracy" in trained.out
    assert "epoch 2/2" in trained.err


def test_quiet_says_nothing_but_the_result(nas: Command) -> None:
    found = nas("search", *sets(TINY_DARTS), "--device", "cpu", "--run", "r", "--quiet")
    assert (found.status, found.err) == (0, "")
    assert found.out.count("\n") == 1


def test_train_and_evaluate_documents(nas: Command, runs: Path) -> None:
    trained = nas(
        "train", V2, *sets(TINY_TRAIN), "train.valid=0.2", "--json", "--device", "cpu", "--run", "t"
    )
    assert_refused(trained, "train.valid=0.2")
    valid = [*sets(TINY_TRAIN), "--set", "train.valid=0.2"]
    trained = nas("train", V2, *valid, "--json", "--device", "cpu", "--run", "t")
    assert set(trained.document) == TRAIN
    assert (trained.document["split"], trained.document["examples"]) == ("test", 360)
    for split, examples in (("test", 360), ("valid", 12)):
        measured = nas("evaluate", "t", "--split", split, "--json", "--device", "cpu")
        assert set(measured.document) == TRAIN
        assert (measured.document["split"], measured.document["examples"]) == (split, examples)
    measured = nas("evaluate", "t", "--json").document
    assert measured == trained.document
    assert_refused(nas("evaluate", "t", "--split", "train"), "test, valid")
    found = nas("evaluate", runs / "search", "--json")
    assert set(found.document) == TRAIN


def test_export_document(nas: Command, runs: Path) -> None:
    found = nas("export", runs / "train", "--format", "yaml,torch", "--json", "--out", "out")
    assert found.status == 0, found.err
    assert set(found.document) == {"files", "max_abs_diff"}
    assert set(found.document["files"]) == {"yaml", "torch"}
    assert set(found.document["max_abs_diff"]) == {"torch"}
    assert all(Path(path).exists() for path in found.document["files"].values())
    assert_refused(nas("export", runs / "train", "--format", "yaml,onx"), "onnx")
    assert_refused(nas("export", runs / "train", "--format", "yaml", "--input", "3,8,8"), "scale")


def test_cost_of_a_published_network(nas: Command) -> None:
    found = nas("cost", V2, "--json").document
    assert set(found) == COST
    assert (found["params"], found["macs"], found["macs_attention"]) == (3349342, 528359040, 0)
    assert (found["input"], found["classes"]) == ([3, 32, 32], 10)
    assert "3,349,342 parameters, 528,359,040 multiply-adds" in nas("cost", V2).out
    other = nas(
        "cost", V2, "--input", "1,8,8", "--classes", 7, "--set", "network.channels=4", "--json"
    ).document
    assert (other["input"], other["classes"]) == ([1, 8, 8], 7)
    assert other["params"] < found["params"]


def test_list_of_runs(nas: Command, runs: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(runs)
    listed = {row["name"]: row["summary"] for row in nas("list", "runs", "--json").document}
    assert set(listed) == {"runs/search", "runs/train"}
    assert all("done" in summary for summary in listed.values())


def test_samples_are_legal_and_repeat(nas: Command) -> None:
    rows = nas("sample", "nasbench201", "-n", 3, "--seed", 1, "--json").document
    assert [set(row) for row in rows] == [{"literal", "digest", "params", "macs"}] * 3
    assert nas("sample", "nasbench201", "-n", 3, "--seed", 1).out.splitlines() == [
        row["literal"] for row in rows
    ]
    for row in rows:
        cost = nas("cost", f"nasbench201:{row['literal']}", "--json").document
        assert (cost["params"], cost["macs"]) == (row["params"], row["macs"])


def test_show(nas: Command, runs: Path) -> None:
    found = nas("show", V2, "--json", "--svg", "cell.svg", "--quiet")
    assert {"space", "literal", "digest", "params", "macs", "input", "classes"} <= set(found.document)
    assert Path("cell.svg").read_text().lstrip().startswith("<?xml")
    best = yaml.safe_load((runs / "search" / "best.yaml").read_text())
    assert nas("show", runs / "search", "--json").document["literal"] == best["literal"]
    assert nas("show", runs / "search" / "best.yaml", "--json").document["literal"] == best["literal"]
    assert best["literal"] in nas("show", runs / "search").out


def test_report(nas: Command, runs: Path) -> None:
    found = nas("report", runs / "search", "--json")
    assert found.status == 0, found.err
    assert Path(found.document["report"]).is_file()
    assert Path(found.document["report"]).resolve().is_relative_to((runs / "search").resolve())


# --- configuration on the command line ----------------------------------------------------------------------


def config(folder: str = "r") -> Any:
    return yaml.safe_load((Path(folder) / "config.yaml").read_text())


def test_settings_belong_to_what_the_flags_name(nas: Command) -> None:
    found = nas(
        "search",
        "--strategy",
        "random",
        "--space",
        "nasbench201",
        "--budget",
        "2trials",
        "--controls",
        0,
        *sets(["strategy.epochs=1", "space.channels=2", "space.cells=1", "network.channels=2", *TINY]),
        "--device",
        "cpu",
        "--run",
        "r",
    )
    assert found.status == 0, found.err
    assert config()["strategy"] == {"name": "random", "epochs": 1}
    assert config()["space"]["channels"] == 2


def test_the_written_configuration_repeats_the_run(nas: Command) -> None:
    first = nas("search", *sets(TINY_RANDOM), "--seed", 3, "--device", "cpu", "--run", "r", "--json").document
    second = nas("search", "--config", "r/config.yaml", "--run", "s", "--json").document
    assert config("r") == config("s")
    for key in SEARCH - {"run", "cost"}:
        assert first[key] == second[key]
    assert Path("r/best.yaml").read_bytes() == Path("s/best.yaml").read_bytes()


def test_files_then_settings(nas: Command) -> None:
    Path("a.yaml").write_text("train: {epochs: 3, lr: 0.3}\nseed: 1\n")
    Path("b.yaml").write_text("train: {lr: 0.4}\n")
    files = ["--config", "a.yaml", "--config", "b.yaml"]
    found = nas("search", *files, *sets(TINY_DARTS), "--set", "seed=2", "--device", "cpu", "--run", "r")
    assert found.status == 0, found.err
    assert (config()["train"]["epochs"], config()["train"]["lr"], config()["seed"]) == (2, 0.4, 2)


# --- things of one's own ------------------------------------------------------------------------------------


def test_space_and_strategy_of_ones_own(nas: Command, own: Path) -> None:
    arguments = [
        "--space",
        f"{own}:small",
        "--strategy",
        f"{own}:First",
        "--budget",
        "2trials",
        "--controls",
        1,
    ]
    found = nas(
        "search",
        *arguments,
        *sets(["data.limit=60", "train.epochs=1"]),
        "--device",
        "cpu",
        "--json",
        "--run",
        "r",
    )
    assert found.status == 0, found.err
    assert found.document["space"] == f"{own}:small"
    best = yaml.safe_load(Path("r/best.yaml").read_text())
    assert best["space"] == f"{own}:small"
    assert nas("show", "r/best.yaml").status == 0
    address = f"{own}:small:{best['literal']}"
    assert nas("cost", address, "--input", "1,8,8", "--json").document["params"] == found.document["params"]
    assert len(nas("sample", f"{own}:small", "-n", 2).out.splitlines()) == 2


def test_mistakes_in_ones_own_files(nas: Command, own: Path) -> None:
    assert_refused(nas("sample", f"{own}:smal"), "did you mean 'small'")
    assert_refused(nas("sample", "none.py:small"), "none.py")
    Path("broken.py").write_text("def small(:\n")
    assert_refused(nas("sample", "broken.py:small"), "broken.py", "SyntaxError")
    Path("raises.py").write_text("1 / 0\n")
    assert_refused(nas("sample", "raises.py:small"), "raises.py", "ZeroDivisionError")
    Path("other.py").write_text("def small():\n    return 3\n")
    assert_refused(nas("sample", "other.py:small"), "SearchSpace", "int")
    assert_refused(
        nas("search", "--strategy", f"{own}:First", "--set", "strategy.epoch=1"), "did you mean 'epochs'"
    )


def images(count: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), np.arange(count) % 3


def test_npz_data(nas: Command) -> None:
    (x, y), (a, b) = images(60, 0), images(30, 1)
    np.savez("own.npz", x_train=x, y_train=y, x_test=a, y_test=b)
    found = nas(
        "train",
        V2,
        "--data",
        "npz:own.npz",
        *sets(["network.channels=2", "network.cells=3", "train.epochs=1"]),
        "--device",
        "cpu",
        "--json",
        "--run",
        "r",
    )
    assert found.status == 0, found.err
    assert found.document["examples"] == 30
    assert nas("evaluate", "r", "--json").document == found.document
    assert_refused(nas("train", V2, "--data", "npz:none.npz"), "none.npz")
    np.savez("odd.npz", pictures=x)
    assert_refused(nas("train", V2, "--data", "npz:odd.npz"), "x_train", "pictures")
    Path("text.npz").write_text("no archive")
    assert_refused(nas("train", V2, "--data", "npz:text.npz"), "text.npz")
    np.savez("shape.npz", x_train=x, y_train=y[:-1], x_test=a, y_test=b)
    assert_refused(nas("train", V2, "--data", "npz:shape.npz"))
    assert not Path("runs").exists()


def test_folder_data(nas: Command) -> None:
    x, y = images(60, 0)
    for number, (pixels, label) in enumerate(zip(x, y, strict=True)):
        place = Path("pictures") / "abc"[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number}.png")
    found = nas(
        "search",
        "--data",
        "folder:pictures",
        *sets([s for s in TINY_DARTS if "limit" not in s]),
        "--json",
        "--device",
        "cpu",
        "--run",
        "r",
    )
    assert found.status == 0, found.err
    assert_refused(nas("search", "--data", "folder:picture"), "picture")
    assert_refused(nas("search", "--data", "pictures"), "folder:pictures")
    Path("empty").mkdir()
    assert_refused(nas("search", "--data", "folder:empty"), "empty")


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("search --strategy dart", "did you mean 'darts'"),
        ("search --space dartz", "did you mean 'darts'"),
        ("search --data digitz", "did you mean 'digits'"),
        ("search --recipe digit", "did you mean 'digits'"),
        ("search --executor lokal", "did you mean 'local'"),
        ("search --set train.epoch=3", "did you mean 'epochs'"),
        ("search --set sead=3", "did you mean 'seed'"),
        ("search --set train.epochs", "KEY=VALUE"),
        ("search --budget many", "50epochs"),
        ("search --budget 0epochs", "above 0"),
        ("search --strategy random --budget 3epochs", "trials"),
        ("search --device gpu", "device 'gpu'"),
        ("search --device cuda:99", "cuda:99"),
        ("search --config none.yaml", "none.yaml"),
        ("search --recipe none.yaml", "none.yaml"),
        ("search --data cifar10 --data-dir nowhere", "nowhere"),
        ("search --controls -1", "controls"),
        ("search --workers 0", "workers"),
        ("search --seed -1", "seed"),
        ("search --seed one", "seed"),
        ("search --set space.channels=0", "space.channels = 0: "),
        ("search --set network.cells=0", "network.cells = 0: "),
        ("search --set data.limit=100000", "limit"),
        ("search --set data.limit=1", "1"),
        ("search --sed 3", "--seed"),
        ("serch", "search"),
        ("train resnet21", "did you mean"),
        ("train darts", "darts:DARTS_V1"),
        ("train darts:DARTS_V3", "did you mean 'DARTS_V"),
        ("train none.yaml", "none.yaml"),
        ("train runs/none", "runs/none"),
        ("train resnet20 --set network.channels=3", "channels"),
        ("train resnet20 --set strategy.order=2", "strategy"),
        ("train", "WHAT"),
        ("resume", "RUN"),
        ("resume runs/none", "runs/none"),
        ("evaluate runs/none", "runs/none"),
        ("report runs/none", "runs/none"),
        ("export runs/none", "runs/none"),
        ("export resnet20 --format onx", "did you mean 'onnx'"),
        ("show darts:|none", "literal"),
        ("cost nasbench201:|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_5x5~2|", "did you mean"),
        ("cost resnet20 --input 3,32", "3,32"),
        ("cost resnet20 --input 3,32,x", "3,32,x"),
        ("cost resnet20 --input 0,8,8", "0,8,8"),
        ("cost resnet20 --classes 0", "classes"),
        ("cost resnet20 --set train.epochs=3", "network"),
        ("cost darts:DARTS_V2 --set network.chanels=3", "did you mean 'channels'"),
        ("cost darts:DARTS_V2 --set network.cells=0", "error: "),
        ("cost resnet20 --set network=3", "network"),
        ("cost darts:DARTS_V2 --set network=3", "network"),
        ("sample dart", "did you mean 'darts'"),
        ("sample darts -n 0", "-n"),
        ("list space", "did you mean 'spaces'"),
        ("list", "KIND"),
    ],
)
def test_mistakes_are_sentences(nas: Command, line: str, part: str) -> None:
    outcome = nas(*line.split(" "))
    assert_refused(outcome, part)
    assert len(outcome.err) < 2500
    assert not list(Path().iterdir()), "a mistake leaves nothing behind"


def test_broken_yaml_names_its_line(nas: Command) -> None:
    Path("broken.yaml").write_text("seed: 1\ntrain:\n  epochs: [3\nlr: 2\n")
    assert_refused(nas("search", "--config", "broken.yaml"), "broken.yaml", "line 4")
    assert_refused(nas("search", "--recipe", "broken.yaml"), "broken.yaml", "line 4")
    assert_refused(nas("cost", "broken.yaml"), "broken.yaml", "line 4")
    Path("list.yaml").write_text("- a\n")
    assert_refused(nas("search", "--config", "list.yaml"), "list.yaml")
    Path("other.yaml").write_text("seed: 1\n")
    assert_refused(nas("show", "other.yaml"), "space")


def test_all_mistakes_at_once(nas: Command) -> None:
    outcome = nas(
        "search",
        *sets(["train.epoch=3", "strategy.odrer=2", "sead=1"]),
        "--space",
        "dart",
        "--budget",
        "many",
    )
    assert_refused(outcome, "'epochs'", "'order'", "'seed'", "'darts'", "'many'")
    assert outcome.err.count("error: ") == 5


def test_a_folder_that_is_no_run(nas: Command) -> None:
    Path("plain").mkdir()
    for command in ("resume", "evaluate", "report", "export", "show", "train", "cost"):
        assert_refused(nas(command, "plain"), "plain", "no run")


def test_a_damaged_run(nas: Command, runs: Path) -> None:
    import shutil

    for file, content in (("config.yaml", "a: [b"), ("checkpoint.pt", "no tensors")):
        shutil.copytree(runs / "train", file)
        (Path(file) / file).write_text(content)
        assert_refused(nas("evaluate", file), file)
    shutil.copytree(runs / "search", "best")
    Path("best/best.yaml").write_text("space: nasbench201\nliteral: nonsense\n")
    assert_refused(nas("show", "best"), "nonsense")


def test_debug_shows_where(nas: Command) -> None:
    assert "Traceback" in nas("cost", "resnet21", "--debug").err


def test_run_must_be_a_folder(nas: Command) -> None:
    Path("file").write_text("")
    outcome = nas("search", *sets(TINY_DARTS), "--run", "file")
    assert_refused(outcome, "file")


@pytest.mark.parametrize("epochs", [2, 4])  # after the last step, and before
def test_a_diverging_training_fails(nas: Command, epochs: int) -> None:
    outcome = nas(
        "train",
        "resnet20",
        *sets(["data.limit=60", f"train.epochs={epochs}", "train.lr=1e30", "train.clip=0"]),
        "--device",
        "cpu",
        "--run",
        "r",
        "--quiet",
    )
    assert outcome.status == 1
    assert "train.lr" in outcome.err
    assert "Traceback" not in outcome.err


# --- help and the installed script -------------------------------------------------------------------------


def test_help(nas: Command) -> None:
    listed = nas("--help").out
    for command in (
        "search",
        "resume",
        "train",
        "evaluate",
        "export",
        "show",
        "cost",
        "list",
        "sample",
        "report",
    ):
        assert command in listed
        text = nas(command, "--help")
        assert text.status == 0
        for option in ("--json", "--quiet", "--debug"):
            assert option in text.out, (command, option)


def test_the_console_script(tmp_path: Path) -> None:
    """Installed, in a process of its own, with its exit statuses."""
    script = Path(sys.executable).with_name("nas")
    good = subprocess.run(
        [script, "list", "spaces"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (good.returncode, good.stderr) == (0, "")
    assert "darts" in good.stdout
    bad = subprocess.run([script, "list", "space"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (2, "")
    assert "did you mean 'spaces'" in bad.stderr
