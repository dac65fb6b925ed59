"""Seeds: one search with several seeds, side by side: the honest way to report a search.

    nas search --strategy darts --seeds 4 --executor ray --workers 4

Each search is a run of its own (``seed-<n>/``), on one worker. The ledger above them has a line for each.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.config import merge, resolve_search
from nas.data import Dataset
from nas.execution import Result
from nas.jobs import Jobs, apart, bound, carried_out, here
from nas.loop import Watcher, begin, check, proceed
from nas.run import CONFIG, Run, RunFailed, environment
from nas.training import facts_of, same_data

Config = dict[str, Any]


def resolve_seeds(layers: Sequence[Mapping[str, Any]], seeds: int) -> Config:
    """The configuration of searches with the seeds `seed`, `seed` + 1, ... Raises Errors."""
    given = merge(*layers)
    executor = bound(given.pop("executor", None), given.get("threads"))
    if apart(executor):
        given.setdefault("threads", executor["threads"])
    return {"command": "seeds", "seeds": seeds, "executor": executor, "search": resolve_search([given])}


def begin_seeds(config: Config, folder: Path, *, data: Dataset) -> Run:
    """Make the folder. Raises ValueError as `nas.loop.begin` does."""
    check(config["search"], data)
    return Run.create(folder, config, environment(**facts_of(config["search"], data)))


def proceed_seeds(run: Run, *, data: Dataset, watcher: Watcher | None = None) -> dict[str, Any]:
    """Search what is not searched yet; mean and deviation over the seeds as a document."""
    config, watcher = run.config, watcher or Watcher()
    same_data(run, data)
    done = {event["seed"]: event for event in run.events() if event["kind"] == "search"}
    first = config["search"]["seed"]
    left = [place for place in range(config["seeds"]) if first + place not in done]
    watcher.stage("seeds", config["seeds"], len(done))
    searches = Searches(run.folder.absolute(), config, data)
    for place, outcome in carried_out(searches, left, config["executor"], watcher):
        if isinstance(outcome, Exception):
            raise RunFailed(f"the search with seed {first + place}: {outcome}") from outcome
        done[first + place] = run.log("search", seed=first + place, result=dict(outcome))
        watcher.event(done[first + place])
    found = document(run, [{"seed": seed, **done[seed]["result"]} for seed in sorted(done)])
    if not any(event["kind"] == "done" for event in run.events()):
        run.log("done", metrics={name: each["mean"] for name, each in found["metrics"].items()})
    return found


class Searches(Jobs):
    """The searches: `folder`/seed-<n>."""

    def do(self, place: int, watcher: Watcher) -> Result:
        config = {**self.config["search"], "seed": self.config["search"]["seed"] + place}
        if self.config["executor"].get("gpus"):
            config["device"] = "cuda"
        watcher.note(f"seed {config['seed']}")
        folder = here(self.folder) / f"seed-{config['seed']}"
        opened = (folder / CONFIG).exists()
        with Run.open(folder) if opened else begin(config, folder, data=self.data) as run:
            return proceed(run, data=self.data, watcher=watcher)


def document(run: Run, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and deviation over the seeds of what searches end with; and each of them."""
    first = results[0]
    metrics = {
        name: spread([result["metrics"][name] for result in results])
        for name in first["metrics"]
        if all(isinstance(result["metrics"].get(name), int | float) for result in results)
    }
    controls = {
        group: spread([result["controls"][group]["mean"] for result in results])
        for group in first["controls"]
        if all(group in result["controls"] for result in results)
    }
    return {
        "run": str(run.folder),
        "space": first["space"],
        "strategy": first["strategy"],
        "metrics": metrics,
        "controls": controls,
        "searches": list(results),
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation and number."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": deviation, "n": len(values)}
