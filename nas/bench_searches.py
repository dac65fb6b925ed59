"""Searches: strategies with a supernet, measured on a table. Each search is a run; what it found is looked
up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.bench import Bench, Curve
from nas.config import resolve_search
from nas.documents import read_text, read_yaml
from nas.registry import label
from nas.run import CONFIG, Run

FACTS = ("kendall", "spearman", "search_seconds", "step_seconds", "peak_memory")
Config = dict[str, Any]


@dataclass(frozen=True)
class Searches:
    """How they search.

    Args:
        folder: where the runs are; one that was cut off goes on, a finished one is read.
        layers: configuration, of data, space and ranking.
        space: its address.
        table: arguments of the evaluator of that name.
        metric: the column, perhaps with a direction, with which the supernet's ranking is compared.
        threads: of each search.
    """

    folder: Path
    layers: Sequence[Mapping[str, Any]]
    space: str
    table: Mapping[str, Any]
    metric: str
    threads: int = 1

    def check(self, strategy: str, arguments: Mapping[str, Any]) -> None:
        self.config(strategy, arguments, seed=0)

    def config(self, strategy: str, arguments: Mapping[str, Any], *, seed: int) -> Config:
        """Of one search. Raises Errors for wrong keys and values."""
        from nas.train import available

        own = {
            "strategy": {"name": strategy, **arguments},
            "evaluator": {"name": "table", **self.table},
            "ranking": {"metric": self.metric},
            "controls": 0,
            "threads": self.threads,
            "seed": seed,
        }
        found = resolve_search([{"space": {"name": self.space}}, *self.layers, own])
        found["device"] = available(found["device"])
        return found

    def run(self, strategy: str, arguments: Mapping[str, Any], *, seed: int, on: Bench) -> Curve:
        """Search, or read what was searched. Raises ValueError if the folder holds another search."""
        from nas.loop import begin, proceed
        from nas.report.ledger import record
        from nas.training import load_data

        config = self.config(strategy, arguments, seed=seed)
        data = load_data(config)
        folder = self.folder / self.named(strategy, arguments, seed=seed)
        if (folder / CONFIG).exists():
            if _but_threads(read_yaml(folder / CONFIG)) != _but_threads(_as_read(config)):
                raise ValueError(f"{folder} holds a search with other settings: name another --out")
            opened = Run.open(folder)
        else:
            opened = begin(config, folder, data=data)
        with opened as run:
            result = proceed(run, data=data)
        read = record(folder)
        known = {**result.get("ranking", {}), **result["cost"], "search_seconds": read.phases()["search"]}
        return Curve(
            [on.table.value(event["literal"], on.report.metric) for event in read.epochs],
            [event["seconds"] for event in read.epochs],
            facts={name: known[name] for name in FACTS if name in known},
        )

    def named(self, strategy: str, arguments: Mapping[str, Any], *, seed: int) -> str:
        """The folder of a search: strategy, arguments and seed."""
        told = "-".join(f"{key}={value}" for key, value in arguments.items())
        return re.sub(r"[^\w.=-]+", "_", "-".join(filter(None, (label(strategy), told, str(seed)))))


def _but_threads(config: Mapping[str, Any]) -> Config:
    """What a search depends on wherever it goes on: the bits of its last digits apart."""
    return {key: value for key, value in config.items() if key not in ("threads", "device")}


def _as_read(config: Config) -> Any:
    """A configuration as a file gives it back."""
    from nas.run import dump

    return read_text(dump(config))
