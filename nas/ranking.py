"""ranking(): does a supernet rank networks as they rank when each is trained alone?

After a search with shared weights, random architectures are measured twice: in the supernet, and by the run's
evaluator, which trains each alone for a short time or looks it up in a table. Only if the two agree is there
reason to believe that the best path of the supernet is a good network (Yu, Sciuto, Jaggi, Musat, Salzmann,
"Evaluating the Search Phase of Neural Architecture Search", ICLR 2020, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.controls import strangers
from nas.correlation import FEWEST, SHARED, Correlation
from nas.goal import Goal
from nas.search_space.listed import Listed
from nas.seeding import derive, generator
from nas.strategies import Exhaustive, OneShot, Report, Task

if TYPE_CHECKING:
    from nas.loop import Search
    from nas.search_space import Architecture


def ranking(search: Search) -> dict[str, Any] | None:
    """Measure what was not measured before; the line of the ledger that sums it up, None if there is none."""
    settings = search.config.get("ranking", {})
    if not settings.get("networks") or search.data is None:
        return None
    if told := [event for event in search.run.events() if event["kind"] == "ranking"]:
        return told[-1]
    strategy, rng = search.strategy, generator(search.seed, "ranking")
    assert isinstance(strategy, OneShot)
    drawn = strangers(search.space, settings["networks"], lambda: strategy.random(rng))
    goal = Goal.parse(settings["metric"])
    done = sum(event["kind"] == "ranked" for event in search.run.events())
    search.watcher.stage("ranking", len(drawn), done)
    pairs = [
        (event["metrics"][SHARED], goal.score(event["metrics"]))
        for event in _measured(search, drawn, goal, settings["epochs"])
        if "error" not in event
    ]
    found = Correlation(pairs)
    enough = len(pairs) >= FEWEST
    metrics = found.metrics() if enough else {"networks": len(pairs)}
    event = search.run.log("ranking", word=found.word if enough else None, metrics=metrics)
    search.tell(event)
    return event


def _measured(
    search: Search, drawn: Sequence[Architecture], goal: Goal, epochs: int
) -> Iterator[Mapping[str, Any]]:
    """Each network's line of the ledger: what an earlier process left, then what is measured now."""
    assert isinstance(search.strategy, OneShot)
    before = [event for event in search.run.events() if event["kind"] == "ranked"]
    yield from before
    alone = Exhaustive(epochs)
    executor = search.executor()
    task = Task(
        Listed.of(search.space, drawn), derive(search.seed, "ranking"), goals=(goal,),
        lag=search.config["search"]["lag"], ordered=search.config["search"]["order"] == "number",
        executor=executor,
    )  # fmt: skip
    try:
        alone.resume(task, _past(search, before, epochs), None)
        for report in alone.reports(task):
            if report.kind != "trial":
                continue
            event = _log(search, report, goal)
            search.tell(event)
            yield event
    finally:
        executor.close()


def _past(search: Search, before: Sequence[Mapping[str, Any]], epochs: int) -> Iterator[Report]:
    for event in before:
        architecture = search.space.recall(event["literal"], event["digest"])
        yield Report("start", event["number"], architecture=architecture, epochs=epochs)
        yield Report(
            "trial", event["number"], event["metrics"], architecture,
            epochs=epochs, error=event.get("error"),
        )  # fmt: skip


def _log(search: Search, report: Report, goal: Goal) -> dict[str, Any]:
    """A network's result alone and, if it has one, in the supernet."""
    assert isinstance(search.strategy, OneShot)
    assert report.architecture is not None
    metrics, error = {}, report.error
    if error is None:
        try:
            shared = search.strategy.score(report.architecture)
            metrics = {SHARED: shared, goal.metric: report.metrics[goal.metric]}
        except FloatingPointError as problem:
            error = f"in the supernet: {problem}"
    return search.run.log(
        "ranked",
        number=report.step,
        literal=report.architecture.literal,
        digest=report.architecture.digest,
        metrics=metrics,
        **({"error": error} if error else {}),
    )
