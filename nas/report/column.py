"""column(): a whole network from top to bottom: a box an item, skips as arcs, figures in columns."""

from __future__ import annotations

from dataclasses import dataclass

from nas.report.items import Item, Outline, total
from nas.report.kinds import CELL, NEUTRAL, Kind, look
from nas.report.scene import DARK, GREY, INK, Box, Edge, Label, Scene, measured, shortened
from nas.report.tree import numbers, stage_name

TITLE, NAME, DETAIL, NUMBER = 10.5, 8.5, 7.0, 7.8  # points
HEIGHT = 0.27  # inches: of a box
LOW = 0.19  # of a minor one
GAP = 0.14  # between boxes
SMALL = 0.15  # a join
BREAK = 0.08  # between stages
HEAD = 0.28
WIDEST = 3.6  # of a box
NARROWEST = 1.3
LOOP = 0.16  # how far the loop of a residual item is from its box
BETWEEN = 0.18  # columns
DEEPEST = 2.6  # inches: the reach of the longest arc
ARCS = ("#4f6d94", "#a0622d", "#4a7d57", "#84558f", "#8a7a2e")  # by source, so that many can be followed
SHADE = "#f4f4f0"
SIGNS = {"sum": "+"}


@dataclass
class _Row:
    """An item in the picture: where data enter and leave, and how far the row reaches."""

    box: Box
    leaves: Box  # what data leave from: the box, or the sum behind it
    top: float
    bottom: float


class _Column:
    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.items = outline.items
        self.arcs = [
            (source, place)
            for place, item in enumerate(self.items)
            for source in item.reads
            if source != place - 1
        ]
        loops = LOOP if any(item.residual for item in self.items) else 0.0
        self.span = max((b - a for a, b in self.arcs), default=0)
        self.left = max(loops, self._reach(self.span) if self.arcs else 0.0) + 0.04
        self.width = max(_width(item) for item in self.items)
        self.x = self.left + self.width / 2
        self.scene = Scene()
        self.rows: list[_Row] = []

    def drawn(self) -> Scene:
        """The scene of the network."""
        starts = {first for first, _ in self.outline.stages()}
        y = HEAD
        for place, item in enumerate(self.items):
            y += BREAK if place in starts and place else 0.0
            self.rows.append(self._row(item, y))
            y = self.rows[-1].bottom
        for place, item in enumerate(self.items):
            if place - 1 in item.reads:
                self._arrow(self.rows[place - 1].leaves, self.rows[place].box)
        for source, place in self.arcs:
            self._arc(source, place)
        self.scene.height = y
        self._figures()
        return self.scene

    # --- rows ----------------------------------------------------------------------------------------------

    def _row(self, item: Item, top: float) -> _Row:
        if item.kind == "join":
            sign = SIGNS.get(item.label, item.label)
            width = max(SMALL, measured(sign, DETAIL)[0] + 0.1)
            box = self._box(NEUTRAL, top + GAP / 2 + SMALL / 2, width, SMALL, sign, round=SMALL / 2)
            return _Row(box, box, top, top + GAP / 2 + SMALL + GAP / 2)
        shown = _look(item)
        self.scene.kinds |= {item.kind} - {"input", "cell"}
        height = LOW if item.minor else HEIGHT
        y = top + GAP / 2 + height / 2 + (GAP / 2 if item.residual else 0.0)
        box = self._box(shown, y, self.width, height, "", thick=1.4 if item.kind == "cell" else 0.9)
        self._words(item, y)
        if not item.residual:
            return _Row(box, box, top, y + height / 2 + GAP / 2)
        plus = self._box(NEUTRAL, y + height / 2 + GAP / 2 + SMALL / 2, SMALL, SMALL, "+", round=SMALL / 2)
        self._arrow(box, plus, arrow=False)
        self._loop(box, plus, y - height / 2 - GAP * 0.62)
        return _Row(box, plus, top, plus.y + SMALL / 2 + GAP / 2)

    def _box(
        self,
        shown: Kind,
        y: float,
        width: float,
        height: float,
        text: str,
        *,
        round: float = 0.06,
        thick: float = 0.9,
    ) -> Box:
        box = Box(self.x, y, width, height, shown.fill, shown.line, round, thick)
        self.scene.boxes.append(box)
        if text:
            self.scene.labels.append(Label(text, self.x, y, DETAIL))
        return box

    def _words(self, item: Item, y: float) -> None:
        """Name and attributes side by side in the middle of the box."""
        points, bold = _points(item), item.kind == "cell"
        name = shortened(item.label, points, width=WIDEST - 0.2, bold=bold)
        wide = measured(name, points, bold=bold)[0]
        stride = f"/{item.stride}" if item.stride > 1 else ""
        room = WIDEST - 0.5 - wide - (measured(stride, DETAIL, bold=True)[0] if stride else 0.0)
        texts = [(name, points, bold, INK), (shortened(item.detail, DETAIL, width=room), DETAIL, False, DARK)]
        shown = [each for each in (*texts, (stride, DETAIL, True, INK)) if each[0]]
        widths = [measured(text, size, bold=heavy)[0] for text, size, heavy, _ in shown]
        x = self.x - (sum(widths) + 0.1 * (len(shown) - 1)) / 2
        for (text, size, heavy, colour), width in zip(shown, widths, strict=True):
            self.scene.labels.append(Label(text, x, y, size, "left", heavy, colour))
            x += width + 0.1

    # --- edges ---------------------------------------------------------------------------------------------

    def _arrow(self, a: Box, b: Box, *, arrow: bool = True) -> None:
        self.scene.edges.append(Edge((self.x, a.extent[3]), (((self.x, b.extent[1]),),), (a, b), arrow=arrow))

    def _loop(self, box: Box, plus: Box, y: float) -> None:
        """Around a box: from the line into it to the sum behind it."""
        x, r = self.left - LOOP, 0.06
        around = (
            ((x + r, y),),
            ((x, y), (x, y), (x, y + r)),
            ((x, plus.y - r),),
            ((x, plus.y), (x, plus.y), (x + r, plus.y)),
            ((plus.extent[0], plus.y),),
        )
        self.scene.edges.append(Edge((self.x, y), around, (box, plus), colour=ARCS[0]))

    def _arc(self, source: int, place: int) -> None:
        a, b = self.rows[source].leaves, self.rows[place].box
        start = (a.extent[0], a.y + (0.05 if a.height > SMALL else 0.0))
        end = (b.extent[0], b.y - (0.05 if b.height > SMALL else 0.0))
        out = self.left - self._reach(place - source) / 0.75  # a cubic goes three quarters of the way
        bend = ((out, start[1]), (out, end[1]), (self.left, end[1]))
        pieces = [((self.left, start[1]),)] if a.extent[0] > self.left + 1e-6 else []
        ending = [((end[0], end[1]),)] if b.extent[0] > self.left + 1e-6 else []
        colour = ARCS[sorted({a for a, _ in self.arcs}).index(source) % len(ARCS)]
        self.scene.edges.append(Edge(start, (*pieces, bend, *ending), (a, b), colour=colour, thick=0.9))

    def _reach(self, span: int) -> float:
        """How far an arc over so many rows bends out."""
        return 0.12 + min(0.11, DEEPEST / max(1, self.span)) * span

    # --- figures -------------------------------------------------------------------------------------------

    def _figures(self) -> None:
        """The columns beside the boxes: repetitions, output, parameters, multiply-adds, stages."""
        shown = [(item, row) for item, row in zip(self.items, self.rows, strict=True) if item.kind != "join"]
        several = any(item.count > 1 for item, _ in shown)
        x = self.left + self.width + (0.08 if several else 0.0)
        if several:
            wide = max(measured(f"×{item.count}", NAME, bold=True)[0] for item, _ in shown)
            for item, row in shown:
                if item.count > 1:
                    self._label(f"×{item.count}", x, row.box.y, NAME, align="left", bold=True)
            x += wide
        attention = ["attention"] if self.outline.cost.attention else []
        for place, heading in enumerate(["output", "params", "mult-adds", *attention]):
            texts = [numbers(item.shape, item.cost)[place] for item, _ in shown]
            whole = numbers((), self.outline.cost)[place]
            widths = [measured(text, NUMBER, bold=True)[0] for text in (*texts, whole, heading)]
            x += BETWEEN + max(widths)
            self._label(heading, x, HEAD / 2, NUMBER, colour=GREY)
            for text, (_, row) in zip(texts, shown, strict=True):
                if text:
                    self._label(text.replace("x", "×"), x, row.box.y, NUMBER)
            if whole:
                self._label(whole, x, self.scene.height + 0.14, NUMBER, bold=True)
        self._label("total", self.x, self.scene.height + 0.14, NUMBER, align="center", bold=True)
        self.scene.height += 0.28
        title = shortened(self.outline.title, TITLE, width=self.left + self.width, bold=True)
        self._label(title, 0.0, 0.1, TITLE, align="left", bold=True)
        self._stages(x + BETWEEN)

    def _label(
        self, text: str, x: float, y: float, points: float, *, align: str = "right", **look: object
    ) -> None:
        self.scene.labels.append(Label(text, x, y, points, align, **look))  # type: ignore[arg-type]

    def _stages(self, x: float) -> None:
        """A shade behind every second stage; its size, and what it costs where it has several rows."""
        right = x
        shades: list[tuple[float, float]] = []
        for number, (first, stop) in enumerate(self.outline.stages()):
            items = self.items[first:stop]
            top, bottom = self.rows[first].top, self.rows[stop - 1].bottom
            told = _stage_words(items) if any(item.kind != "input" for item in items) else []
            high = 0.135
            y = (top + bottom) / 2 - (len(told) - 1) * high / 2
            for place, line in enumerate(told):
                bold = place == 0
                self._label(
                    line, x, y + place * high, 7.5 if bold else 6.5, align="left", bold=bold, colour=GREY
                )
                right = max(right, self.scene.labels[-1].extent[2])
            if number % 2:
                shades.append((top - BREAK / 2, bottom + BREAK / 2))
        self.scene.width = right + 0.1
        for top, bottom in shades:
            middle, height = (top + bottom) / 2, bottom - top
            ground = Box(self.scene.width / 2, middle, self.scene.width, height, SHADE, SHADE, ground=True)
            self.scene.boxes.append(ground)


def column(outline: Outline) -> Scene:
    """The scene of a network: header, rows, total."""
    return _Column(outline).drawn()


def _stage_words(items: tuple[Item, ...]) -> list[str]:
    words = [stage_name(items[0].shape).replace("x", "×")]
    if sum(item.kind not in ("join", "input") for item in items) < 2:
        return words
    _, params, macs, *_ = numbers((), total(items))
    return [*words, *([f"{params} params"] if params else []), *([f"{macs} mult-adds"] if macs else [])]


def _look(item: Item) -> Kind:
    if item.kind == "input":
        return NEUTRAL
    return CELL if item.kind == "cell" else look(item.kind)


def _points(item: Item) -> float:
    return DETAIL if item.minor else NAME


def _width(item: Item) -> float:
    if item.kind == "join":
        return 0.0
    name = measured(item.label, _points(item), bold=item.kind == "cell")[0]
    detail = measured(item.detail, DETAIL)[0] + 0.1 if item.detail else 0.0
    stride = measured(f"/{item.stride}", DETAIL, bold=True)[0] + 0.1 if item.stride > 1 else 0.0
    return min(WIDEST, max(NARROWEST, name + detail + stride + 0.24))
