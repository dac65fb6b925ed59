"""A space as an Optuna study: decisions as parameters, told trials as Optuna's trials, a copy for dashboards.

Imported when a search with one of Optuna's samplers begins, not before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import combinations, pairwise
from math import comb
from pathlib import Path
from typing import Any, NamedTuple, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import BaseTrial, FrozenTrial, TrialState

from nas.execution import Result, Trial
from nas.goal import Goal
from nas.graph import Option, Value
from nas.search_space import Architecture, Decision, SearchSpace

Choices = Mapping[str, Value]
Answer = Callable[["Question"], Option]
COMBINATIONS = 200  # of kept rows, at most, that are the options of one parameter


class Question(NamedTuple):
    """A parameter of Optuna's: which of `options`? `of` reads the answer from given choices."""

    name: str
    options: tuple[Option, ...]
    of: Callable[[Choices], Option]


def is_ordered(options: tuple[Option, ...]) -> bool:
    """Whether options are three or more numbers that rise or fall: widths, depths, rates."""
    numbers = [option for option in options if isinstance(option, (int, float))]
    steps = [b - a for a, b in pairwise(numbers)]
    whole = len(numbers) == len(options) >= 3
    return whole and (all(step > 0 for step in steps) or all(step < 0 for step in steps))


@lru_cache(maxsize=4096)
def distribution(options: tuple[Option, ...]) -> BaseDistribution:
    """Whole numbers if the options are ordered, else categories."""
    if not is_ordered(options):
        return CategoricalDistribution(options)
    low, high, step = _evenly(options) or (0, len(options) - 1, 1)
    return IntDistribution(low, high, step=step)


def _evenly(options: tuple[Option, ...]) -> tuple[int, int, int] | None:
    """(low, high, step) of rising whole numbers at equal distances. Others are known by their places."""
    whole = [option for option in options if isinstance(option, int)]
    steps = {b - a for a, b in pairwise(whole)}
    if len(whole) < len(options) or len(steps) > 1 or whole[0] > whole[-1]:
        return None
    return whole[0], whole[-1], steps.pop()


def encoded(options: tuple[Option, ...], option: Option) -> Option:
    """What Optuna sees of an option."""
    return options.index(option) if is_ordered(options) and not _evenly(options) else option


def decoded(options: tuple[Option, ...], value: Option) -> Option:
    """The option that Optuna means."""
    return options[int(value)] if is_ordered(options) and not _evenly(options) else value


class _Open(str):
    """What an open decision counts as: any option but ``none``, so that its nodes may be there."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other != "none"

    def __ne__(self, other: object) -> bool:
        return other == "none"

    def __hash__(self) -> int:
        return 0


OPEN = _Open("open")


class Questions:
    """The decisions of a space, one question after the other.

    A decision asks which rows it keeps, unless it keeps all, then for the option of each kept row. What the
    answers so far settle not to matter is not asked (`conditional`) and stays at its first option; decisions
    on which the presence of nodes depends come first. So equal answers always lead to the same questions.
    """

    def __init__(self, space: SearchSpace, *, conditional: bool) -> None:
        self.space, self.conditional = space, conditional
        gates = {node.when.decision for node in space.graph.nodes if node.when is not None}
        self._order = sorted(space.decisions, key=lambda decision: decision.name not in gates)
        names = [decision.name for decision in self._order]
        self._active = lru_cache(maxsize=4096)(
            lambda values: space.graph.active(dict(zip(names, values, strict=True)))
        )

    def choices(self, answer: Answer) -> dict[str, Value]:
        """The choices that the answers lead to."""
        known: dict[str, Value] = {d.name: tuple((row, OPEN) for row in range(d.rows)) for d in self._order}
        for decision in self._order:
            if decision.keep < decision.rows and self._matters(known, decision, range(decision.rows)):
                known[decision.name] = tuple((row, OPEN) for row in _rows(decision, answer))
            rows = [row for row, _ in known[decision.name]][: decision.keep]
            matter = self._matters(known, decision, rows)
            known[decision.name] = tuple(
                (row, answer(_option(decision, place)) if row in matter else decision.legal[0])
                for place, row in enumerate(rows)
            )
        return {decision.name: known[decision.name] for decision in self.space.decisions}

    def _matters(self, known: Choices, decision: Decision, rows: Iterable[int]) -> set[int]:
        """The rows that may matter, whatever is answered to the open questions."""
        if not self.conditional:
            return set(rows)
        active = self._active(tuple(known.values()))
        return {row for row in rows if (decision.name, row) in active}

    def answers(self, choices: Choices) -> dict[str, tuple[tuple[Option, ...], Option]]:
        """Name -> (options, answer) of the questions that these choices answer, in order."""
        found: dict[str, tuple[tuple[Option, ...], Option]] = {}

        def answer(question: Question) -> Option:
            option = question.of(choices)
            found[question.name] = question.options, option
            return option

        self.choices(answer)
        return found


def _option(decision: Decision, place: int) -> Question:
    name = decision.name if decision.keep == 1 else f"{decision.name}.{place}"
    return Question(name, decision.legal, lambda choices: choices[decision.name][place][1])


def _rows(decision: Decision, answer: Answer) -> list[int]:
    """The kept rows: one question for all, or a question each where there are too many combinations."""
    name, last = decision.name, decision.rows - decision.keep
    if comb(decision.rows, decision.keep) <= COMBINATIONS:
        sets = combinations(range(decision.rows), decision.keep)
        texts = tuple(",".join(map(str, rows)) for rows in sets)
        asked = Question(
            f"{name}.rows", texts, lambda choices: ",".join(str(row) for row, _ in choices[name])
        )
        return [int(row) for row in str(answer(asked)).split(",")]
    rows: list[int] = []
    for place in range(decision.keep):
        of = _row(name, place)
        wanted = int(answer(Question(f"{name}.row{place}", tuple(range(place, last + place + 1)), of)))
        rows.append(max(wanted, rows[-1] + 1) if rows else wanted)  # ascending, whatever was answered
    return rows


def _row(name: str, place: int) -> Callable[[Choices], Option]:
    return lambda choices: choices[name][place][0]


class _Trials(InMemoryStorage):
    """Optuna's storage in memory, whose last trials can be forgotten."""

    def forget(self, study: int, count: int) -> None:
        """Keep the first `count` trials."""
        del self._studies[study].trials[count:]


@contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's log lines, and its warnings that a sampler is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


class Past:
    """What was told, as the study that samplers look at.

    A trial that is asked for is added as running and forgotten again, so asking changes nothing. Samplers
    that keep their state in the attributes of trials (generations, CMA-ES's distribution) would set these
    when a trial is asked for; here they are set when its result is told, from the trials that were told
    before (`stateful`). With no lag that is the same.
    """

    def __init__(self, questions: Questions, goals: Iterable[Goal], *, stateful: bool) -> None:
        self.questions, self.goals, self.stateful = questions, tuple(goals), stateful
        self.count = 0
        self._attributes: dict[str, Any] = {}
        self._storage = _Trials()
        with quiet():
            self._study = optuna.create_study(storage=self._storage, directions=self.directions)

    @property
    def directions(self) -> list[StudyDirection]:
        return [StudyDirection.MINIMIZE if goal.smallest else StudyDirection.MAXIMIZE for goal in self.goals]

    def frozen(self, trial: Trial, result: Result | None, *, part: bool = False) -> FrozenTrial:
        """A trial that was told. `part`: the result is one below the full number of epochs."""
        values = None if result is None else [result[goal.metric] for goal in self.goals]
        pruned = part and values is not None and len(values) == 1
        usable = values is not None and not part
        metrics = {name: float(value) for name, value in (result or {}).items()}
        return optuna.trial.create_trial(
            state=TrialState.COMPLETE if usable else TrialState.PRUNED if pruned else TrialState.FAIL,
            values=values if usable else None,
            intermediate_values={trial.epochs or 0: values[0]} if pruned and values else None,
            user_attrs={"literal": trial.architecture.literal, "number": trial.number, **metrics},
            **self._parameters(trial.architecture),
        )

    def _parameters(self, architecture: Architecture) -> dict[str, Any]:
        answers = self.questions.answers(architecture.choices)
        return {
            "params": {name: encoded(*answer) for name, answer in answers.items()},
            "distributions": {name: distribution(options) for name, (options, _) in answers.items()},
        }

    def add(self, told: FrozenTrial, sampler: BaseSampler) -> None:
        """Enter a told trial. `sampler` is asked for the attributes of the next one, if it keeps any."""
        told.system_attrs = dict(self._attributes)
        self._study.add_trial(told)
        self.count += 1
        if self.stateful:
            with self._asking(sampler) as study:
                self._drawn(study.ask())
                self._attributes = dict(study.get_trials(deepcopy=False)[-1].system_attrs)

    @contextmanager
    def _asking(self, sampler: BaseSampler) -> Iterator[optuna.Study]:
        with quiet():
            name = self._study.study_name
            study = optuna.load_study(study_name=name, storage=self._storage, sampler=sampler)
            try:
                yield study
            finally:
                self._storage.forget(study._study_id, self.count)

    @contextmanager
    def draws(
        self, sampler: BaseSampler, running: Iterable[Trial], *, once: bool
    ) -> Iterator[Iterator[dict[str, Value]]]:
        """Choices that the sampler proposes next. `once`: they end when a trial is proposed again.

        What was drawn counts as running for the next draw, so that samplers avoid it.
        """
        with self._asking(sampler) as study:
            for each in running:
                parameters = self._parameters(each.architecture)
                study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, **parameters))
            yield self._drawing(study, once)

    def _drawing(self, study: optuna.Study, once: bool) -> Iterator[dict[str, Value]]:
        while True:
            before = study.get_trials(deepcopy=False) if once else []
            trial = study.ask()
            choices = self._drawn(trial)
            if any(trial.params == each.params for each in before):
                return
            yield choices

    def _drawn(self, trial: optuna.Trial) -> dict[str, Value]:
        return self.questions.choices(lambda question: answered(trial, question))


def answered(trial: BaseTrial, question: Question) -> Option:
    """What a trial suggests."""
    kind = distribution(question.options)
    if isinstance(kind, IntDistribution):
        number = trial.suggest_int(question.name, kind.low, kind.high, step=kind.step)
        return decoded(question.options, number)
    return cast(Option, trial.suggest_categorical(question.name, question.options))


class Copy:
    """A study in a storage that outlives the run, for optuna-dashboard. Written, never read for proposals.

    Trials that are there already are passed over if they are the same: a run that was taken up continues its
    study. If they differ, the study stays as it is and a new one gets a number behind its name.

    Args:
        address: a database's URL, ``sqlite:///studies.db``, or the path of a journal, ``studies.log``.
        name: of the study.
        directions, metrics: of the goals.
    """

    def __init__(self, address: str, name: str, directions: list[StudyDirection], metrics: list[str]) -> None:
        self.name, self.directions, self.metrics = name, directions, metrics
        self._told: list[FrozenTrial] = []
        self._open(storage_at(address), name)

    def _open(self, storage: str | BaseStorage, name: str) -> None:
        with quiet():
            self._study = optuna.create_study(
                storage=storage, study_name=name, directions=self.directions, load_if_exists=True
            )
            self._study.set_metric_names(self.metrics)
            self._there = self._study.get_trials()

    def add(self, told: FrozenTrial) -> None:
        """Write a told trial, unless it is there."""
        self._told.append(told)
        number, place = 1, len(self._told) - 1
        while place < len(self._told):
            each = self._told[place]
            if place >= len(self._there):
                self._study.add_trial(each)
                self._there.append(each)
            elif not _same(each, self._there[place]):
                number, place = number + 1, -1
                self._open(self._study._storage, f"{self.name} ({number})")
            place += 1


def _same(a: FrozenTrial, b: FrozenTrial) -> bool:
    return (a.state, a.values, a.params) == (b.state, b.values, b.params)


def storage_at(address: str) -> str | BaseStorage:
    """The storage of an address; its folder is made. Raises ValueError for one that cannot be opened."""
    file = Path(address.removeprefix("sqlite:///"))
    if "://" not in address or address.startswith("sqlite:///"):
        file.parent.mkdir(parents=True, exist_ok=True)
    return address if "://" in address else JournalStorage(JournalFileBackend(str(file)))
