"""search(): the one loop. It pulls reports from a strategy, logs each, saves what resuming needs, and ends
with controls.

A search is: reports until a limit of the budget; the best architecture, costed at the network's scale;
controls: the found network, random ones of the space and a hand-designed one of like cost, trained under one
recipe inside the run. Whatever was cut off is taken up from the ledger and the checkpoint to the same bits.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from nas.augment import Augment
from nas.budget import Budget
from nas.constraints import constrained, parted
from nas.controls import controls
from nas.counting import Cost, cost
from nas.data import Dataset
from nas.data.batches import Examples
from nas.evaluators import EVALUATORS, Objective
from nas.execution import EXECUTORS, Evaluator, Executor, RayPool, devices
from nas.front import RunFront
from nas.goal import goals_of
from nas.ranking import ranking
from nas.recipe import Recipe
from nas.result import document, ending
from nas.run import Run, RunFailed, environment
from nas.search_space import Architecture, SearchSpace, space
from nas.seeding import derive, generator
from nas.strategies import STRATEGIES, AskTell, OneShot, Report, Strategy, Task
from nas.strategies.parallel import Parallel
from nas.subject import from_config
from nas.training import facts_of, same_data, settled
from nas.usage import Usage

TIMELESS = ("kind", "step", "metrics", "tables", "replayed", "error", "epochs", "network", "accuracies")
TOLD = ("start", "trial", "epoch", "finished")
Config = dict[str, Any]


class Watcher:
    """Is told what happens, to show it. This one shows nothing."""

    def stage(self, text: str, total: int | None = None, done: int = 0) -> None:
        """A new stage begins, of `total` steps if that is known; an earlier process did `done` of them."""

    def tick(self, done: int, total: int) -> None:
        """`done` of `total` batches of the present epoch."""

    def event(self, event: Mapping[str, Any]) -> None:
        """A line was added to the ledger."""

    def note(self, text: str) -> None:
        """Something happened beside the search: a worker came or went."""

    def stopping(self) -> bool:
        """Whether the search is to end when what is being evaluated has ended."""
        return False

    def patient(self) -> AbstractContextManager[None]:
        """Within it the first Ctrl-C is no exception, but what `stopping` tells."""
        return nullcontext()


@dataclass
class Search:
    """One search in one run: everything that its configuration decides, built."""

    run: Run
    config: Config
    data: Dataset | None
    objective: Callable[[Architecture], float | Mapping[str, float]] | None = None
    watcher: Watcher = field(default_factory=Watcher)
    board: Any = None

    def __post_init__(self) -> None:
        self.shape = _shape(self.data)
        self.space: SearchSpace = searched_space(self.config, self.data)
        scale = {**self.config["network"], **self.shape}
        self._sized = space(self.space.name, **scale)  # the space at the network's scale
        self.budget = Budget.parse(self.config["budget"])
        self.seed: int = self.config["seed"]
        self.goals = goals_of(self.config)
        self.front = RunFront(
            self.goals, lambda event: self._described(self.space.parse(event["literal"]), event["metrics"])
        )
        self.latest: Architecture | None = None
        self.usage = Usage(self.run.folder, self.config["device"])
        self._executor: Executor | None = None
        self.strategy = self._strategy()

    # --- the search itself ----------------------------------------------------------------------------------

    def search(self) -> Architecture:
        """Pull reports until the budget is spent; the best architecture."""
        executor = self._executor = self.executor() if isinstance(self.strategy, AskTell) else None
        task = self.task(executor)
        gc.disable()  # it would look again and again at the many objects of a long ledger
        try:
            past = self._take_up(task)
        finally:
            gc.enable()
        own = self.strategy.epochs if isinstance(self.strategy, OneShot) else None
        total = self.budget.epochs or self.budget.trials or own
        self.watcher.stage("search", total, sum(event["kind"] in ("trial", "epoch") for event in past))
        if past:
            self.latest = self.space.parse(past[-1]["literal"])
        try:
            if not self.spent():
                with self.watcher.patient() if executor and executor.facts() else nullcontext():
                    self._pull(self.strategy.reports(task))
            elif isinstance(self.strategy, OneShot):
                self.strategy.begin(task)
        finally:
            if executor is not None:
                executor.close()
        if isinstance(self.strategy, AskTell):
            return self.strategy.best()
        if self.latest is None:
            raise RunFailed(f"the budget {self.config['budget']} left no time for one epoch: give it more")
        return self.latest

    def _pull(self, reports: Iterator[Report]) -> None:
        for report in reports:
            self.latest = report.architecture
            self.tell(self._log(report))
            if report.kind not in ("start", "finished") and self.spent():
                break
        if self.watcher.stopping():
            raise KeyboardInterrupt

    def tell(self, event: Mapping[str, Any]) -> None:
        """Show a new line of the ledger, to people and on the board."""
        self.watcher.event(event)
        if self.board is not None:
            self.board.write(event)

    def spent(self) -> str | None:
        """Which limit of time is reached, or None."""
        in_use = devices(self.config, isinstance(self.strategy, OneShot))
        return self.budget.spent(seconds=self.run.seconds, devices=in_use)

    def _take_up(self, task: Task) -> list[dict[str, Any]]:
        """Hand the strategy what an earlier process left; the events of the search that are covered."""
        before = self.run.events()
        state = self.run.load() if isinstance(self.strategy, OneShot) else None
        if isinstance(self.strategy, OneShot) and not any(event["kind"] == "selected" for event in before):
            self.run.cut_back(state["covers"] if state else 0)
        past = [event for event in self.run.events() if event["kind"] in TOLD]
        if before:
            self.run.log("resume")
        self.strategy.resume(task, [self._report(event) for event in past], state)
        self.front.read(past)
        self.front.save(self.run.folder)
        return past

    def _report(self, event: Mapping[str, Any]) -> Report:
        content = {name: event[name] for name in TIMELESS if name in event}
        return Report(architecture=self.space.recall(event["literal"], event["digest"]), **content)

    def _log(self, report: Report) -> dict[str, Any]:
        """Ledger first, then the checkpoint that covers it, then best.yaml."""
        architecture = report.architecture
        assert architecture is not None
        content: dict[str, Any] = {"step": report.step, "literal": architecture.literal}
        content["digest"] = architecture.digest
        if report.kind != "start":
            content["metrics"] = dict(report.metrics)
        if report.tables is not None:
            content["tables"] = {
                n: [[round(w, 6) for w in row] for row in rows] for n, rows in report.tables.items()
            }
        for name in ("epochs", "error", "network", "accuracies"):
            if getattr(report, name) is not None:
                content[name] = getattr(report, name)
        if report.kind == "trial" and self._executor is not None and (facts := self._executor.facts()):
            content["worker"] = facts
        event = self.run.log(report.kind, **content, **({"replayed": True} if report.replayed else {}))
        if isinstance(self.strategy, OneShot):
            self.run.save(self.strategy.state())
            self.usage.epoch(trained="train_loss" in report.metrics, peak=self.strategy.peak)
            self._save_best(architecture, report.metrics)
        elif report.kind == "trial":
            if self._is_best(report.step):
                self._save_best(architecture, report.metrics)
            if self.front.tell(event):
                self.front.save(self.run.folder)
        return event

    def _is_best(self, number: int) -> bool:
        best = self.strategy.best_trial if isinstance(self.strategy, AskTell) else None
        return best is not None and best.number == number

    def _save_best(self, architecture: Architecture, metrics: Mapping[str, float]) -> None:
        self.run.save_best(self._described(architecture, metrics))

    def _described(self, architecture: Architecture, metrics: Mapping[str, float]) -> Config:
        figures = self.figures(architecture)
        sizes = {"params": figures.params, "macs": figures.macs}
        return {**architecture.to_dict(), **sizes, "metrics": dict(metrics)}

    def figures(self, architecture: Architecture) -> Cost:
        """The cost of the network that an architecture gives, at the network's scale."""
        return cost(self._sized.fill(architecture))

    @cached_property
    def _examples(self) -> Examples:
        assert self.data is not None
        return _examples(self.config, self.data)

    def _strategy(self) -> Strategy:
        """The strategy; one with a supernet on a cluster, if that is asked for."""
        made = _strategy(self.config)
        asked = self.config["executor"]
        if not isinstance(made, OneShot) or asked["name"] != "ray":
            if isinstance(made, OneShot) and asked.get("workers", 1) > 1:
                self.watcher.note(
                    "one process trains the supernet, the workers the networks of its ranking; with "
                    "--executor ray they train the supernet together"
                )
            return made
        return Parallel(made, lambda: cast(RayPool, self.executor()))

    def executor(self) -> Executor:
        """What evaluates architectures."""
        settings = dict(self.config["executor"])
        make = EXECUTORS.resolve(settings.pop("name"))
        if settings.get("storage"):
            settings["storage"] = f"{settings['storage'].rstrip('/')}/{self.run.identity}"
        if self.objective is not None:
            evaluate: Evaluator = Objective(self.objective, self.goals[0].metric)
        else:  # a cluster's workers may have a GPU that this machine has not
            config = {**self.config, "device": "cuda"} if settings.get("gpus") else self.config
            evaluate = _evaluator(config, self.space, self._examples)
        made = make(evaluate, self.seed, **settings)
        made.note, made.logs = self.watcher.note, self.run.folder.absolute() / "workers"
        made.stopping = self.watcher.stopping
        return made

    def task(self, executor: Executor | None) -> Task:
        """What the strategy works on."""
        return Task(
            space=self.space,
            seed=self.seed,
            epochs=self.budget.epochs,
            trials=self.budget.trials,
            goals=self.goals,
            lag=self.config["search"]["lag"],
            ordered=self.config["search"]["order"] == "number",
            early_stop=self.config["search"].get("early_stop", "none"),
            device=self.config["device"],
            examples=None if self.data is None else self._examples,
            executor=executor,
            tick=self._tick,
            stopping=self.watcher.stopping,
        )

    def _tick(self, done: int, total: int) -> None:
        self.usage.tick(done, total)
        self.watcher.tick(done, total)

    # --- after the search -----------------------------------------------------------------------------------

    def select(self, best: Architecture, reason: str) -> dict[str, Any]:
        """Write down the choice, and why the search ended: best.yaml and a line of the ledger."""
        if before := [event for event in self.run.events() if event["kind"] == "selected"]:
            return before[-1]
        metrics = self.metrics_of(best)
        self._save_best(best, metrics)
        figures = self.figures(best)
        chosen = {"params": figures.params, "macs": figures.macs, "metrics": metrics, "reason": reason}
        event = self.run.log("selected", literal=best.literal, digest=best.digest, **chosen)
        self.tell(event)
        return event

    def metrics_of(self, best: Architecture) -> dict[str, float]:
        """What the search measured: of its last healthy epoch, or of the trial that is the best."""
        if lines := {e["step"]: e["metrics"] for e in self.run.events() if e["kind"] == "epoch"}:
            last = lines[max(lines)]
            return dict(lines.get(last.get("healthy_epoch"), last))
        told = (e for e in self.run.events() if e["kind"] == "trial")
        return dict(next(event["metrics"] for event in told if self._is_best(event["step"])))


def begin(config: Config, folder: Path, *, data: Dataset | None = None) -> Run:
    """Make a run's folder: its configuration and what its result may depend on beside that.

    Raises ValueError, before anything is made, if the networks cannot be built or evaluated for these data.
    """
    if config["command"] == "search":
        check(config, data)
    elif data is not None:
        from_config(config["what"]).cost(**config["network"], **_shape(data))
    return Run.create(folder, config, environment(**facts_of(config, data)))


def check(config: Config, data: Dataset | None) -> None:
    """Raises ValueError if the networks of a search cannot be built or evaluated for these data."""
    _check_scales(config, data)
    if data is not None:  # a table may be of another space
        _evaluator(config, searched_space(config, data), _examples(config, data))


def _examples(config: Config, data: Dataset) -> Examples:
    """The data of a search, in two parts."""
    held = data.split(config["data"]["valid"], seed=derive(config["seed"], "split"))
    return Examples(held.train, held.valid, data.mean, data.std, Augment(**config["data"]["augment"]))


def _evaluator(config: Config, made: SearchSpace, examples: Examples) -> Evaluator:
    section = dict(config["evaluator"])
    build = EVALUATORS.resolve(section.pop("name"))
    return build(made, examples, Recipe(**config["train"]), config["device"], **section)


def _strategy(config: Config) -> Strategy:
    section = dict(config["strategy"])
    made: Strategy = STRATEGIES.resolve(section.pop("name"))(**section)
    return made


def _shape(data: Dataset | None) -> dict[str, Any]:
    return {"classes": len(data.classes), "input": data.input} if data else {}


def searched_space(config: Config, data: Dataset | None) -> SearchSpace:
    """The space of a search at its own scale, with the limits on what may be found."""
    section, given = parted(config["space"])
    made = space(section.pop("name"), **section, **_shape(data))
    return constrained(made, given, scale={**config["network"], **_shape(data)})


def _check_scales(config: Config, data: Dataset | None) -> None:
    """Cost an architecture at both scales, which needs no module: illegal sizes and limits show here."""
    try:
        made = searched_space(config, data)
        sampled = made.sample(generator("check"))
        cost(made.fill(sampled))
    except ValueError as error:
        raise ValueError(f"space: {error}") from error
    _strategy(config).check(made)
    if made.graph.auxiliary:
        raise ValueError("space.auxiliary is for training found networks: set network.auxiliary")
    try:
        cost(space(made.name, **{**config["network"], **_shape(data)}).fill(sampled))
    except ValueError as error:
        raise ValueError(f"network: {error}") from error


def proceed(
    run: Run,
    *,
    data: Dataset | None,
    objective: Callable[[Architecture], float | Mapping[str, float]] | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """Search, from the beginning or from where it was cut off, to the end; the result as a document."""
    from nas.report.tensorboard import replay

    config = run.config
    finished = [event for event in run.events() if event["kind"] == "done"]
    same_data(run, data)
    search = Search(run, config, data, objective, watcher or Watcher())
    if finished:
        search.front.read(run.events())
        return document(run, finished[-1], space=search.space, front=search.front)
    with settled(config):
        search.board = replay(run.events(), run.folder / "tensorboard", space=search.space, config=config)
        try:
            best = search.search()
            reason = ending(run, search.strategy, search.spent())
            reason = search.select(best, reason).get("reason", reason)
            if isinstance(search.strategy, OneShot):
                ranking(search)
            wanted = config["controls"] and data is not None and objective is None
            groups = controls(search, best) if wanted else {}
            final = run.log("done", reason=reason, metrics=search.metrics_of(best), controls=groups)
            search.tell(final)
        finally:
            search.board.close()
    return document(run, final, space=search.space, front=search.front)
