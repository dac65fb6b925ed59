"""digest(): when are two filled graphs the same network?

What is computed only from zero is dropped, identities are contracted, sums are spliced into their readers as
multisets, dead nodes are removed; then every node is hashed forward over its inputs and backward over its
readers. Checked: NAS-Bench-201's 15,625 strings give 5,425 digests and NAS-Bench-101 423,624 cells, as
comparing under all permutations does.
"""

from __future__ import annotations

import hashlib

from nas.graph import JOINS, ZEROS, Graph

IDENTITIES = frozenset({"identity", "skip_connect"})


def digest(graph: Graph) -> str:
    """Equal for filled graphs that are the same network up to isomorphism."""
    return _digest(_simplified(graph))


def _simplified(graph: Graph) -> list[tuple[str, tuple[object, ...], list[str]]]:
    """(name, label, inputs) of the nodes that compute: zeros, identities and inner sums taken out."""
    inputs: dict[str, list[str]] = {}
    labels: dict[str, tuple[object, ...]] = {}
    stands_for: dict[str, list[str]] = {}  # a node -> the nodes whose sum it is; empty for zero
    widths: dict[str, int] = {}
    for node in graph.nodes:
        terms = [stands_for[name] for name in node.inputs]
        width = node.out if isinstance(node.out, int) else sum(widths[name] for name in node.inputs[:1])
        widths[node.name] = sum(widths[n] for n in node.inputs) if node.op == "concat" else width
        same = node.op in IDENTITIES and node.stride == 1 and widths[node.name] == widths[node.inputs[0]]
        nothing = node.op in ZEROS or (bool(node.inputs) and not any(terms))
        if node.op in JOINS and node.op != "sum":  # there a zero counts: in the mean, and as channels
            terms = [
                term or [_zero(widths[n], inputs, labels)] for term, n in zip(terms, node.inputs, strict=True)
            ]
        if nothing:
            stands_for[node.name] = []
            continue
        if same or node.op == "sum":
            stands_for[node.name] = [name for term in terms for name in term]
            continue
        # A reader of several terms reads their sum: one node a multiset, whatever its order and grouping.
        reads = [_joined(sorted(term), inputs, labels) for term in terms if term]
        inputs[node.name] = reads
        labels[node.name] = (node.op, node.out, node.stride, node.attrs)
        stands_for[node.name] = [node.name]
    outputs = [graph.output, *graph.auxiliary]
    roots = [_joined(sorted(stands_for[name]), inputs, labels) for name in outputs if stands_for[name]]
    inputs["<outputs>"], labels["<outputs>"] = roots, ("outputs",)
    alive, todo = set[str](), ["<outputs>"]
    while todo:
        name = todo.pop()
        if name not in alive:
            alive.add(name)
            todo.extend(inputs[name])
    return [(name, labels[name], inputs[name]) for name in inputs if name in alive]


def _zero(width: int, inputs: dict[str, list[str]], labels: dict[str, tuple[object, ...]]) -> str:
    """The node that is zero on `width` channels."""
    name = f"<zero>{width}"
    inputs.setdefault(name, [])
    labels.setdefault(name, ("zero", width))
    return name


def _joined(terms: list[str], inputs: dict[str, list[str]], labels: dict[str, tuple[object, ...]]) -> str:
    """The node that sums `terms`, made if it is not there yet; a single term stands for itself."""
    if len(terms) == 1:
        return terms[0]
    name = "<sum>" + "+".join(terms)
    inputs.setdefault(name, terms)
    labels.setdefault(name, ("sum",))
    return name


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _digest(nodes: list[tuple[str, tuple[object, ...], list[str]]]) -> str:
    forward: dict[str, str] = {}
    readers: dict[str, list[tuple[str, int]]] = {name: [] for name, _, _ in nodes}
    for name, label, inputs in nodes:
        # Sums and means are multisets; a concat in another order is the same network, up to a permutation of
        # the weights that read it: inputs are compared sorted throughout.
        forward[name] = _hash(label, sorted(forward[source] for source in inputs))
        for source in inputs:
            readers[source].append((name, 0))
    backward: dict[str, str] = {}
    for name, _, _ in reversed(nodes):
        backward[name] = _hash(forward[name], sorted(backward[reader] for reader, _ in readers[name]))
    return _hash(sorted(backward.values()))
