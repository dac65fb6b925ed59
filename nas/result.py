"""document(): what a finished search answers, from its ledger."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from nas.budget import Budget
from nas.execution import devices
from nas.front import RunFront
from nas.run import Run
from nas.search_space import SearchSpace
from nas.strategies import AskTell, OneShot, Strategy
from nas.usage import usage


def ending(run: Run, strategy: Strategy, limit: str | None) -> str:
    """Why a search is over; `limit`: of time, if it was reached. Warns if that cut a schedule off."""
    budget = str(run.config["budget"])
    if isinstance(strategy, AskTell):
        return limit or ("every proposal was known" if strategy.exhausted else budget)
    assert isinstance(strategy, OneShot)
    done = sum(event["kind"] == "epoch" for event in run.events())
    horizon = Budget.parse(budget).epochs or strategy.epochs
    if limit is None or strategy.ended or done == horizon:
        return limit or ("the search had collapsed" if strategy.ended else budget)
    warnings.warn(
        f"after {limit} the search was in epoch {done} of {horizon}: what its strategy does "
        f"in its last epochs was not done; --budget {done}epochs plans for as many as there was time for",
        stacklevel=2,
    )
    return f"{limit}, in epoch {done} of {horizon}"


def document(run: Run, final: Mapping[str, Any], *, space: SearchSpace, front: RunFront) -> dict[str, Any]:
    """The result of `nas search --json`; `final` is the ledger's last line."""
    events = run.events()
    selected = [event for event in events if event["kind"] == "selected"][-1]
    recipe = space.parse(selected["literal"]).recipe
    trials = sum(1 for event in events if event["kind"] == "trial" and not event.get("replayed"))
    on_gpus = str(run.config["device"]).startswith("cuda") or bool(run.config["executor"].get("gpus"))
    gpus = devices(run.config, supernet=False)
    shared = run.config["executor"]["name"] == "ray"
    gpu_seconds = final["seconds"] + (gpus - 1) * _by_workers(events, shared) if on_gpus else 0.0
    return {
        "run": str(run.folder),
        "space": space.name,
        "strategy": run.config["strategy"]["name"],
        "best": selected["literal"],
        **({"recipe": dict(recipe)} if recipe else {}),
        "params": selected["params"],
        "macs": selected["macs"],
        "metrics": final["metrics"],
        "controls": final["controls"],
        **_ranking(events),
        "cost": {
            "seconds": final["seconds"],
            "gpu_hours": gpu_seconds / 3600,
            "trials": trials,
            "replays": sum(1 for event in events if event["kind"] == "trial" and event.get("replayed")),
            **usage(run.folder),
        },
        **front.to_dict(),
    }


def _by_workers(events: Sequence[Mapping[str, Any]], shared: bool) -> float:
    """Seconds in which the workers evaluated: the trials of a search, or the networks of a ranking; or in
    which they trained a supernet, if they share that.
    """
    last = {event["kind"]: float(event["seconds"]) for event in events}
    ranking = last["ranked"] - last["selected"] if "ranked" in last else 0.0
    return last.get("trial", last.get("epoch", 0.0) if shared else 0.0) + ranking


def _ranking(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How the supernet of the search ranks networks, if it was measured."""
    found = [event for event in events if event["kind"] == "ranking"]
    return {"ranking": {"word": found[-1]["word"], **found[-1]["metrics"]}} if found else {}
