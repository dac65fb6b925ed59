"""The laws of spaces and supernets on spaces that nobody wrote: random graphs with holes of every kind."""

from __future__ import annotations

import warnings
from random import Random

import pytest
import torch

from nas.counting import graph_cost, module_cost
from nas.graph import Builder, Hole
from nas.network import Network
from nas.search_space import Decision, SearchSpace
from nas.supernet import Supernet

OPERATIONS = ("none", "skip_connect", "conv_1x1", "conv_bn_3x3", "avg_pool_3x3")
WIDTH = 4


class Writer:
    """Writes a random space: a stem, a few steps of the given kinds, an end that reads what is left."""

    def __init__(self, seed: int, kinds: tuple[str, ...]) -> None:
        self.rng = Random(seed)
        self.b = Builder((3, 6, 6))
        self.states = [self.b("stem", "conv_bn_3x3", "input", out=WIDTH)]
        self.decisions: list[Decision] = []
        for step in range(self.rng.randint(2, 4)):
            kind = self.rng.choice([k for k in kinds if k not in ("mean", "loose")])
            self.states.append(getattr(self, f"_{kind}")(f"n{step}", "mean" in kinds))
        read = {source for node in self.b.nodes for source in node.inputs}
        if "loose" in kinds:
            self.b("ends", "concat", *self.states, loose=True)
        else:
            self.b("ends", "sum", *(state for state in self.states if state not in read))
        self.b("out", "conv_1x1", "ends", out=WIDTH)
        self.b("pool", "global_avg_pool", "out")
        self.b("classifier", "linear", "pool", out=3)

    def space(self) -> SearchSpace:
        if not self.decisions:  # nothing was chosen by chance
            self._decide("last", OPERATIONS[1:])
            self.b.nodes[-3] = self.b.nodes[-3]._replace(op=Hole("last"))
        return SearchSpace(tuple(self.decisions), self.b.graph())

    def _decide(self, name: str, options: tuple, **shape: int) -> str:
        self.decisions.append(Decision(name, options, **shape))
        return name

    def _edges(self, name: str, mean: bool) -> str:
        sources = self.rng.sample(self.states, self.rng.randint(1, min(3, len(self.states))))
        options = OPERATIONS if self.rng.random() < 0.6 else OPERATIONS[1:]
        self._decide(name, options, rows=len(sources), keep=self.rng.randint(1, len(sources)))
        edges = [self.b(f"{name}_{i}", Hole(name, i), source) for i, source in enumerate(sources)]
        return self.b(name, "mean" if mean and self.rng.random() < 0.4 else "sum", *edges)

    def _chain(self, name: str, mean: bool) -> str:
        return self.b(name, Hole(self._decide(name, OPERATIONS[1:])), self.rng.choice(self.states))

    def _when(self, name: str, mean: bool) -> str:
        hole = Hole(self._decide(name, (0, 1)), option=1)
        op = self.rng.choice(("identity", "conv_1x1"))
        return self.b(name, op, self.rng.choice(self.states), when=hole)

    def _attribute(self, name: str, mean: bool) -> str:
        kernel = Hole(self._decide(name, (3, 5)), sliced=self.rng.random() < 0.5)
        return self.b(name, "inverted_residual", self.rng.choice(self.states), kernel=kernel, expand=2)

    def _width(self, name: str, mean: bool) -> str:
        wide = Hole(self._decide(name, (0.5, 1)), times=WIDTH)
        x = self.b(f"{name}_in", "conv_bn_3x3", self.rng.choice(self.states), out=wide)
        return self.b(name, "conv_1x1", x, out=WIDTH)

    def _concat(self, name: str, mean: bool) -> str:
        sources = self.rng.sample(self.states, min(len(self.states), self.rng.randint(1, 3)))
        return self.b(name, "conv_1x1", self.b(f"{name}_in", "concat", *sources), out=WIDTH)

    def _depth(self, name: str, mean: bool) -> str:
        first = self.rng.choice(self.states)
        second = self.b(f"{name}_a", "conv_1x1", first)
        third = self.b(f"{name}_b", "conv_1x1", second)
        return self.b.exits(name, self._decide(name, (0, 1, 2)), {0: first, 1: second, 2: third})


def trained(space: SearchSpace) -> Supernet:
    """A supernet as after training: its norms make something of zero."""
    supernet = Supernet(space).double()
    with torch.no_grad():
        for name, tensor in [*supernet.named_parameters(), *supernet.named_buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "running_var" in name else tensor.normal_(0.0, 0.5)
    return supernet


KINDS = [
    ("edges",),
    ("edges", "mean"),
    ("edges", "chain", "when"),
    ("edges", "concat", "when"),
    ("depth", "edges"),
    ("attribute", "edges"),
    ("width", "depth", "attribute", "chain"),
    ("loose", "edges"),
    ("loose", "chain", "when"),
    ("loose", "width", "chain"),
]


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_laws(kinds: tuple[str, ...]) -> None:
    looked = 0
    for seed in range(12):
        space = Writer(seed, kinds).space()
        torch.manual_seed(seed)
        supernet, x = trained(space).eval(), torch.randn(3, 3, 6, 6, dtype=torch.float64)
        for number in range(3):
            architecture = space.sample(Random(number))
            graph, canonical = space.fill(architecture), space.canonical(architecture)
            assert space.fill(canonical) == graph
            assert space.canonical(canonical) == canonical
            assert canonical.digest == architecture.digest
            assert space.parse(architecture.literal) == architecture
            network = Network(graph)
            assert graph_cost(graph) == module_cost(network, input=graph.input)
            network.double().load_state_dict(supernet.state_of(architecture))
            masks = {
                d.name: torch.tensor(d.mask(architecture.choices[d.name])).double() for d in space.decisions
            }
            path = supernet(x, architecture)
            assert torch.allclose(path, network.eval()(x), atol=1e-9)
            assert torch.allclose(path, supernet(x, masks), atol=1e-9)
            looked += 1
    assert looked == 36


@pytest.mark.parametrize(
    "kinds", [("width", "depth", "attribute", "chain"), ("loose", "chain")], ids="-".join
)
def test_paths_train_like_networks(kinds: tuple[str, ...]) -> None:
    """In training mode too, a path updates the running statistics that are its part, and no others."""
    for seed in range(8):
        space = Writer(seed, kinds).space()
        torch.manual_seed(seed)
        supernet, x = trained(space).train(), torch.randn(4, 3, 6, 6, dtype=torch.float64)
        architecture = space.sample(Random(0))
        network = Network(space.fill(architecture)).double().train()
        network.load_state_dict({k: v.clone() for k, v in supernet.state_of(architecture).items()})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            path = supernet(x, architecture)
        assert torch.allclose(path, network(x), atol=1e-9)
        ours = supernet.state_of(architecture)
        for key, tensor in network.state_dict().items():
            assert torch.allclose(ours[key].double(), tensor.double(), atol=1e-9), key


def test_a_path_takes_the_first_channels_and_the_middle_of_kernels() -> None:
    b = Builder((3, 6, 6))
    b("wide", "conv_bn_3x3", "input", out=Hole("width", times=8))
    b("block", "inverted_residual", "wide", out=8, kernel=Hole("kernel", sliced=True), expand=2)
    b("classifier", "linear", b("pool", "global_avg_pool", "block"), out=3)
    space = SearchSpace((Decision("width", (0.5, 1)), Decision("kernel", (3, 5))), b.graph())
    supernet = trained(space)
    state = supernet.state_of(space.parse("|0.5~0|+|3~0|"))
    whole = dict(supernet.named_parameters())
    assert torch.equal(state["wide.0.weight"], whole["wide.0.weight"][:4])
    depthwise = next(key for key in state if state[key].shape == (8, 1, 3, 3))
    assert torch.equal(state[depthwise], whole[depthwise][:8, :, 1:4, 1:4])
