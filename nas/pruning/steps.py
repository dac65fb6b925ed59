"""prune(): a trained network made smaller step by step, with training in between; read(): one of the results.

The folder of a pruning holds prune.yaml (what was asked, and how the network is built), events.jsonl (a line
a step), step-<n>.pt, table.md, curve.png and tensorboard/. All of them are complete after each step.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from nas.augment import Augment
from nas.data import Dataset
from nas.data.batches import Batches
from nas.documents import read_yaml
from nas.loop import Watcher
from nas.pruning.curve import picture, table
from nas.pruning.pruning import PRUNINGS
from nas.pruning.surgery import Surgery
from nas.recipe import Recipe
from nas.report.scene import rendered
from nas.run import CONFIG, dump, load_tensors, replace, save_tensors
from nas.seeding import derive
from nas.signature import bind
from nas.subject import from_config, trained
from nas.train import accuracy, fit
from nas.training import settled, trained_network

FILE, LEDGER = "prune.yaml", "events.jsonl"
GENTLER = 0.1  # the part of the training's rate that fine-tuning has (Han et al. 2015, section 3.3)


@dataclass(frozen=True)
class Plan:
    """How much is removed, in which steps.

    kind: a name in `PRUNINGS`. amount: the part that is gone at the end, in (0, 1). steps: each removes the
    same part of what is left. epochs: of training after each step; 0: none.
    """

    kind: str = "structured"
    amount: float = 0.5
    steps: int = 3
    epochs: int = 2

    def __post_init__(self) -> None:
        PRUNINGS[self.kind]
        if not 0 < self.amount < 1:
            raise ValueError(f"--amount is the part that is removed, between 0 and 1, not {self.amount}")
        if self.steps < 1 or self.epochs < 0:
            raise ValueError(
                f"--steps is 1 or more and --epochs 0 or more, not {self.steps} and {self.epochs}"
            )

    def gone(self, step: int) -> float:
        """The part that is gone after so many steps."""
        return float(1 - (1 - self.amount) ** (step / self.steps))


def recipe(plan: Plan, train: Mapping[str, Any], given: Mapping[str, Any]) -> Recipe:
    """How the network is trained after a cut: as it was trained, at a tenth of the rate, unless `given` says
    else.

    Raises Errors for settings that do not exist.
    """
    rate = train["lr"] * GENTLER
    gentle = {
        "lr": rate,
        "lr_min": min(train.get("lr_min", 0.0), rate),
        "warmup": 0.0,
        "early_stop": 0,
        "seconds": 0.0,
    }
    known = {key: value for key, value in gentle.items() if key in Recipe.__dataclass_fields__}
    return Recipe(**bind(Recipe, {**train, **known, "epochs": max(1, plan.epochs), **given}, where="train"))


def prune(
    run: Path,
    plan: Plan,
    *,
    data: Dataset,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    watch: Watcher | None = None,
) -> dict[str, Any]:
    """Prune the trained network of a run into ``prune/<n>`` in its folder; the document of `nas prune
    --json`.

    `settings`: of the section ``train``. A step that was finished stays, whatever happens in the next one.
    The test part is measured at every step; nothing is chosen by it. Raises ValueError if the run has no
    trained network, or it cannot be pruned that way.
    """
    source = trained(run)
    if source is None:
        raise ValueError(f"{run} has no trained network: `nas train {run}` trains its best one")
    config = read_yaml(source / CONFIG)
    tuned = recipe(plan, config["train"], settings or {})
    with settled(config):
        _, network = trained_network(source, data)
        work = _Work(plan, network.to(device).eval(), config, tuned, data, device, watch or Watcher())
        folder = _new(run / "prune")
        replace(folder / FILE, dump(_asked(plan, source, config, tuned, data)))
        rows: list[dict[str, Any]] = []
        for row, state in work.steps():
            rows.append(row)
            save_tensors(folder / f"step-{row['step']}.pt", state)
            with open(folder / LEDGER, "a") as ledger:
                ledger.write(json.dumps({"kind": "step", **row}) + "\n")
            show(folder, rows, plan)
            work.watch.event({"kind": "step", **row})
    return {"run": str(run), "folder": str(folder), "kind": plan.kind, "steps": rows}


class _Work:
    """One pruning under way."""

    def __init__(
        self,
        plan: Plan,
        network: nn.Module,
        config: Mapping[str, Any],
        tuned: Recipe,
        data: Dataset,
        device: str,
        watch: Watcher,
    ) -> None:
        self.plan, self.network, self.config, self.recipe = plan, network, config, tuned
        self.data, self.device, self.watch = data, device, watch
        self.method = PRUNINGS[plan.kind]
        self.surgeries: list[Surgery] = []
        self.norms: dict[str, Any] = {"mean": data.mean, "std": data.std, "device": device}
        fraction, seed = config["train"]["valid"], derive(config["seed"], "split")
        held = data.split(fraction, seed=seed) if fraction else None
        self.train = held.train if held else data.train
        self.valid = held.valid if held else None
        batches = Batches(self.train, batch=4, seed=0, shuffle=False, **self.norms)
        self.example = next(batches.epoch(0))[0].contiguous()

    def steps(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The row and the tensors of each step; step 0 is the network as it was trained."""
        measured = self._measure()
        yield self._row(0, measured["accuracy"], measured)
        for step in range(1, self.plan.steps + 1):
            # A cut that fails half-way, or training that is broken off, must leave the last step whole.
            network = copy.deepcopy(self.network).eval()
            before, after = self.plan.gone(step - 1), self.plan.gone(step)
            surgery = self.method.cut(network, before=before, after=after, example=self.example)
            self.network = network
            raw = self._measure()
            self._tune(step)
            self.method.release(self.network.eval())
            if surgery is not None:
                self.surgeries.append(surgery)
            yield self._row(step, raw["accuracy"], self._measure())

    def _measure(self) -> dict[str, float]:
        return accuracy(self.network, self.data.test, **self.norms)

    def _tune(self, step: int) -> None:
        if not self.plan.epochs:
            return
        self.watch.stage(f"train step {step} of {self.plan.steps}", self.plan.epochs)
        epochs = fit(
            self.network,
            self.train,
            recipe=self.recipe,
            valid=self.valid,
            augment=Augment(**self.config["data"]["augment"]),
            seed=derive(self.config["seed"], "prune", step),
            tick=self.watch.tick,
            **self.norms,
        )
        for epoch in epochs:
            self.watch.event({"kind": "epoch", "step": epoch.step, "metrics": epoch.metrics})

    def _row(
        self, step: int, raw: float, measured: Mapping[str, float]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        figures = self.method.size(self.network, self.data.input)
        row = {
            "step": step,
            "gone": round(self.plan.gone(step), 6),
            "params": figures.params,
            "macs": figures.macs,
            "cut_accuracy": raw,
            "test_accuracy": measured["accuracy"],
            "test_loss": measured["loss"],
        }
        state = {name: tensor.detach().cpu() for name, tensor in self.network.state_dict().items()}
        return row, {"surgeries": [each.to_dict() for each in self.surgeries], "state": state}


def _new(parent: Path) -> Path:
    number = 0
    while (parent / str(number)).exists():
        number += 1
    (parent / str(number)).mkdir(parents=True)
    return parent / str(number)


def _asked(
    plan: Plan, source: Path, config: Mapping[str, Any], tuned: Recipe, data: Dataset
) -> dict[str, Any]:
    return {
        "command": "prune",
        **{name: getattr(plan, name) for name in Plan.__dataclass_fields__},
        "source": str(source),
        "what": config["what"],
        "network": {**config["network"], "classes": len(data.classes), "input": list(data.input)},
        "data": {"name": data.name, "digest": data.digest, "mean": list(data.mean), "std": list(data.std)},
        "train": {name: getattr(tuned, name) for name in Recipe.__dataclass_fields__},
    }


def read(folder: str | Path, step: int | None = None) -> nn.Module:
    """The network after a step of a pruning, the last one by default, in evaluation mode on the CPU.

    Raises ValueError if there is no such step.
    """
    folder = Path(folder)
    if not (folder / FILE).exists():
        raise ValueError(f"{folder} holds no pruning (no {FILE}); `nas prune RUN` writes one")
    there = sorted(
        int(found[1]) for path in folder.iterdir() if (found := re.fullmatch(r"step-(\d+)\.pt", path.name))
    )
    chosen = there[-1] if step is None and there else step
    if chosen not in there:
        raise ValueError(f"{folder} has no step {chosen}; it has {', '.join(map(str, there)) or 'none yet'}")
    config, saved = read_yaml(folder / FILE), load_tensors(folder / f"step-{chosen}.pt")
    assert saved is not None
    network = from_config(config["what"]).build(
        **{**config["network"], "input": tuple(config["network"]["input"])}
    )
    for surgery in saved["surgeries"]:
        Surgery.from_dict(surgery).operate(network)
    network.load_state_dict(saved["state"])
    return network.eval()


def show(folder: Path, rows: Sequence[Mapping[str, Any]], plan: Plan) -> None:
    """Write the table, the curve and the board of the steps so far."""
    from nas.report.event_file import event_file
    from nas.report.tensorboard import FILES

    replace(folder / "table.md", table(rows, plan.kind))
    replace(folder / "curve.png", rendered(picture(rows, plan.kind), kind="png", dpi=130))
    for old in (folder / "tensorboard").glob(FILES):
        old.unlink()
    writer = event_file(folder / "tensorboard")
    for row in rows:
        for name in ("params", "macs", "cut_accuracy", "test_accuracy", "test_loss"):
            writer.add_scalar(f"prune/{name}", row[name], row["step"])
    writer.close()
