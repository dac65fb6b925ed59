"""described(): what strategies are measured on, from texts and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nas.bench import Bench, Searching
from nas.budget import Budget
from nas.evaluators.table import Table
from nas.goal import Goal, goals_from
from nas.registry import absolute
from nas.search_space import SPACES, SearchSpace
from nas.search_space import space as space_at
from nas.search_space.listed import Listed

RARE = 0.02  # of a space: a table that has less of it is a list of members rather than a rule on draws


def described(
    path: Path,
    *,
    space: str | None = None,
    arch_column: str = "arch",
    join: Sequence[Path] = (),
    objectives: Sequence[str] = (),
    report: str | None = None,
    trials: int | None = None,
    fidelities: Sequence[str] = (),
    cost: str | None = None,
    budget: str | None = None,
    workers: int = 1,
    searches: Callable[[SearchSpace, Goal], Searching] | None = None,
) -> Bench:
    """A bench as text describes it.

    join: files of further columns. fidelities: ``EPOCHS=COLUMN`` each. budget: a time on the simulated
    clock. searches: how strategies with a supernet search, given the space and the goal that is reported.
    Without `space` it is the first registered one that reads the table's literals. Raises ValueError that
    says what is wrong.
    """
    if not objectives and not (searches and report):
        raise ValueError(
            "--objective names the column that a strategy sees, as in --objective valid_accuracy"
        )
    goals = goals_from(objectives)
    scored = Goal.parse(report) if report else goals[0]
    levels = dict(map(_level, fidelities))
    if len(levels) < len(fidelities):
        raise ValueError(
            f"--fidelity names one column for each number of epochs, got {', '.join(fidelities)}"
        )
    columns = [*(goal.metric for goal in goals), scored.metric, *levels.values(), *([cost] if cost else [])]
    limits = Budget.parse(budget) if budget else Budget()
    if limits.hours is not None and cost is None:
        raise ValueError(f"a budget of time, {budget}, needs --cost-column: the seconds of an evaluation")
    if limits.epochs is not None or limits.device_hours is not None:
        raise ValueError(f"--budget takes trials and a time, as in 100trials,12000s, not {budget}")
    table = Table.read(path, columns=columns, key=arch_column, join=join)
    if cost is not None:
        _check_costs(table, cost)
    made = _space(table, space)
    table = table.of(made)
    return Bench(
        table,
        _covered(made, table),
        goals,
        scored,
        trials=trials or limits.trials or (None if limits.hours is not None else 100),
        fidelities=levels,
        cost=cost,
        seconds=None if limits.hours is None else 3600 * limits.hours,
        workers=workers,
        searches=searches and searches(made, scored),
    )


def _check_costs(table: Table, column: str) -> None:
    for literal in table.rows:
        if not table.value(literal, column) > 0:  # nothing, or a clock that would stand still
            raise ValueError(f"--cost-column {column} has no seconds above 0 for {literal}")


def _covered(made: SearchSpace, table: Table) -> SearchSpace:
    """The part of a space that the table has."""
    if made.size == len(table.rows):
        return made
    if len(table.rows) > RARE * made.size:
        return made.limited(table.why_not)
    return Listed.of(made, map(made.parse, table.rows))


def _level(text: str) -> tuple[int, str]:
    epochs, equals, column = text.partition("=")
    if not equals or not epochs.isdigit() or not int(epochs):
        raise ValueError(f"--fidelity takes EPOCHS=COLUMN, as in 12=valid_12, not {text!r}")
    return int(epochs), column


def _space(table: Table, address: str | None) -> SearchSpace:
    if address is not None:
        return space_at(absolute(address))
    literal = next(iter(table.rows))
    for name in SPACES:
        made = space_at(name)
        try:
            made.parse(literal)
        except ValueError:
            continue
        return made
    raise ValueError(f"no registered space reads {literal!r}: name the table's with --space")
