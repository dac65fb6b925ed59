"""Hole, Node, Graph: a network as a straight-line program with holes. Plain Python, no torch.

The whole semantics of filling: a node whose hole asks a row that is not kept, whose `when` does not hold, or
whose op is ``none``, is absent. ``sum``, ``mean`` and ``concat`` ignore absent inputs and are absent if none
is left; any other node with an absent input is absent. A `loose` concat also leaves out the inputs that
another present node reads (NASNet's loose ends). Nodes that reach neither the output nor an auxiliary output
are removed, unless the graph keeps them (`keep_dead`: NAS-Bench-201 builds and counts what no output needs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import networkx as nx

Option = str | int | float
Scalar = str | int | float | bool
Value = tuple[tuple[int, Option], ...]  # the kept rows, ascending, each with its option
Shape = tuple[int, int, int]  # channels, height, width

NO_ALIASES: Mapping[str, str] = {}
JOINS = frozenset({"sum", "mean", "concat"})
ZEROS = frozenset({"zero"})


class Hole(NamedTuple):
    """A place that a decision fills: the option picked in `row` of `decision`.

    `option` is used in `Node.when` alone: the node exists if the row is kept with exactly that option.
    `sliced`, in `Node.attrs`: in a supernet the options share one tensor, of which each takes a part (kernel,
    expansion, heads). The options of `Node.out` always do; there an option times `times` is the number of
    channels, so that options may be multipliers and a choice of width means the same at every scale.
    """

    decision: str
    row: int = 0
    option: Option | None = None
    sliced: bool = False
    times: float = 1
    multiple: int = 1

    def channels(self, option: Option) -> int:
        """The channels that `option` of a width means: times `times`, to the nearest whole `multiple` but not
        more than a tenth below (as MobileNet rounds).
        """
        wanted = float(option) * self.times
        found = max(1, int(wanted / self.multiple + 0.5)) * self.multiple
        return found + self.multiple if found < 0.9 * wanted else found


class Node(NamedTuple):
    """One operation.

    `inputs` are names of earlier nodes; `out` is the number of channels, None for as many as come in.

    `attrs` are further keyword arguments of the primitive, as sorted pairs. `loose`, of a concat: only inputs
    that no other present node reads.
    """

    name: str
    op: str | Hole
    inputs: tuple[str, ...]
    out: int | Hole | None = None
    stride: int = 1
    attrs: tuple[tuple[str, Scalar | Hole], ...] = ()
    when: Hole | None = None
    loose: bool = False

    def holes(self) -> list[Hole]:
        """Every hole of the node."""
        candidates = (self.op, self.out, self.when, *(value for _, value in self.attrs))
        return [hole for hole in candidates if isinstance(hole, Hole)]


class Graph:
    """Nodes in an order in which each reads earlier ones; the first is the input, the last the output.

    Args:
        nodes: the program. The first node has op ``input``.
        input: shape of one example (channels, height, width in pixels).
        auxiliary: names of nodes that give further outputs in training (auxiliary classifiers).
        keep_dead: keep nodes that no output needs when holes are filled.
        aliases: options that stand for another operation's name (``blocks.py:Own`` for its whole path).

    Raises ValueError if a node reads a node that is not earlier, has not one input where it is no join, a
    name is used twice or begins another, or what a loose concat may take is read after it.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        *,
        input: Shape,
        auxiliary: tuple[str, ...] = (),
        keep_dead: bool = False,
        aliases: Mapping[str, str] = NO_ALIASES,
    ) -> None:
        self.nodes = tuple(nodes)
        self.input = input
        self.auxiliary = auxiliary
        self.keep_dead = keep_dead
        self.output = self.nodes[-1].name
        self.aliases = aliases
        self._filled: dict[tuple[object, ...], Node] = {}
        seen: set[str] = set()
        taken: dict[str, str] = {}  # what a loose concat may take -> the concat
        for node in self.nodes:
            _check(node)
            missing = [name for name in node.inputs if name not in seen]
            if missing:
                raise ValueError(f"node {node.name!r} reads {missing[0]!r}, which is not an earlier node")
            if node.name in seen:
                raise ValueError(f"two nodes are called {node.name!r}: names are unique")
            late = [name for name in node.inputs if name in taken]
            if late:
                raise ValueError(
                    f"node {node.name!r} reads {late[0]!r} after the loose concat {taken[late[0]]!r}, which "
                    "cannot know that: write it before the concat"
                )
            if node.loose:
                taken |= dict.fromkeys(node.inputs, node.name)
            seen.add(node.name)
        own = {node.name for node in self.nodes if node.inputs and node.op not in JOINS}  # have parameters
        for name in own:
            clash = next((name[:i] for i, each in enumerate(name) if each == "." and name[:i] in own), None)
            if clash is not None:
                raise ValueError(f"operations {clash!r} and {name!r}: no name may begin another, up to a dot")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        return (self.nodes, self.input, self.auxiliary, self.keep_dead, tuple(self.aliases.items()))

    def rewritten(self, nodes: Iterable[Node]) -> Graph:
        """The graph with other nodes, and everything else as it is."""
        facts = (self.input, self.auxiliary, self.keep_dead, self.aliases)
        return Graph(nodes, input=facts[0], auxiliary=facts[1], keep_dead=facts[2], aliases=facts[3])

    def decisions(self) -> frozenset[str]:
        """Names of the decisions that some hole asks."""
        return frozenset(hole.decision for node in self.nodes for hole in node.holes())

    def operation(self, option: Option) -> str:
        """The name of the operation that an option stands for."""
        name = str(option)
        return self.aliases.get(name, name)

    def fill(self, choices: Mapping[str, Value]) -> Graph:
        """The graph without holes that `choices` (decision -> value) describe.

        Raises KeyError if one is missing.
        """
        picked = {name: dict(value) for name, value in choices.items()}
        interned = self._filled
        kept: list[Node] = []
        present: set[str] = set()
        read: set[str] = set()
        for node in self.nodes:
            name, op, inputs, out, stride, attrs, when, loose = node
            if when is not None and picked[when.decision].get(when.row) != when.option:
                continue
            if type(op) is Hole:
                op = self.operation(picked[op.decision].get(op.row, "none"))
            if op == "none":
                continue
            if op in JOINS:
                inputs = tuple([source for source in inputs if source in present])
                if loose:
                    inputs = tuple([source for source in inputs if source not in read])
                if not inputs:
                    continue
            elif not present.issuperset(inputs):
                continue
            if type(out) is Hole or attrs:
                out, attrs, known = _fill_scalars(out, attrs, picked)
                if not known:
                    continue
            key = (name, op, inputs, out, attrs)
            filled = interned.get(key)
            if filled is None:
                filled = interned[key] = Node(name, str(op), inputs, out, stride, attrs)
            kept.append(filled)
            present.add(name)
            read.update(inputs)
        return self._finish(kept, present)

    def _finish(self, nodes: list[Node], present: set[str]) -> Graph:
        if self.output not in present:
            raise ValueError("these choices leave no path from the input to the output")
        auxiliary = tuple(name for name in self.auxiliary if name in present)
        if not self.keep_dead:
            alive = {self.output, self.nodes[0].name, *auxiliary}
            for node in reversed(nodes):
                if node.name in alive:
                    alive.update(node.inputs)
            nodes = [node for node in nodes if node.name in alive]
        return Graph._trusted(nodes, self.input, auxiliary, self.keep_dead)

    @classmethod
    def _trusted(
        cls, nodes: Iterable[Node], input: Shape, auxiliary: tuple[str, ...], keep_dead: bool
    ) -> Graph:
        """A graph from nodes that are known to be in order: the constructor without its checks."""
        graph = cls.__new__(cls)
        graph.nodes, graph.input, graph.auxiliary, graph.keep_dead = tuple(nodes), input, auxiliary, keep_dead
        graph.output = graph.nodes[-1].name
        graph.aliases = NO_ALIASES
        graph._filled = {}
        return graph

    def active(self, choices: Mapping[str, Value]) -> frozenset[tuple[str, int]]:
        """The (decision, row) pairs that matter: changing any other one leaves the filled graph as it is.

        A node's holes matter if its inputs are there and nodes that are not closed by their own choice lead
        from it to an output, or to a node whose presence a loose concat looks at. (With `keep_dead`, every
        node whose inputs are there matters.)
        """
        picked = {name: dict(value) for name, value in choices.items()}
        kinds, program, watched = self._program
        closed = [_closed(node, picked) for node in kinds]
        present: set[str] = set()
        able: list[tuple[str, int]] = []  # the nodes whose inputs are there
        for name, inputs, join, kind in program:
            if not inputs or (not present.isdisjoint(inputs) if join else present.issuperset(inputs)):
                able.append((name, kind))
                if not closed[kind]:
                    present.add(name)
        needed = {self.output, *self.auxiliary, *watched}
        for name, inputs, _, kind in reversed(program):
            if name in needed and not closed[kind]:
                needed.update(inputs)
        matter = {kind for name, kind in able if self.keep_dead or name in needed}
        return frozenset((hole.decision, hole.row) for kind in matter for hole in _asked(kinds[kind], picked))

    @cached_property
    def _program(self) -> tuple[list[Node], list[tuple[str, tuple[str, ...], bool, int]], list[str]]:
        """What `active` looks at, which is the same for all choices.

        One node of each kind (nodes that ask the same holes in the same places); of every node its name,
        inputs, whether it is a join, and its kind; the nodes that read what a loose concat may take.
        """
        kinds: dict[object, tuple[int, Node]] = {}
        program: list[tuple[str, tuple[str, ...], bool, int]] = []
        for node in self.nodes:
            op = node.op if isinstance(node.op, Hole) or node.op == "none" else ""
            kind, _ = kinds.setdefault((op, node.when, tuple(node.holes())), (len(kinds), node))
            program.append((node.name, node.inputs, node.op in JOINS, kind))
        loose = {name for node in self.nodes if node.loose for name in node.inputs}
        watched = [node.name for node in self.nodes if not loose.isdisjoint(node.inputs)]
        return [node for _, node in kinds.values()], program, watched

    def digest(self) -> str:
        """A digest of a filled graph, equal for graphs that are the same network up to isomorphism."""
        from nas.isomorphism import digest

        return digest(self)

    def to_networkx(self) -> nx.DiGraph:
        """Nodes with their fields as attributes, edges from producer to consumer."""
        import networkx as nx

        graph = nx.DiGraph()
        for node in self.nodes:
            graph.add_node(node.name, op=node.op, out=node.out, stride=node.stride, attrs=dict(node.attrs))
            graph.add_edges_from((source, node.name) for source in node.inputs)
        return graph


class Builder:
    """Writes a graph call by call: ``b("name", op, *inputs, out=..., stride=...)`` returns the name.

    Op and `out`, and further keywords (the primitive's attributes), may be holes.
    """

    def __init__(self, input: Shape) -> None:
        self.input = input
        self.nodes: list[Node] = [Node("input", "input", (), out=input[0])]

    def __call__(
        self,
        name: str,
        op: str | Hole,
        *inputs: str,
        out: int | Hole | None = None,
        stride: int = 1,
        when: Hole | None = None,
        loose: bool = False,
        **attrs: Scalar | Hole,
    ) -> str:
        self.nodes.append(Node(name, op, inputs, out, stride, tuple(sorted(attrs.items())), when, loose))
        return name

    def exits(self, name: str, decision: str, states: Mapping[Any, str], *, row: int = 0) -> str:
        """Depth as a choice: the sum of one exit an option of `decision`, of which one is open.

        `states`: the option (a number of layers, say) -> the node whose value leaves there.
        """
        doors = [
            self(f"{name}.exit{option}", "identity", state, when=Hole(decision, row, option))
            for option, state in states.items()
        ]
        return self(name, "sum", *doors)

    def graph(self, *, auxiliary: tuple[str, ...] = (), keep_dead: bool = False) -> Graph:
        """The graph written so far. Its output is the last node written."""
        return Graph(self.nodes, input=self.input, auxiliary=auxiliary, keep_dead=keep_dead)


def _check(node: Node) -> None:
    """Raises ValueError for a node that no choice could run."""
    if not node.name or any(not part for part in node.name.split(".")):
        raise ValueError(f"a node cannot be called {node.name!r}: parts between dots have letters")
    if node.op != "input" and (not node.inputs or (len(node.inputs) > 1 and node.op not in JOINS)):
        raise ValueError(
            f"node {node.name!r} has {len(node.inputs)} inputs: a join (sum, mean, concat) has one or more, "
            "anything else one; put a sum or a concat before it"
        )
    if node.loose and node.op != "concat":
        raise ValueError(f"node {node.name!r} is a {node.op}: only a concat can be loose")
    if node.stride < 1:
        raise ValueError(f"node {node.name!r} has stride {node.stride}: a stride is 1 or more")


def _fill_scalars(
    out: int | Hole | None,
    attrs: tuple[tuple[str, Scalar | Hole], ...],
    picked: Mapping[str, Mapping[int, Option]],
) -> tuple[int | None, tuple[tuple[str, Scalar | Hole], ...], bool]:
    """`out` and `attrs` with their holes filled, and whether every row asked is kept."""
    filled = tuple((k, picked[v.decision].get(v.row)) if type(v) is Hole else (k, v) for k, v in attrs)
    width: int | Hole | None = out
    if type(out) is Hole:
        option = picked[out.decision].get(out.row)
        width = None if option is None else out.channels(option)
    known = all(value is not None for _, value in filled) and (width is not None or out is None)
    return width, filled, known  # type: ignore[return-value]


def _asked(node: Node, picked: Mapping[str, Mapping[int, Option]]) -> list[Hole]:
    """The holes that decide about the node: where `when` does not hold, nothing else is asked."""
    when = node.when
    absent = when is not None and picked[when.decision].get(when.row) != when.option
    return [when] if absent and when is not None else node.holes()


def _closed(node: Node, picked: Mapping[str, Mapping[int, Option]]) -> bool:
    """Whether the node is absent by its own choice, whatever its inputs."""
    if node.when is not None and picked[node.when.decision].get(node.when.row) != node.when.option:
        return True
    if any(picked[hole.decision].get(hole.row) is None for hole in node.holes()):
        return True
    op = picked[node.op.decision][node.op.row] if isinstance(node.op, Hole) else node.op
    return op == "none"
