"""NAS-Bench-101 with its cells counted; NATS-Bench's size space; stages of blocks, and chains."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations, product
from random import Random

import pytest
import torch

from nas.counting import graph_cost
from nas.graph import Value
from nas.network import Network
from nas.search_space import OPERATIONS as NAMED
from nas.search_space import Architecture, SearchSpace, space
from nas.search_space.nasbench101 import OPERATIONS, pairs
from nas.supernet import Supernet

Wiring = tuple[tuple[int, int], ...]  # edges from a vertex to a later one


def agrees(made: SearchSpace, supernet: Supernet, architecture: Architecture, x: torch.Tensor) -> bool:
    """Whether a path computes what the network with its weights does."""
    network = Network(made.fill(architecture)).double()
    network.load_state_dict(supernet.state_of(architecture))
    return torch.allclose(network.eval()(x), supernet(x, architecture), rtol=1e-9, atol=1e-12)


# --- NAS-Bench-101 ------------------------------------------------------------------------------------------

CELLS = {2: 1, 3: 6, 4: 84, 5: 2_441, 6: 62_010, 7: 359_082}  # vertices -> networks; 423,624 together


@pytest.fixture(scope="module")
def one_cell() -> SearchSpace:
    """The benchmark's space with a single cell."""
    return space("nasbench101", cells=1, stacks=1, channels=8)


def choices(edges: Wiring, operations: tuple[str, ...], places: tuple[int, ...]) -> dict[str, Value]:
    """The choices of a cell whose vertices stand at `places` among the seven of the space."""
    there = {(places[i], places[j]) for i, j in edges}
    at = dict(zip(places[1:-1], operations, strict=True))
    return {
        "ops": tuple((row, at.get(row + 1, OPERATIONS[0])) for row in range(5)),
        "edges": tuple((row, int(edge in there)) for row, edge in enumerate(pairs(7))),
    }


def digest(made: SearchSpace, edges: Wiring, operations: tuple[str, ...]) -> str:
    """The digest of a cell; its output, the last vertex, is also the space's."""
    places = (*range(len(operations) + 1), 6)
    return made.graph.fill(choices(edges, operations, places)).digest()


def wirings(vertices: int) -> Iterator[Wiring]:
    """Every choice of at most nine edges with all vertices on a path from input to output."""
    inner = range(1, vertices - 1)
    for number in range(vertices - 1, 10):
        for edges in combinations(pairs(vertices), number):
            starts, ends = {i for i, _ in edges}, {j for _, j in edges}
            if all(v in starts and v in ends for v in inner):
                yield edges


@pytest.mark.parametrize("vertices", [2, 3, 4, 5, *(pytest.param(n, marks=pytest.mark.slow) for n in (6, 7))])
def test_number_of_cells(one_cell: SearchSpace, vertices: int) -> None:
    """Ying et al. 2019: one wiring of each class, under all labellings, gives as many digests as cells."""
    plain = (OPERATIONS[0],) * (vertices - 2)
    classes = {digest(one_cell, edges, plain): edges for edges in wirings(vertices)}
    labellings = list(product(OPERATIONS, repeat=vertices - 2))
    found = {digest(one_cell, edges, ops) for edges in classes.values() for ops in labellings}
    assert len(found) == CELLS[vertices]


@pytest.mark.parametrize("vertices", [3, 4, 5])
def test_equal_digests_mean_equal_cells(one_cell: SearchSpace, vertices: int) -> None:
    """Two cells have one digest exactly if some permutation of the vertices maps one to the other."""

    def smallest(edges: Wiring, operations: tuple[str, ...]) -> object:
        forms = []
        for order in permutations(range(1, vertices - 1)):
            to = (0, *order, vertices - 1)
            moved = sorted((to[v], op) for v, op in enumerate(operations, 1))
            forms.append((sorted((to[i], to[j]) for i, j in edges), moved))
        return repr(min(forms))

    cells = list(product(wirings(vertices), product(OPERATIONS, repeat=vertices - 2)))
    both = {(digest(one_cell, *cell), smallest(*cell)) for cell in cells}
    assert len(both) == len({a for a, _ in both}) == len({b for _, b in both}) == CELLS[vertices]


def reordered(architecture: Architecture, rng: Random) -> dict[str, Value]:
    """The cell with its vertices in another order, in which every edge still leads to a later one."""
    edges = [edge for edge, (_, there) in zip(pairs(7), architecture.choices["edges"], strict=True) if there]
    order, left = [0], [1, 2, 3, 4, 5]
    while left:
        ready = [v for v in left if not any(i in left and j == v for i, j in edges)]
        order.append(rng.choice(ready))
        left.remove(order[-1])
    order.append(6)
    operations = tuple(op for _, op in architecture.choices["ops"])
    places = tuple(order.index(v) for v in range(7))
    return choices(tuple(edges), operations, places)


def test_order_of_vertices_does_not_matter(one_cell: SearchSpace) -> None:
    moved = 0
    for seed in range(100):
        rng = Random(seed)
        architecture = one_cell.sample(rng)
        other = one_cell.architecture(reordered(architecture, rng))
        assert one_cell.network_digest(other) == one_cell.network_digest(architecture)
        moved += other.digest != architecture.digest
    assert moved > 30


def test_published_cell() -> None:
    """The example in the benchmark's README; the second form is how the benchmark's table holds it."""
    made = space("nasbench101")
    stored = made.parse(
        "[[0,1,1,1,1,0,0],[0,0,0,0,0,0,1],[0,0,0,0,0,0,1],[0,0,0,0,0,0,1],[0,0,0,0,0,1,0],[0,0,0,0,0,0,1],"
        "[0,0,0,0,0,0,0]] ['input', 'conv3x3-bn-relu', 'conv1x1-bn-relu', 'maxpool3x3', 'conv3x3-bn-relu', "
        "'conv3x3-bn-relu', 'output']"
    )
    for architecture in (made.parse("inception-like"), stored):
        assert graph_cost(made.fill(architecture)).params == 2_694_282
    assert made.network_digest(stored) == made.network_digest(made.parse("inception-like"))


@pytest.mark.parametrize(
    ("edges", "channels", "widths"),
    [
        ("01 02 13 23", 8, [4, 4]),
        ("01 02 13 23", 15, [8, 7]),
        ("01 02 03 14 24 34", 8, [3, 3, 2]),
        ("01 02 03 14 24 34", 15, [5, 5, 5]),
        ("01 02 13 23 34", 16, [16, 16, 16]),
        ("01 12 13 24 34", 9, [5, 5, 4]),
        ("01 03 12 14 23 34", 15, [8, 7, 7]),
    ],
)
def test_channels_of_vertices(edges: str, channels: int, widths: list[int]) -> None:
    """What the benchmark's own tests expect."""
    made = space("nasbench101", cells=1, stacks=1, channels=channels)
    last = len(widths) + 1
    wiring = tuple((int(pair[0]), int(pair[1])) for pair in edges.split())
    places = (*range(last), 6)
    graph = made.fill(made.architecture(choices(wiring, OPERATIONS[:1] * len(widths), places)))
    found = {node.name: node.out for node in graph.nodes}
    assert [found[f"cells.0.vertex{v}"] for v in range(1, last)] == widths


def test_edges_that_lead_nowhere_do_not_count(one_cell: SearchSpace) -> None:
    spare: Wiring = tuple((i, j) for i, j in pairs(7) if j != 6)  # 15 edges
    places = tuple(range(7))
    dead = one_cell.architecture(choices((*spare, (0, 6)), OPERATIONS[:1] * 5, places))
    assert one_cell.why_not(dead) is None
    assert one_cell.network_digest(dead) == digest(one_cell, ((0, 1),), ())
    alive = one_cell.architecture(choices((*spare, (5, 6)), OPERATIONS[:1] * 5, places))
    assert "at most 9 edges, not 16" in str(one_cell.why_not(alive))
    assert "no path" in str(one_cell.why_not(one_cell.architecture(choices((), (), (0, 6)))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[0,1],[0,0]] input", "2 vertices"),
        ("[[0,1,0],[0,0,1],[0,0,0]] input conv2x2 output", "operation 'conv2x2'"),
        ("[[0,1,0],[0,0,1],[0,1,0]] input maxpool3x3 output", "diagonal"),
        ("[[0,1],[0,0,1],[0,0,0]] input maxpool3x3 output", "square"),
        ("[[0,1 input output", "matrix"),
    ],
)
def test_wrong_matrices(one_cell: SearchSpace, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one_cell.parse(text)


# --- NATS-Bench's size space --------------------------------------------------------------------------------


def test_size_space_figures() -> None:
    """Number 12 of the benchmark: 0.067378 M parameters; 7.991706 M, with the classifier's bias."""
    made = space("nasbench_sss")
    assert made.size == 32_768
    figures = graph_cost(made.fill(made.parse("8:8:8:16:40")))
    assert (figures.params, figures.macs) == (67_378, 7_991_706 - 10)
    with pytest.raises(ValueError, match="5 widths"):
        made.parse("64:64:64")
    with pytest.raises(ValueError, match="no option 65"):
        made.parse("64:64:64:64:65")


def test_skips_where_widths_change_and_where_they_stay() -> None:
    made = space("nasbench_sss", input=(3, 8, 8))
    supernet = Supernet(made).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for text in ("64:64:64:64:64", "8:8:8:8:8", "8:64:8:64:8", "64:8:8:64:64", "8:8:8:16:40"):
        assert agrees(made, supernet, made.parse(text), x), text


# --- stages of blocks, chains -------------------------------------------------------------------------------


BLOCKS = ("blocks", "residual_blocks", "inception_blocks", "mobile_blocks", "modern_blocks")


@pytest.mark.parametrize("kind", sorted({kind for name in BLOCKS for kind in NAMED[name]}))
def test_every_block_at_every_change_of_width(kind: str) -> None:
    made = space("blocks", operations=[kind], depth=2, input=(3, 8, 8))
    supernet = Supernet(made).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for first, second in product((0.5, 1.0, 1.5), repeat=2):
        stages = "+".join(f"|{kind}~0|+|2~0|+|{width}~0|" for width in (first, second, first))
        assert agrees(made, supernet, made.parse(stages), x), stages


def test_blocks_of_one_by_one() -> None:
    """A layer that the depth of its stage leaves out asks nothing."""
    made = space("blocks", layerwise=True, operations=["fire", "basic_block"])
    assert made.size == (2**3 * 3 * 3) ** 3
    stage = "+|1.0~0|+" + "+".join(["|fire~0|fire~1|fire~2|+|3~0|+|1.0~0|"] * 2)
    some, other = (
        made.parse(f"|basic_block~0|{a}~1|{b}~2|+|1~0|{stage}".replace("|+|+", "|+"))
        for a, b in (("fire", "fire"), ("basic_block", "fire"))
    )
    assert (some.digest, made.fill(some)) == (other.digest, made.fill(other))
    assert made.name == 'blocks?layerwise=true&operations=["fire","basic_block"]'


def test_wrong_blocks() -> None:
    with pytest.raises(ValueError, match="did you mean 'mobile_blocks'"):
        space("blocks", operations="mobil")
    with pytest.raises(ValueError, match="not all different"):
        space("blocks", channels=1)
    with pytest.raises(ValueError, match="keeps its"):
        Supernet(space("chain", operations=["max_pool_3x3"]))


def test_chain_doubles_where_it_is_told() -> None:
    made = space("chain", layers=3, doubles=[1], operations=["conv_3x3"])
    widths = [(node.out, node.stride) for node in made.graph.nodes if node.name.startswith("layers.")]
    assert widths == [(16, 1), (32, 2), (32, 1)]
