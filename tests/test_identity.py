"""When are two candidates one network? The digest against brute force, outputs, and re-ordered cells."""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import permutations, product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from nas.graph import Builder, Hole
from nas.network import Network
from nas.search_space import Architecture, Decision, SearchSpace, space
from nas.search_space.nasbench201 import OPERATIONS, unique_string
from nas.strategies import AskTell, Task, Trial

TABLE = Path(__file__).parents[2] / "shared" / "data" / "nas" / "nasbench201.csv.gz"
Term = int  # an operation's place in its cell; -1 is the input
Cell = tuple[list[tuple[str, Counter[Term]]], Counter[Term]]  # operations with what they sum, and the output


@cache
def one_cell() -> SearchSpace:
    """The cell of NAS-Bench-201 alone, without batch norm's shift, so that nothing comes from zero."""
    b = Builder((3, 6, 6))
    states = ["input"]
    zero = b("zero", "zero", "input")
    for j in range(1, 4):
        edges = [b(f"edge{i}_{j}", Hole(f"node{j}", i), state, out=3) for i, state in enumerate(states)]
        states.append(b(f"node{j}", "sum", zero, *edges))
    decisions = tuple(Decision(f"node{j}", OPERATIONS, rows=j, keep=j) for j in range(1, 4))
    return SearchSpace(decisions, b.graph(keep_dead=True))


@cache
def every_cell() -> list[Architecture]:
    made = one_cell()
    names = [decision.name for decision in made.decisions]
    values = product(*(decision.values() for decision in made.decisions))
    return [made.architecture(dict(zip(names, each, strict=True))) for each in values]


def written_out(architecture: Architecture) -> tuple[Cell, list[str]]:
    """A cell as operations that sum terms: zeros dropped, identities passed on, what is not read left out.

    Written without the library's own simplification. Also the names of the operations' nodes.
    """
    operations: list[tuple[str, Counter[Term]]] = []
    names: list[str] = []
    states = [Counter({-1: 1})]
    for j in range(1, 4):
        terms: Counter[Term] = Counter()
        for i, op in architecture.choices[f"node{j}"]:
            if op == "none" or not states[i]:
                continue
            if op == "skip_connect":
                terms += states[i]
                continue
            operations.append((str(op), states[i]))
            names.append(f"edge{i}_{j}")
            terms += Counter({len(operations) - 1: 1})
        states.append(terms)
    read, todo = set[int](), list(states[3])
    while todo:
        term = todo.pop()
        if term >= 0 and term not in read:
            read.add(term)
            todo += operations[term][1]
    order = {old: new for new, old in enumerate(sorted(read))} | {-1: -1}
    kept = [
        (operations[old][0], Counter({order[t]: n for t, n in operations[old][1].items()}))
        for old in sorted(read)
    ]
    return (kept, Counter({order[t]: n for t, n in states[3].items()})), [names[old] for old in sorted(read)]


def relabelled(cell: Cell, order: tuple[int, ...]) -> tuple[Any, ...]:
    """The cell with operation `i` called ``order[i]``, as something that can be compared."""
    operations, output = cell
    new = dict(enumerate(order)) | {-1: -1}

    def row(terms: Counter[Term]) -> tuple[tuple[int, int], ...]:
        return tuple(sorted((new[term], n) for term, n in terms.items()))

    rows = sorted((order[i], op, row(terms)) for i, (op, terms) in enumerate(operations))
    return (tuple(rows), row(output))


def canonical(cell: Cell) -> tuple[Any, ...]:
    """The least of all relabellings: equal for two cells exactly if they are isomorphic."""
    return min(relabelled(cell, order) for order in permutations(range(len(cell[0]))))


def test_digest_equals_brute_force_on_nasbench201() -> None:
    """The 15,625 strings are 5,425 networks, and each class is one of all permutations."""
    digests: dict[str, str] = {}
    forms: dict[str, list[Architecture]] = defaultdict(list)
    for each in every_cell():
        digests[each.literal] = one_cell().network_digest(each)
        forms[digests[each.literal]].append(each)
    assert len(forms) == 5_425
    seen: dict[tuple[Any, ...], str] = {}
    known: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for each in every_cell():
        cell, _ = written_out(each)
        raw = relabelled(cell, tuple(range(len(cell[0]))))
        if raw not in known:
            known[raw] = canonical(cell)
        assert seen.setdefault(known[raw], digests[each.literal]) == digests[each.literal]
    assert len(seen) == 5_425


def test_unique_string_is_the_benchmarks_partition() -> None:
    """`iso_class` of the benchmark's table and our strings are one partition of 6,466 classes."""
    made = space("nasbench201", channels=4, cells=1)
    with gzip.open(TABLE, "rt") as file:
        rows = [(row["arch"], row["iso_class"]) for row in csv.DictReader(file)]
    pairs = {(unique_string(made.parse(arch)), iso) for arch, iso in rows}
    assert len(pairs) == len({ours for ours, _ in pairs}) == len({iso for _, iso in pairs}) == 6_466


# --- what the digest means: outputs -------------------------------------------------------------------------


def built(architecture: Architecture) -> Network:
    torch.manual_seed(0)
    network = Network(one_cell().fill(architecture), affine=False).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return network


def give(source: Network, target: Network, names: list[tuple[str, str]]) -> None:
    """Copy the tensors of operations, by pairs of their names."""
    for ours, theirs in names:
        target.nodes[theirs].load_state_dict(source.nodes[ours].state_dict())


def matchings(a: Architecture, b: Architecture) -> list[list[tuple[str, str]]]:
    """Every way to pair the operations of two cells, kind with kind."""
    (first, ours), (second, theirs) = written_out(a), written_out(b)
    found = []
    for order in permutations(range(len(theirs))):
        if all(first[0][i][0] == second[0][j][0] for i, j in enumerate(order)):
            found.append([(ours[i], theirs[j]) for i, j in enumerate(order)])
    return found


def pairs(*, equal: bool, number: int) -> list[tuple[Architecture, Architecture]]:
    """Random pairs of cells with as many operations of each kind, with one digest or with two."""
    groups: dict[tuple[Any, ...], list[Architecture]] = defaultdict(list)
    for each in every_cell():
        kinds = tuple(sorted(op for op, _ in written_out(each)[0][0]))
        groups[(kinds, one_cell().network_digest(each)) if equal else (kinds,)].append(each)
    rng = Random(0)
    large = [group for group in groups.values() if len(group) > 1]
    found: list[tuple[Architecture, Architecture]] = []
    while len(found) < number:
        a, b = rng.sample(rng.choice(large), 2)
        if (one_cell().network_digest(a) == one_cell().network_digest(b)) is equal:
            found.append((a, b))
    return found


def agree(a: Architecture, b: Architecture) -> bool:
    """Whether some matching of weights makes the outputs equal on random pictures."""
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first, second = built(a), built(b)
    for matching in matchings(a, b):
        give(first, second, matching)
        if torch.allclose(first(x), second(x), rtol=1e-9, atol=1e-9):
            return True
    return False


def test_one_digest_means_equal_outputs() -> None:
    for a, b in pairs(equal=True, number=60):
        assert agree(a, b), (a.literal, b.literal)


def test_two_digests_mean_different_outputs() -> None:
    for a, b in pairs(equal=False, number=60):
        assert not agree(a, b), (a.literal, b.literal)


def test_the_digest_takes_the_safe_side() -> None:
    """The order of a concatenation counts where no weights undo it, and so does what is made of zero."""

    def concats(swapped: bool) -> str:
        b = Builder((4, 6, 6))
        u, v = b("u", "conv_1x1", "input"), b("v", "conv_3x3", "input")
        one = b("one", "relu", b("uv", "concat", u, v))
        two = b("two", "tanh", b("vu", "concat", *((v, u) if swapped else (u, v))))
        b("out", "sum", one, two)
        return b.graph().digest()

    def zeros(op: str) -> str:
        b = Builder((4, 6, 6))
        x, nothing = b("x", "conv_1x1", "input"), b("nothing", "zero", "input")
        b("out", "sum", x, b("made", op, nothing))
        return b.graph().digest()

    assert concats(True) != concats(False)
    assert zeros("sigmoid") != zeros("relu") == zeros("conv_1x1")


def test_ties_are_told_apart() -> None:
    """One ring of eight and two rings of four look alike to each node and its neighbours."""

    def ring(crossed: bool) -> str:
        b = Builder((4, 6, 6))
        tops = [b(f"top{i}", "conv_1x1", "input") for i in range(4)]
        links = [(0, 1), (1, 0), (2, 3), (3, 2)] if not crossed else [(0, 1), (1, 2), (2, 3), (3, 0)]
        bottoms = [
            b(f"bottom{i}", "conv_3x3", b(f"join{i}", "sum", tops[a], tops[c]))
            for i, (a, c) in enumerate(links)
        ]
        b("out", "sum", *bottoms)
        return b.graph().digest()

    assert ring(True) != ring(False)


# --- other spaces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nasnet", "amoebanet", "pnas", "enas_micro"])
def test_block_cells_in_another_order_are_one_network(name: str) -> None:
    """The halves of a block swapped, and the blocks in another order that the wiring allows."""
    from nas.search_space import SPACES

    made = space(name, **SPACES.facts(name)["small"])
    changed = 0
    for seed in range(40):
        rng = Random(seed)
        architecture = made.sample(rng)
        other = made.architecture(shuffled(architecture, rng))
        changed += other != architecture
        assert made.network_digest(other) == made.network_digest(architecture)
    assert changed > 30


def shuffled(architecture: Architecture, rng: Random) -> dict[str, Any]:
    """The choices of the same cells, their blocks and halves in another order."""
    cells: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in architecture.choices:  # normal.0.left ...: cell, block, half
        cell, block, _ = name.rsplit(".", 2) if name.count(".") > 1 else ("", *name.split("."))
        cells[cell][int(block)].append(name)
    choices: dict[str, Any] = {}
    for blocks in cells.values():
        halves = {b: [architecture.choices[name][0] for name in sorted(names)] for b, names in blocks.items()}
        order: list[int] = []
        while len(order) < len(halves):
            ready = [
                b
                for b in halves
                if b not in order and all(row < 2 or row - 2 in order for row, _ in halves[b])
            ]
            order.append(rng.choice(ready))
        place = {0: 0, 1: 1} | {2 + b: 2 + i for i, b in enumerate(order)}
        for i, b in enumerate(order):
            mine = rng.sample(halves[b], 2)
            for name, (row, op) in zip(sorted(blocks[i]), mine, strict=True):
                choices[name] = ((place[row], op),)
    return choices


# --- searches ---------------------------------------------------------------------------------------------


class Listed(AskTell):
    """Proposes what it is given, in order."""

    def __init__(self, architectures: list[Architecture]) -> None:
        super().__init__()
        self.architectures = architectures

    def ask(self, number: int) -> Trial:
        return Trial(number, self.architectures[number], epochs=1)


class Bill:
    """An executor that keeps a list of what was paid for."""

    workers = 1

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.waiting: list[Trial] = []

    def submit(self, trial: Trial) -> None:
        self.paid.append(trial.architecture.literal)
        self.waiting.append(trial)

    def completed(self) -> Iterator[tuple[Trial, dict[str, float]]]:
        while self.waiting:
            trial = self.waiting.pop()
            yield trial, {"valid_accuracy": len(self.paid) / 10}

    def close(self) -> None:
        pass


def test_a_search_pays_once_for_one_network() -> None:
    """Seven strings, two networks: two evaluations, five replays with the known results."""
    made = space("nasbench201", channels=4, cells=1)
    paths = [
        "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
        "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|",
        "|none~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|",
        "|skip_connect~0|+|none~0|none~1|+|none~0|nor_conv_3x3~1|none~2|",
        "|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|",
        "|nor_conv_1x1~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
        "|none~0|+|nor_conv_1x1~0|none~1|+|none~0|none~1|skip_connect~2|",
    ]
    # The library's space keeps what no output needs, so a cut-off convolution costs, but computes nothing.
    architectures = [made.parse(path) for path in paths]
    strategy, bill = Listed(architectures), Bill()
    task = Task(made, trials=3, executor=bill)  # type: ignore[arg-type]
    strategy.resume(task, (), None)
    reports = []
    for report in strategy.reports(task):
        reports.append(report)
        if sum(each.kind == "trial" for each in reports) == len(paths):
            break
    told = [each for each in reports if each.kind == "trial"]
    assert bill.paid == [paths[0], paths[5]]
    assert [each.replayed for each in told] == [False, *[True] * 4, False, True]
    assert [each.metrics["valid_accuracy"] for each in told] == [0.1] * 5 + [0.2] * 2
