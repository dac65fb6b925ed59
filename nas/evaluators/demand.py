"""demand(): what the goals of a search ask of its evaluator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nas.evaluators.proxies import PROXIES
from nas.evaluators.scratch import EVALUATORS, LATENCY
from nas.evaluators.zero_cost import SIZES
from nas.goal import ACCURACY, Goal, goals_of
from nas.registry import label, unknown
from nas.strategies import has_supernet


def demand(config: dict[str, Any]) -> None:
    """Have the evaluator of a resolved configuration measure what the goals, or the ranking, need.

    Raises ValueError for what it does not measure, and for goals of a strategy that evaluates nothing.
    """
    goals: Sequence[Goal] = goals_of(config)
    strategy, evaluator = config["strategy"]["name"], config["evaluator"]
    measured = EVALUATORS.facts(evaluator["name"]).get("metrics")
    if measured is not None:
        measured = (*measured, *map(label, evaluator.get("proxies", ())), *evaluator.get("columns", ()))
    key, way_out = "search.objective", "; name one with --objective"
    if has_supernet(strategy):
        _check_unused(config, goals)
        goals = [Goal.parse(config["ranking"]["metric"])] if config["ranking"]["networks"] else []
        key, way_out = "ranking.metric", ""
    for goal in goals:
        if measured is not None and goal.metric not in measured:
            what = unknown("metric", goal.metric, measured)
            raise ValueError(f"{key}: {what} of the evaluator {evaluator['name']}{way_out}")
    if config["search"]["early_stop"] != "none" and measured is not None and "valid_accuracy" not in measured:
        raise ValueError(
            f"search.early_stop goes by the accuracy after each epoch, and the evaluator {evaluator['name']} "
            "trains nothing: leave it out, or take --set evaluator=scratch"
        )
    if "latency" in evaluator and any(goal.metric == LATENCY for goal in goals):
        evaluator["latency"] = True
    if "proxies" in evaluator:
        own = (goal.metric for goal in goals if goal.metric in PROXIES and goal.metric not in SIZES)
        evaluator["proxies"] = list(dict.fromkeys([*evaluator["proxies"], *own]))


def _check_unused(config: Mapping[str, Any], goals: Iterable[Goal]) -> None:
    """Raises ValueError for what a strategy with a supernet has no use for."""
    strategy = config["strategy"]["name"]
    other = next((goal for goal in goals if goal != ACCURACY), None)
    if other is not None:
        raise ValueError(
            f"strategy {strategy} trains a supernet by its loss and compares no architectures: it has no "
            f"use for --objective {other}; --strategy pareto_evolution has"
        )
    if config["search"]["early_stop"] != "none":
        raise ValueError(f"strategy {strategy} has no trials to stop: leave search.early_stop out")
