"""fitted(): a graph whose strides leave something of the input. No torch."""

from __future__ import annotations

from nas.graph import Graph, Node

LEAST = 2  # pixels: the smallest side that is left after all strides


def fitted(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """The graph without the first strides if all of them would leave less than 2x2 pixels, and what was done.

    A level is one halving. Every path crosses each level once, so dropping a level keeps shapes equal where
    paths meet. The first levels go: what is small already needs no shrinking before it is looked at.
    """
    levels: dict[str, int] = {}
    deepest = 0
    for node in graph.nodes:
        start = max((levels[name] for name in node.inputs), default=0)
        levels[node.name] = start + (0 if node.name in graph.auxiliary else _halvings(node))
        deepest = max(deepest, levels[node.name])
    side = min(graph.input[1:])
    dropped = 0
    while dropped < deepest and -(-side // 2 ** (deepest - dropped)) < LEAST:
        dropped += 1
    if not dropped:
        return graph, ()
    nodes = [
        node._replace(stride=_left(node, levels[node.inputs[0]], dropped))
        if node.inputs and node.name not in graph.auxiliary
        else node
        for node in graph.nodes
    ]
    shape = "x".join(str(each) for each in graph.input[1:])
    note = f"an input of {shape} is too small for {deepest} halvings: the first {dropped} are left out"
    return graph.rewritten(nodes), (note,)


def _halvings(node: Node) -> int:
    """How often a node halves; a stride that is no power of two is left alone."""
    return node.stride.bit_length() - 1 if node.stride & (node.stride - 1) == 0 else 0


def _left(node: Node, level: int, dropped: int) -> int:
    """The stride that remains of a node which starts at `level`."""
    gone = min(_halvings(node), max(0, dropped - level))
    return node.stride >> gone
