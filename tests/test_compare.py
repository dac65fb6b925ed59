"""Comparisons: networks under one recipe and one budget, as a run like any other."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from conftest import Command, ledger, sets
from matplotlib.text import Text
from torch import nn

from nas import compare, hand_designed
from nas.entries import resolve_comparison
from nas.report.ledger import record
from nas.report.networks import COSTS, Compared, Trained, compared, lead, networks
from nas.report.scatter import scatter
from nas.run import load_tensors

WIDE = {"what": "resnet8", "name": "wide", "network": {"widths": [4, 8, 16]}}
NARROW = {"what": "resnet8", "name": "narrow", "network": {"widths": [2, 4, 8]}}
CELL = "nasbench201?channels=2&cells=1:|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"
TINY = ["--data", "digits", "--device", "cpu", *sets(["data.limit=60"])]
SHORT = [*TINY, "--budget", "1epochs"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two small networks, as a file for --config."""
    path = tmp_path / "networks.yaml"
    path.write_text(yaml.safe_dump({"networks": [WIDE, NARROW]}))
    return path


# --- the run ------------------------------------------------------------------------------------------------


def test_a_comparison_is_a_run(nas: Command, file: Path) -> None:
    done = nas("compare", "--config", file, CELL, *SHORT, "--seeds", 2, "--run", "r", "--json")
    assert done.status == 0, done.err
    assert set(done.document) == {"run", "networks"}
    wide, narrow, cell = done.document["networks"]
    assert [wide["name"], narrow["name"]] == ["wide", "narrow"]
    assert set(wide) == {
        "name", "accuracy", "params", "macs", "latency_ms", "epochs", "seconds", "pareto"
    }  # fmt: skip
    assert set(wide["accuracy"]) == {"mean", "std", "n"}
    assert [row["accuracy"]["n"] for row in done.document["networks"]] == [2, 2, 2]
    assert [row["epochs"] for row in done.document["networks"]] == [1, 1, 1]
    assert wide["params"] > cell["params"] > narrow["params"]
    assert set(cell["pareto"]) == set(COSTS)
    assert narrow["pareto"]["params"]  # the smallest is on the front

    run = Path("r")
    assert {path.name for path in run.iterdir()} == {
        "config.yaml", "environment.json", "events.jsonl", "networks", "tensorboard", ".lock"
    }  # fmt: skip
    names = {path.name for path in (run / "networks").iterdir()}
    assert names == {f"{row['name']}-{seed}" for row in done.document["networks"] for seed in (0, 1)}
    assert nas("evaluate", run / "networks" / "wide-1").status == 0

    again = nas("resume", "r", "--json")
    assert (again.status, again.document) == (0, done.document)
    line = nas("resume", "r").out
    assert line.count("\n") == 1
    assert "Pareto fronts by parameters: narrow" in line


def test_the_page_shows_every_network_and_the_plots(nas: Command, file: Path) -> None:
    assert nas("compare", "--config", file, *SHORT, "--seeds", 1, "--run", "r").status == 0
    said = nas("report", "r")
    assert said.status == 0
    text = Path("r/report.md").read_text()
    for cost in COSTS:
        assert f"(report/accuracy-{cost}.svg)" in text
        assert "<svg" in Path(f"r/report/accuracy-{cost}.svg").read_text()
    assert "| wide | 1 |" in text
    assert "widths [2, 4, 8]" in text
    assert "no spread is known" in text


def test_tensorboard_has_scores_table_and_plots(nas: Command, file: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert nas("compare", "--config", file, *SHORT, "--seeds", 1, "--run", "r").status == 0
    board = EventAccumulator("r/tensorboard")
    board.Reload()
    tags = board.Tags()
    assert {f"accuracy/{cost}" for cost in COSTS} == set(tags["images"])
    assert "networks/wide/test_accuracy" in tags["scalars"]
    assert "networks/text_summary" in tags["tensors"]
    assert list(Path("r/networks/wide-0/tensorboard").iterdir())


def test_an_interrupted_comparison_goes_on_to_the_same_bits(
    nas: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["compare", "--config", file, *TINY, "--budget", "2epochs", "--seeds", 2]
    assert nas(*arguments, "--run", "whole").status == 0

    def cut(folder: Path, config: dict[str, Any], **given: Any) -> dict[str, Any]:
        """The third training is interrupted after its first epoch."""

        def seen(event: Any) -> None:
            if folder.name == "wide-1":
                raise KeyboardInterrupt

        return train(folder, config, **{**given, "seen": seen})

    train = compare.train_network
    monkeypatch.setattr(compare, "train_network", cut)
    stopped = nas(*arguments, "--run", "r")
    assert stopped.status == 130
    assert "nas resume r" in stopped.err
    assert len(networks(record(Path("r")))[0].trainings) == 1
    assert "**Not finished**: 2 of 4 trainings" in Path(nas("report", "r").out.strip()).read_text()
    monkeypatch.setattr(compare, "train_network", train)

    assert nas("resume", "r").status == 0
    assert ledger(Path("r")) == ledger(Path("whole"))
    assert (Path("r") / "config.yaml").read_bytes() == (Path("whole") / "config.yaml").read_bytes()
    for path in sorted(Path("whole").rglob("checkpoint.pt")):
        folder = Path("r") / path.relative_to("whole").parent
        assert ledger(folder) == ledger(path.parent)
        ours, theirs = load_tensors(folder / "checkpoint.pt"), load_tensors(path)
        assert ours is not None
        assert theirs is not None
        assert all(ours["network"][name].equal(tensor) for name, tensor in theirs["network"].items())


def test_killed_before_the_costs_were_written(nas: Command, file: Path) -> None:
    assert nas("compare", "--config", file, *SHORT, "--seeds", 1, "--run", "r").status == 0
    whole = ledger(Path("r"))
    lines = Path("r/events.jsonl")
    lines.write_text(lines.read_text().splitlines(keepends=True)[0])
    assert nas("resume", "r").status == 0
    assert ledger(Path("r")) == whole
    assert len(networks(record(Path("r")))) == 2


def test_time_is_a_budget(nas: Command, file: Path) -> None:
    done = nas("compare", "--config", file, *TINY, "--budget", "0.3s", "--seeds", 1, "--run", "r", "--json")
    assert done.status == 0, done.err
    for row in done.document["networks"]:
        assert 0.3 <= row["seconds"] < 3
        assert row["epochs"] >= 1
    assert nas("report", "r").status == 0
    assert "The budget is time" in Path("r/report.md").read_text()


def test_a_training_that_diverges_is_a_result(nas: Command, file: Path) -> None:
    wild = sets(["train.lr=1e12", "train.clip=0", "train.warmup=0"])
    done = nas("compare", "--config", file, *SHORT, *wild, "--seeds", 1, "--run", "r", "--json")
    assert done.status == 1
    assert "no training succeeded" in done.err
    assert [row["accuracy"] for row in done.document["networks"]] == [{"mean": None, "std": 0.0, "n": 0}] * 2
    assert nas("report", "r").status == 0
    assert "Failed: `wide-0`: " in Path("r/report.md").read_text()


# --- what is compared ---------------------------------------------------------------------------------------


def test_a_run_is_trained_again_at_its_scale(nas: Command) -> None:
    widths = sets(["network.widths=[3,6,12]", "train.epochs=1"])
    assert nas("train", "resnet8", *TINY, *widths, "--run", "t").status == 0
    done = nas("compare", "resnet8", "t", "--budget", "1epochs", "--seeds", 1, "--run", "r", "--json")
    assert done.status == 0, done.err
    assert [row["name"] for row in done.document["networks"]] == ["resnet8", "resnet8-2"]
    assert "resnet8-2 of t is trained again from scratch" in done.err
    config = record(Path("r")).config
    assert config["networks"][1]["network"]["widths"] == [3, 6, 12]
    assert config["data"]["limit"] == 60  # without --data, the data of the runs
    assert nas("report", "r").status == 0
    assert "`resnet8-2` (from `t`)" in Path("r/report.md").read_text()


def test_the_same_network_is_compared_once(nas: Command, file: Path) -> None:
    with pytest.warns(UserWarning, match="resnet8 was named twice: it is compared once"):
        config = resolve_comparison([], ["resnet8", "resnet8", "resnet14"])
    assert [entry["name"] for entry in config["networks"]] == ["resnet8", "resnet14"]
    renamed = {"networks": [{"what": "resnet20", "name": "short", "network": {"depth": 8}}]}
    with pytest.warns(UserWarning, match="resnet8 is the same network as short"):
        resolve_comparison([renamed], ["resnet8", "resnet14"])
    said = nas("compare", "resnet8", "resnet8", *SHORT)
    assert said.status == 2
    assert "needs two different networks" in said.err


def test_the_written_configuration_repeats_it() -> None:
    config = resolve_comparison([{"networks": [WIDE, NARROW], "budget": "2min", "seeds": 4}], [CELL])
    assert config["train"]["seconds"] == 120
    assert resolve_comparison([config]) == config


def test_the_recipe_is_one_for_all() -> None:
    """That of the data, whatever recipe a family has of its own."""
    config = resolve_comparison([{"data": {"name": "cifar10"}}], ["resnet20", "darts:DARTS_V2"])
    other = resolve_comparison([{"data": {"name": "cifar10"}}], ["darts:DARTS_V2", "resnet20"])
    assert {key: config[key] for key in ("recipe", "train")} == {k: other[k] for k in ("recipe", "train")}
    assert config["budget"] == f"{config['train']['epochs']}epochs"


# --- mistakes -----------------------------------------------------------------------------------------------


def test_all_mistakes_are_told_together(nas: Command) -> None:
    said = nas("compare", "resnet9", "darts", "resnet8", "--data", "digit", "--budget", "5trials",
               *sets(["train.lr=-1", "budgett=3", "network.depth=8"]), "--run", "r")  # fmt: skip
    assert said.status == 2
    for part in (
        "did you mean 'resnet8'",
        "darts is a space",
        "did you mean 'digits'",
        "in epochs or in time",
        "train.lr = -1",
        "did you mean 'budget'",
        "network sizes one network",
    ):
        assert part in said.err
    assert not Path("r").exists()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"budget": "2epochs", "train": {"epochs": 3}}, "contradict each other: leave one out"),
        ({"budget": "2epochs", "train": {"seconds": 3}}, "contradict each other: leave one out"),
        ({"budget": "2epochs,3s"}, "in epochs or in time"),
        ({"seeds": 0}, "compare.seeds = 0"),
        ({"networks": {"what": "resnet8"}}, "networks must be a list"),
        ({"networks": [{"waht": "resnet8"}]}, "did you mean 'what'"),
        ({"networks": [{"what": "resnet8", "name": "a/b"}]}, "a name is a folder's too"),
        ({"networks": [{"what": "resnet8", "network": {"width": 3}}]}, "resnet8: network: .*'widths'"),
        ({"networks": [{"what": 3}]}, "what must name a network"),
        ({"train": 3}, "train must hold keys and values"),
    ],
)
def test_a_mistake_is_told_with_the_way_out(layer: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_comparison([layer], ["resnet14", "resnet20"])


def test_networks_for_other_images_are_told_before_anything_is_made(
    nas: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def big(classes: int = 10, input: tuple[int, int, int] = (1, 8, 8)) -> nn.Module:
        rest = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, classes)
        return nn.Sequential(nn.Conv2d(input[0], 2, 11), *rest)

    def wrong(classes: int = 10, input: tuple[int, int, int] = (1, 8, 8)) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    known = hand_designed.family
    ours = {"big": big, "wrong": wrong}
    monkeypatch.setattr(hand_designed, "family", lambda name: ours.get(name) or known(name))
    listed = [WIDE, *({"what": {"name": name, "arguments": {"family": name}}} for name in ours)]
    path = tmp_path / "networks.yaml"
    path.write_text(yaml.safe_dump({"networks": listed}))
    said = nas("compare", "--config", path, *SHORT, "--run", "r")
    assert said.status == 2
    assert "big cannot be trained on images of 8x8 pixels and 1 channels: it takes 11x11 pixels" in said.err
    assert "wrong: it gives (3,) for an image, not 10 classes" in said.err
    assert not Path("r").exists()


def test_other_commands_name_a_training_of_it(nas: Command, file: Path) -> None:
    assert nas("compare", "--config", file, *SHORT, "--seeds", 1, "--run", "r").status == 0
    for command in ("train", "evaluate", "export", "show", "cost"):
        said = nas(command, "r")
        assert said.status == 2
        assert "name one of its trainings, as r/networks/narrow-0" in said.err


# --- fronts and pictures ------------------------------------------------------------------------------------


def made(count: int, *, seed: int = 0, seeds: int = 3) -> list[Compared]:
    """A comparison that never was; a few networks have equal costs and scores."""
    rng = Random(seed)
    names = [f"network-{i}" for i in range(count)]
    costs = [
        {
            "kind": "start",
            "name": name,
            "params": rng.choice([10, 20, 40]) * 1000,
            "macs": rng.randrange(10**6),
        }
        for name in names
    ]
    for cost in costs:
        cost["latency_ms"] = rng.uniform(1, 20)
    trained = [Trained(n, s, rng.randrange(90, 99) / 100, 0.1, 8, 3.0) for n in names for s in range(seeds)]
    return compared(costs, trained)


@pytest.mark.parametrize("seed", range(20))
def test_a_front_is_what_no_other_network_beats(seed: int) -> None:
    rows = made(12, seed=seed)
    for key in COSTS:
        for row in rows:
            better = [
                other
                for other in rows
                if getattr(other, key) <= getattr(row, key) and (other.mean or 0) >= (row.mean or 0)
            ]
            as_good = all((getattr(o, key), o.mean) == (getattr(row, key), row.mean) for o in better)
            assert (key in row.fronts) == as_good
        assert any(key in row.fronts for row in rows)


def test_names_in_a_plot_stay_inside_and_apart() -> None:
    rows = made(9, seed=1)
    drawn = scatter(rows, "macs")
    drawn.canvas.draw()
    axes = drawn.axes[0]
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    frame = axes.get_window_extent()
    assert sorted(text.get_text() for text in axes.texts) == sorted(row.name for row in rows)
    for place, box in enumerate(boxes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert not any(box.overlaps(other) for other in boxes[:place])


def test_a_lead_is_said_with_its_spread() -> None:
    def row(name: str, scores: list[float]) -> Compared:
        return Compared(
            name, 1, 1, 1.0, tuple(Trained(name, i, s, 0.1, 1, 1.0) for i, s in enumerate(scores))
        )

    clear = lead([row("a", [0.90, 0.91, 0.92]), row("b", [0.80, 0.81, 0.82])])
    assert clear.startswith("a minus b: +10.00 points")
    assert "better than b by more than 2 standard errors" in clear
    assert "not distinguishable from a" in lead([row("a", [0.90, 0.92]), row("b", [0.92, 0.91])])
    assert "cannot be told from luck" in lead([row("a", [0.9]), row("b", [0.8])])
    assert "nothing to compare" in lead([row("a", [0.9]), row("b", [])])
