"""Board: a run in TensorBoard. The board is a function of the ledger: `replay` rewrites it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nas.correlation import told
from nas.front import LedgerFront
from nas.goal import goals_of
from nas.report import ranking
from nas.report.cell import decision_groups
from nas.report.comparison import HEADINGS, Event, cells_of, comparison, verdict
from nas.report.draw import figure
from nas.report.event_file import event_file
from nas.report.front import picture
from nas.report.heat import Heat, pixels
from nas.report.ledger import BestSoFar
from nas.report.networks import LEGEND, compared, lead, markdown, of_event
from nas.report.outline import outline
from nas.report.scatter import scatters
from nas.search_space.space import SearchSpace

CELL_DPI = 72
PLOT_DPI = 110
RECENT = 20  # trials, for their rate
FILES = "events.out.tfevents.*"


class Board:
    """Writes a run's events into one TensorBoard folder.

    Args:
        folder: where the event file goes.
        space: for heat-maps of the tables and pictures of the cells; None for the training of one network.
        config: the resolved configuration, shown with the final metrics under "hparams".
    """

    def __init__(
        self, folder: Path, *, space: SearchSpace | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.space = space
        self.config = dict(config or {})
        self.writer: Any = event_file(folder)
        self._drawn = ""  # the literal of the picture shown last
        self._groups = decision_groups(space) if space is not None else {}
        self._heats: dict[str, Heat] = {}
        goals = goals_of(self.config)
        self._seen = BestSoFar(goals[0])
        self._front = LedgerFront(goals)
        self._pictured = 0  # trials that the last picture of the front shows
        self._controls: list[Event] = []
        self._compared: list[Event] = []
        self._ranked: list[Event] = []
        self._final: dict[str, float] = {}
        self._step = 0
        self._ends: deque[float] = deque(maxlen=RECENT)  # when the last trials ended
        self._before = 0.0  # the run's clock at the last event that was no control

    def write(self, event: Event) -> None:
        """Show one event of the ledger. Kinds that have nothing to show are passed over."""
        self._step = max(self._step, int(event.get("step", 0)))
        kinds = {
            "epoch": self._epoch, "trial": self._trial, "selected": self._selected, "control": self._control,
            "start": self._compared.append, "network": self._network, "done": self._done,
            "ranked": self._ranked.append, "ranking": self._ranking,
        }  # fmt: skip
        show = kinds.get(event["kind"])
        if show is not None:
            show(event)
        if event["kind"] != "control":  # their seconds are counted from here
            self._before = float(event.get("seconds", self._before))

    def close(self) -> None:
        """Flush and close the file."""
        self.writer.close()

    def flush(self) -> None:
        """Make what was written so far visible."""
        self.writer.flush()

    # --- kinds ---------------------------------------------------------------------------------------------

    def _epoch(self, event: Event) -> None:
        self._scalars({tag(name): value for name, value in numbers(event).items()}, event)
        if event.get("tables"):
            self._tables(event)
        self._cell(event)

    def _tables(self, event: Event) -> None:
        for title, decisions in self._groups.items():
            rows = {
                f"{d.name} {i}": row
                for d in decisions
                for i, row in enumerate(event["tables"].get(d.name, ()))
            }
            if not rows:
                continue
            if title not in self._heats:
                self._heats[title] = Heat(
                    title, rows=list(rows), columns=[str(o) for o in decisions[0].options]
                )
            self._image(f"alpha/{title}", self._heats[title].image(list(rows.values())), event)

    def _trial(self, event: Event) -> None:
        metrics = numbers(event)
        if not metrics:
            return
        self._scalars({f"workers/{name}": value for name, value in self._crowd(event).items()}, event)
        better = self._seen.tell(event)
        self._scalars({f"search/{name}": value for name, value in metrics.items()}, event)
        if self._seen.curve:
            self._scalars({f"search/best_{self._seen.goal.metric}": self._seen.curve[-1][2]}, event)
        self._show_front(event)
        if better:
            self._cell(event)

    def _crowd(self, event: Event) -> dict[str, float]:
        """What the workers did when a trial ended, and how many end a minute."""
        if not event.get("worker"):
            return {}
        self._ends.append(event["time"])
        span = self._ends[-1] - self._ends[0]
        rate = {"trials_per_minute": 60 * (len(self._ends) - 1) / span} if span > 0 else {}
        return {**{name: float(value) for name, value in event["worker"].items()}, **rate}

    def _show_front(self, event: Event) -> None:
        """Its hypervolume with each trial; its picture again when the trials are half as many more."""
        front = self._front
        front.tell(event)
        if len(front.goals) > 1 and front.points:
            self._scalars({"search/hypervolume": front.hypervolume}, event)
            if len(front.points) >= 1.5 * self._pictured:
                self._draw_front(event)

    def _draw_front(self, event: Event) -> None:
        self._pictured = len(self._front.points)
        self._image("front", pixels(picture(self._front), dpi=PLOT_DPI), event)

    def _selected(self, event: Event) -> None:
        found = {
            **numbers(event),
            **{k: float(event[k]) for k in ("params", "macs") if event.get(k) is not None},
        }
        self._final.update(found)
        if len(self._front.goals) > 1 and self._front.points:
            self._draw_front(event)
        self._scalars({f"selected/{name}": value for name, value in found.items()}, event)
        self._cell(event)

    def _ranking(self, event: Event) -> None:
        found = {f"ranking/{name}": value for name, value in numbers(event).items()}
        self._scalars(found, event)
        self._final.update(found)
        self.writer.add_text("ranking", told(event), self._step, walltime=event["time"])
        if event["word"] is not None:
            self._image("ranking", pixels(ranking.picture(self._ranked), dpi=PLOT_DPI), event)

    def _control(self, event: Event) -> None:
        self._controls.append(event)
        group = event["group"]
        number = sum(other["group"] == group for other in self._controls)
        self._scalars(
            {f"controls/{group}_{n}": value for n, value in numbers(event).items()}, event, step=number
        )
        rows = comparison([{"kind": "search", "seconds": self._before}, *self._controls])
        lines = [HEADINGS, tuple("---" for _ in HEADINGS), *(cells_of(row) for row in rows)]
        markdown = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        text = f"{markdown}\n\n{verdict(rows)}"
        self.writer.add_text("controls", text, len(self._controls), walltime=event["time"])
        self._final.update({f"{row.group}_test_accuracy": row.mean for row in rows})

    def _network(self, event: Event) -> None:
        """A training of a comparison; after each round of them, the table and the pictures."""
        self._compared.append(event)
        self._scalars(
            {f"networks/{event['name']}/{n}": value for n, value in numbers(event).items()},
            event,
            step=event["seed"] + 1,
        )
        rows = compared(self._compared, [of_event(e) for e in self._compared if e["kind"] == "network"])
        self._final.update({f"{row.name}_test_accuracy": row.mean for row in rows if row.mean is not None})
        if len({len(row.trainings) for row in rows}) > 1:
            return
        text = f"{markdown(rows)}\n\n{LEGEND}\n\n{lead(rows)}"
        self.writer.add_text("networks", text, event["seed"] + 1, walltime=event["time"])
        for name, drawn in scatters(rows).items():
            self._image(f"accuracy/{name}", pixels(drawn, dpi=PLOT_DPI), {**event, "step": event["seed"] + 1})

    def _done(self, event: Event) -> None:
        from torch.utils.tensorboard.summary import hparams

        self._final.update(numbers(event))
        final = {f"hparam/{name}": value for name, value in self._final.items()}
        written: Any = hparams
        settings = {key: value for key, value in self.config.items() if key != "networks"}
        summaries = written(_flat(settings), final)
        for summary in summaries:
            self.writer.file_writer.add_summary(summary, self._step, event["time"])
        self._scalars(final, event, step=self._step)
        self.flush()

    # --- writing -------------------------------------------------------------------------------------------

    def _scalars(self, values: Mapping[str, float], event: Event, *, step: int | None = None) -> None:
        at = int(event.get("step", self._step)) if step is None else step
        for name, value in values.items():
            self.writer.add_scalar(name, value, at, walltime=event["time"])

    def _image(self, name: str, image: Any, event: Event) -> None:
        step = int(event.get("step", self._step))
        self.writer.add_image(name, image, step, walltime=event["time"], dataformats="HWC")

    def _cell(self, event: Event) -> None:
        """A picture of the event's architecture, if it is another one than the last that was drawn."""
        key = str(event.get("digest") or event.get("literal") or "")
        if self.space is None or not event.get("literal") or key == self._drawn:
            return
        self._drawn = key
        picture = figure(outline(self.space, self.space.parse(event["literal"])))
        self._image("cell", pixels(picture, dpi=CELL_DPI), event)


def replay(
    events: Iterable[Event],
    folder: Path,
    *,
    space: SearchSpace | None = None,
    config: Mapping[str, Any] | None = None,
) -> Board:
    """Empty `folder` of event files and write it from the ledger; the board is open for what follows."""
    for old in Path(folder).glob(FILES):
        old.unlink()
    board = Board(folder, space=space, config=config)
    for event in events:
        board.write(event)
    board.flush()
    return board


def numbers(event: Event) -> dict[str, float]:
    """The metrics of an event that are numbers."""
    metrics = event.get("metrics") or {}
    return {k: float(v) for k, v in metrics.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def tag(metric: str) -> str:
    """``train_loss`` -> ``train/loss``, ``lr`` -> ``train/lr``; what is of neither part is ``search/...``."""
    part, _, rest = metric.partition("_")
    if part in ("train", "valid", "test") and rest:
        return f"{part}/{rest}"
    return "train/lr" if metric == "lr" else f"search/{metric}"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """A nested configuration by dotted keys, with the value types that hparams know."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
