"""traced(): the picture of a block of modules, from its forward method as torch.fx records it."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from nas.report.kinds import kind_of_words

if TYPE_CHECKING:
    import networkx as nx
    from torch import fx, nn

MOVES = frozenset({  # what only arranges numbers anew: a wire
    "getitem", "chunk", "split", "contiguous", "expand", "flatten", "unflatten", "movedim", "permute",
    "reshape", "squeeze", "transpose", "unsqueeze", "view", "view_as",
})  # fmt: skip
SHAPES = frozenset({"getattr", "size", "dim", "len"})
SHUFFLE = ["reshape", "transpose", "reshape"]


def traced(block: nn.Module) -> nx.MultiDiGraph[str] | None:
    """The graph that `nas.report.Cell` describes, or None for a forward method that cannot be recorded.

    Sequences are opened, other modules are not. Norms and activations stand with the operation before.
    """
    from torch import fx, nn

    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return not isinstance(m, nn.Sequential)

    try:
        graph = Tracer().trace(block)
    except Exception:  # whatever a forward method does that a recording cannot
        return None
    return _Recording(block).read(graph)


def said(module: nn.Module) -> tuple[str, str, str]:
    """The class of a module, the numbers that it leaves open, and its kind."""
    from torch import nn

    name, file = type(module).__name__, type(module).__module__.rpartition(".")[2]
    groups = getattr(module, "groups", 1)
    depthwise = isinstance(module, nn.Conv2d) and groups > 1 and groups == module.in_channels
    kernel = getattr(module, "kernel_size", None)
    sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    heads = getattr(module, "num_heads", None) or getattr(module, "heads", None)
    told = [
        "x".join(map(str, sides)) if kernel is not None else "",
        "depthwise" if depthwise else f"{groups} groups" if groups != 1 else "",
        f"{heads} heads" if heads else "",
    ]
    leaf = next(module.children(), None) is None
    detail = ", ".join(filter(None, told)) if leaf else ""
    kind = "separable" if depthwise else kind_of_words(name) or kind_of_words(file) or "own"
    return name, detail, kind


class _Recording:
    """Makes a picture of a recorded forward method, node by node."""

    def __init__(self, block: nn.Module) -> None:
        import networkx as nx

        self.block = block
        self.picture: nx.MultiDiGraph[str] = nx.MultiDiGraph()
        self.stands: dict[fx.Node, str] = {}  # a node -> the state that it is; shapes and weights are none

    def read(self, graph: fx.Graph) -> nx.MultiDiGraph[str] | None:
        """The picture; None if there is nothing to see."""
        for node in graph.nodes:
            sources = [self.stands[each] for each in node.all_input_nodes if each in self.stands]
            if node.op == "output":
                if len(sources) != 1 or len(self.picture) < 3:
                    return None
                self.picture.nodes[sources[0]]["role"] = "output"
            elif node.op == "placeholder":
                self._state(node, [], label="in", role="input", op="input")
            elif sources:
                self._operation(node, sources)
        return self.picture

    def _operation(self, node: fx.Node, sources: list[str]) -> None:
        label, detail, kind = self._words(node)
        if label in SHAPES:
            return
        if kind == "identity" or (label in MOVES and _words_before(node) != SHUFFLE):
            self.stands[node] = sources[0]
            return
        if label in MOVES:
            label, kind = "channel shuffle", "norm"
        before = self.picture.nodes[sources[0]]
        read_once = len([reader for reader in node.all_input_nodes[0].users if _flows(reader)]) == 1
        if kind == "norm" and len(sources) == 1 and before["role"] == "op" and read_once:
            self.stands[node] = sources[0]
            before["detail"] = ", ".join(filter(None, (before["detail"], SHORT.get(label, label))))
            return
        sign = label in ("+", "×", "concat")
        role, kind = ("join", "") if sign else ("op", kind)
        self._state(node, sources, label=label, detail=detail, role=role, kind=kind, op=label)

    def _state(self, node: fx.Node, sources: list[str], **fields: str) -> None:
        self.stands[node] = node.name
        given = {"detail": "", "kind": "", "ref": node.name, "nodes": (), **fields}
        self.picture.add_node(node.name, **given)
        for source in sources:
            self.picture.add_edge(source, node.name, label="", detail="", kind="", op="", nodes=())

    def _words(self, node: fx.Node) -> tuple[str, str, str]:
        if node.op == "call_module":
            return said(self.block.get_submodule(str(node.target)))
        several = len([each for each in node.all_input_nodes if each in self.stands]) > 1
        label = _signs().get(node.target, _name(node))
        scaled = label == "×" and not several  # by a weight
        return "scale" if scaled else label, "", "" if several else "norm"


SHORT = {"BatchNorm2d": "BN", "LayerNorm": "LN", "GroupNorm": "GN"}


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _flows(node: fx.Node) -> bool:
    return _name(node) not in SHAPES


def _words_before(node: fx.Node) -> list[str]:
    """The names of a node and of two before it, in their order."""
    names: list[str] = []
    at: fx.Node | None = node
    while at is not None and len(names) < 3:
        names.insert(0, _name(at))
        at = at.all_input_nodes[0] if at.all_input_nodes else None
    return names


def _signs() -> dict[Any, str]:
    import torch

    return {
        operator.add: "+", operator.iadd: "+", torch.add: "+", "add": "+", "add_": "+",
        operator.mul: "×", operator.imul: "×", torch.mul: "×", torch.cat: "concat", torch.concat: "concat",
    }  # fmt: skip
