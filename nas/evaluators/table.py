"""Table: known results of architectures, from a CSV file of anyone's.

One row an architecture, a head line of column names. One column holds literals of one space; numbers stand in
every other column that is asked for. An empty cell means that there is no result.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from nas.data.batches import Examples
from nas.evaluators.scratch import EVALUATORS
from nas.execution import Result, Trial
from nas.recipe import Recipe
from nas.registry import unknown
from nas.search_space import Architecture, SearchSpace


@dataclass(frozen=True)
class Table:
    """Rows by literal, and the columns that were read.

    Args:
        rows: literal -> values, NaN where the file has none.
        columns: names of the values.
    """

    rows: Mapping[str, Sequence[float]]
    columns: Sequence[str]

    @classmethod
    def read(
        cls, path: Path, *, columns: Sequence[str], key: str = "arch", join: Sequence[Path] = ()
    ) -> Table:
        """Some columns of a CSV file, compressed (.gz) or not; `key` is the one of the literals.

        `join`: files of further columns, each with one column of the first file's that tells its rows apart.
        Raises ValueError for a file that is missing or no table, an unknown column, a cell that is no number.
        """
        wanted = list(dict.fromkeys(columns))
        heads = {each: next(_cells(each))[1] for each in (path, *join)}
        owner = {name: each for each in reversed(heads) for name in heads[each]}  # the first file's counts
        where = str(path) if not join else " and ".join(map(str, heads))
        for name in wanted:
            if name not in owner:
                raise ValueError(f"{where}: " + unknown("column", name, owner))
        there = [name for name in wanted if owner[name] == path]
        shared = {each: _shared(heads[path], heads[each], key, each) for each in join}
        found = _columns(path, key, [*there, *shared.values()])
        rows: dict[str, dict[str, float]] = {
            literal: {name: _number(cells[i], path, line) for i, name in enumerate(there)}
            for literal, (line, cells) in found.items()
        }
        for place, each in enumerate(join, len(there)):
            names = [name for name in wanted if owner[name] == each]
            other = _columns(each, shared[each], names)
            for literal, (_, cells) in found.items():
                line, more = other.get(cells[place], (0, [""] * len(names)))  # no row there: no results
                rows[literal] |= {
                    name: _number(cell, each, line) for name, cell in zip(names, more, strict=True)
                }
        return cls({k: tuple(row[name] for name in wanted) for k, row in rows.items()}, tuple(wanted))

    def of(self, space: SearchSpace) -> Table:
        """The same under the space's own literals, where the file has another notation of its literature.

        Raises ValueError for an architecture that the space does not have.
        """
        found: dict[str, Sequence[float]] = {}
        for text, row in self.rows.items():
            literal = space.parse(text).literal
            if literal in found:
                raise ValueError(f"two rows of the table are {literal}: it has one result for each")
            found[literal] = row
        return Table(found, self.columns)

    def value(self, literal: str, column: str) -> float:
        """A cell; NaN if it is empty. Raises ValueError if the architecture has no row."""
        if literal not in self.rows:
            raise ValueError(f"the table has no row of {literal}")
        return self.rows[literal][self.columns.index(column)]

    def most(self, column: str, *, smallest: bool = False) -> float:
        """The best value of a column."""
        place = self.columns.index(column)
        values = [row[place] for row in self.rows.values() if not math.isnan(row[place])]
        if not values:
            raise ValueError(f"column {column!r} is empty")
        return min(values) if smallest else max(values)

    def why_not(self, architecture: Architecture) -> str | None:
        """A rule for spaces of which the table has a part alone."""
        return None if architecture.literal in self.rows else "the table has no row of it"


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file with their numbers, first the head.

    Raises ValueError for a file that is missing or no table, and lines of another length than the head's.
    """
    if not path.is_file():
        raise ValueError(f"no table at {path}: --table takes a CSV file, compressed (.csv.gz) or not")
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else open(path, newline="") as file:
            lines = csv.reader(file)
            head = next(lines, [])
            if not head:
                raise ValueError(f"{path} is empty: a table begins with a line of column names")
            yield 1, head
            for number, line in enumerate(lines, 2):
                if not line:
                    continue
                if len(line) != len(head):
                    raise ValueError(f"{path}, line {number}: {len(line)} cells under {len(head)} columns")
                yield number, line
    except (OSError, UnicodeDecodeError, csv.Error, EOFError) as error:
        raise ValueError(f"{path} is no table: {error}") from error


def _columns(path: Path, key: str, names: Sequence[str]) -> dict[str, tuple[int, list[str]]]:
    """What stands in the column `key` -> line number, and the cells of other columns.

    Raises ValueError for an unknown column, a key that comes twice, and a table without rows.
    """
    lines = _cells(path)
    _, head = next(lines)
    for name in (key, *names):
        if name not in head:
            raise ValueError(f"{path}: " + unknown("column", name, head))
    place, places = head.index(key), [head.index(name) for name in names]
    rows: dict[str, tuple[int, list[str]]] = {}
    for number, line in lines:
        if line[place] in rows:
            raise ValueError(f"{path}, line {number}: {line[place]} has a row already")
        rows[line[place]] = number, [line[i] for i in places]
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def _shared(head: Sequence[str], other: Sequence[str], key: str, path: Path) -> str:
    """The column by which a file is joined: that of the literals, or the first that both have."""
    common = [name for name in (key, *head) if name in head and name in other]
    if not common:
        raise ValueError(f"{path} shares no column with the table, whose columns are {', '.join(head)}")
    return common[0]


def _number(text: str, path: Path, line: int) -> float:
    try:
        number = float(text) if text.strip() else math.nan
    except ValueError:
        number = math.inf
    if math.isinf(number):
        raise ValueError(f"{path}, line {line}: {text!r} is no number")
    return number


def _there(path: Path) -> str:
    """The path made whole. Raises ValueError if no file is there."""
    whole = path.expanduser().absolute()
    if not whole.is_file():
        raise ValueError("no file is there")
    return str(whole)


@EVALUATORS.register("table", metrics=())
def table(
    space: SearchSpace,
    examples: Examples,
    recipe: Recipe,
    device: str = "cpu",
    *,
    path: Annotated[Path, AfterValidator(_there)],
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("valid_accuracy",),
    key: str = "arch",
    join: tuple[Annotated[Path, AfterValidator(_there)], ...] = (),
) -> Tabular:
    """Looks results up in a CSV file of known ones; nothing is trained

    Args:
        path: of the file, compressed (.csv.gz) or not.
        columns: the metrics of a result.
        key: the column of the architectures.
        join: files of further columns.
    """
    found = Table.read(Path(path), columns=columns, key=key, join=tuple(map(Path, join)))
    return Tabular(found.of(space), columns)


@dataclass(frozen=True)
class Tabular:
    """Looks a trial's result up by its exact literal, in microseconds.

    Args:
        table: the known results.
        columns: those that are the result.
        fidelities: epochs -> the column that stands for the first of `columns` after so many epochs. A trial
            gets the one of the most epochs that it reaches.
    """

    table: Table
    columns: Sequence[str]
    fidelities: Mapping[int, str] = field(default_factory=dict)

    def __call__(self, trial: Trial, *, seed: int) -> Result:
        literal = trial.architecture.literal
        found = {name: self.table.value(literal, name) for name in self.columns}
        if self.fidelities and trial.epochs is not None:
            reached = [epochs for epochs in self.fidelities if epochs <= trial.epochs]
            if not reached:
                raise ValueError(
                    f"the table's results begin at {min(self.fidelities)} epochs, not {trial.epochs}"
                )
            found[self.columns[0]] = self.table.value(literal, self.fidelities[max(reached)])
        return found

    def share(self, trial: Trial) -> float:
        """The part of a full training that a trial takes."""
        if not self.fidelities or trial.epochs is None:
            return 1.0
        return min(1.0, trial.epochs / max(self.fidelities))
