"""Painter: the nodes of one group as a graph of states, the picture of a cell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.graph import JOINS, ZEROS, Node
from nas.report.cell import Group, operation, owners
from nas.report.kinds import kind_of
from nas.report.plain import Plain

if TYPE_CHECKING:
    import networkx as nx

SYMBOLS = {"sum": "+"}  # joins that have no number


class Painter:
    """Draws the filled nodes of one group as a graph of states.

    Args:
        group: the filled nodes of the group, wires contracted.
        network: the whole network that the group is of.
        siblings: the prefixes of the cells of the network in order, to count back from.
    """

    def __init__(self, group: Group, network: Plain, siblings: Sequence[str] = ()) -> None:
        self.group = group
        self.network = network
        self.siblings = siblings
        self.nodes = [node for node in group.nodes if node.op not in ZEROS]
        self.present = {node.name for node in self.nodes}
        self.results = {
            node.name
            for node in self.nodes
            if node.name == network.output
            or any(not group.inside(reader.name) for reader in network.readers.get(node.name, []))
        }
        self.entries = self._entries()
        self.edges = {n.name: n for n in self.nodes if n.name not in self.entries and self._is_edge(n)}

    def picture(self) -> nx.MultiDiGraph[str]:
        """The graph that `Cell` describes."""
        import networkx as nx

        picture: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        for (name, (_, detail)), label in zip(self.entries.items(), self._input_labels(), strict=True):
            made = (name,) if detail else ()
            picture.add_node(
                name, label=label, ref=label, role="input", op="input", kind="", detail=detail, nodes=made
            )
        states = [n for n in self.nodes if n.name not in self.entries and n.name not in self.edges]
        numbers = self._numbers([node.name for node in states if node.op in JOINS])
        for node in states:
            picture.add_node(node.name, op=node.op, nodes=(node.name,), **self._state(node, numbers))
            for source in node.inputs:
                edge = self.edges.get(source)
                start = edge.inputs[0] if edge else source
                if start in picture:  # else a zero
                    picture.add_edge(start, node.name, **self._edge(edge))
        return picture

    def _edge(self, node: Node | None) -> dict[str, Any]:
        if node is None:
            return {"label": "", "detail": "", "op": "", "kind": "", "nodes": ()}
        words = {"label": operation(node), "detail": self.network.detail(node)}
        return {**words, "op": node.op, "kind": kind_of(str(node.op)), "nodes": (node.name,)}

    def _entries(self) -> dict[str, tuple[str, str]]:
        """The input states: name -> (the outside node that it is, the preprocessing that it went through).

        An outside node that is read by one fixed one-input operation of a cell with decisions (by two, where
        both states before the cell are one) stands for what this makes of it.
        """
        found: dict[str, tuple[str, str]] = {}
        chosen = any(self.network.before(node).holes() for node in self.nodes)
        for source in self.group.externals():
            inner = [node for node in self.nodes if source in node.inputs]
            if chosen and inner and all(self._is_plain(node) for node in inner):
                found.update({node.name: (source, operation(node)) for node in inner})
            elif inner:
                found[source] = (source, "")
        return found

    def _is_plain(self, node: Node) -> bool:
        fixed = not self.network.before(node).holes() and len(node.inputs) == 1
        return fixed and node.op not in JOINS and node.name not in self.results

    def _is_edge(self, node: Node) -> bool:
        """Whether the node is drawn as an edge: one input, and read by one join of the cell alone."""
        readers = self.network.readers.get(node.name, [])
        read_once = len(readers) == 1 and readers[0].op in JOINS and node.name not in self.results
        zero = self.group.inside(node.inputs[0]) and node.inputs[0] not in self.present
        return read_once and node.op not in JOINS and len(node.inputs) == 1 and not zero

    def _input_labels(self) -> list[str]:
        """``c[k-2]`` for what the cell before the last gives; ``in0``, ``in1`` where that says nothing."""
        sources = [source for source, _ in self.entries.values()]
        if len(sources) == 1:
            return ["in"]
        order = {prefix: place for place, prefix in enumerate(self.siblings)}
        cells = owners(sources, self.siblings)
        if len(set(cells)) < len(cells) or "" in cells or self.group.prefix not in order:
            return [f"in{place}" for place in range(len(sources))]
        here = order[self.group.prefix]
        return [f"c[k-{here - order[cell]}]" for cell in cells]

    def _numbers(self, joins: Sequence[str]) -> dict[str, str]:
        """The number at the end of each join's name, which literals count by, if these tell joins apart."""
        found = {name: match[0] for name in joins if (match := re.search(r"\d+$", self.group.relative(name)))}
        return found if len(set(found.values())) == len(found) else {}

    def _state(self, node: Node, numbers: Mapping[str, str]) -> dict[str, str]:
        """label, detail, kind, ref and role of a state that is no input."""
        last = node.name in self.results
        ref = self.group.relative(node.name)
        if node.op not in JOINS:
            words = {"label": operation(node), "detail": self.network.detail(node), "ref": ref}
            return {**words, "role": "output" if last else "op", "kind": kind_of(str(node.op))}
        plain = {"detail": "", "kind": ""}
        if last and len(self.results) == 1:
            return {**plain, "label": "out", "ref": "out", "role": "output"}
        number = numbers.get(node.name)
        label = number or SYMBOLS.get(str(node.op), str(node.op))
        return {**plain, "label": label, "ref": number or ref, "role": "output" if last else "join"}


# --- text --------------------------------------------------------------------------------------------------


def formulas(picture: nx.MultiDiGraph[str]) -> list[tuple[str, tuple[str, ...], str]]:
    """For each state: a line like ``2 = sep_conv_3x3(in) + skip(1)``, the nodes it pays for, and its name."""
    refs = {name: str(ref) for name, ref in picture.nodes(data="ref")}
    lines = []
    for name, fields in picture.nodes(data=True):
        into = [(refs[source], data) for source, _, data in picture.in_edges(name, data=True)]
        nodes = tuple(dict.fromkeys((*fields["nodes"], *(n for _, data in into for n in data["nodes"]))))
        if fields["role"] != "input":
            lines.append((f"{refs[name]} = {_formula(fields, [_term(*each) for each in into])}", nodes, name))
        elif nodes:
            lines.append((f"{refs[name]} = {fields['detail']}(input)", nodes, name))
    return lines


def _term(ref: str, data: Mapping[str, str]) -> str:
    detail = f"; {data['detail']}" if data["detail"] else ""
    return f"{data['label']}({ref}{detail})" if data["label"] else ref


def _formula(fields: Mapping[str, str], terms: Sequence[str]) -> str:
    if fields["op"] == "sum":
        return " + ".join(terms) or "0"
    name = fields["op"] if fields["op"] in JOINS else fields["label"]
    detail = f"; {fields['detail']}" if fields["detail"] else ""
    return f"{name}({', '.join(terms) or '0'}{detail})"
