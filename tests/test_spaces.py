"""Laws of every registered space, and the published figures of its known points."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from random import Random

import networkx as nx
import pytest
import torch

from nas.counting import graph_cost, module_cost
from nas.graph import Builder, Graph, Node
from nas.network import Network
from nas.search_space import SPACES, SearchSpace, read, space

TRUTH = Path(__file__).parents[2] / "shared" / "truth" / "baselines.json"
TABLE = Path(__file__).parents[2] / "shared" / "data" / "nas" / "nasbench201.csv.gz"
SAMPLES = 60


def small(name: str, **scale: object) -> SearchSpace:
    return space(name, **SPACES.facts(name)["small"], **scale)


@pytest.fixture(params=list(SPACES))
def searched(request: pytest.FixtureRequest) -> SearchSpace:
    return small(request.param)


def samples(made: SearchSpace, n: int = SAMPLES) -> list:
    return [made.sample(Random(i)) for i in range(n)]


def test_text_round_trips(searched: SearchSpace) -> None:
    for architecture in samples(searched):
        assert searched.parse(architecture.literal) == architecture
        again = read(architecture.to_dict())
        assert (again, again.digest) == (architecture, architecture.digest)
        assert "\n" not in architecture.literal


def test_canonical_is_the_same_network(searched: SearchSpace) -> None:
    for architecture in samples(searched):
        canonical = searched.canonical(architecture)
        assert searched.fill(canonical) == searched.fill(architecture)
        assert searched.canonical(canonical) == canonical
        assert canonical.digest == architecture.digest


def test_mutation_changes_the_network(searched: SearchSpace) -> None:
    for i, architecture in enumerate(samples(searched, 12)):
        child = searched.mutate(architecture, Random(i))
        assert child.digest != architecture.digest
        near = list(searched.neighbours(architecture))
        assert architecture not in near
        assert len(set(near)) == len(near)


def test_crossing_takes_from_the_parents(searched: SearchSpace) -> None:
    a, b = samples(searched, 2)
    child = searched.cross(a, b, Random(0))
    assert all(child.choices[name] in (a.choices[name], b.choices[name]) for name in child.choices)


def test_decisions_project_what_they_mask(searched: SearchSpace) -> None:
    for architecture in samples(searched):
        masks = {d.name: d.mask(architecture.choices[d.name]) for d in searched.decisions}
        assert searched.project(masks) == architecture
        flat = [weight for d in searched.decisions for row in masks[d.name] for weight in row]
        assert searched.encode(architecture) == flat


def test_size_is_the_number_of_values(searched: SearchSpace) -> None:
    for decision in searched.decisions:
        if decision.size <= 100_000:
            assert decision.size == len(set(decision.values()))


@pytest.mark.parametrize("affine", [True, False])
def test_closed_form_equals_counting(searched: SearchSpace, affine: bool) -> None:
    for architecture in samples(searched, 5):
        graph = searched.fill(architecture)
        counted = module_cost(Network(graph, affine=affine), input=graph.input)
        closed = graph_cost(graph, affine=affine)
        assert (closed.params, closed.macs) == (counted.params, counted.macs)


def test_resized_keeps_the_choices(searched: SearchSpace) -> None:
    published = space(searched.name)
    for architecture in samples(searched, 5):
        assert published.parse(architecture.literal) == architecture
        own, larger = (graph_cost(each.fill(architecture)) for each in (searched, published))
        assert larger.params > own.params


def test_small_inputs_are_not_shrunk_to_nothing(searched: SearchSpace) -> None:
    """At 8x8 pixels every space still builds; where strides were dropped it says so."""
    tiny = searched.resized(input=(1, 8, 8), classes=3)
    for architecture in samples(tiny, 3):
        network = Network(tiny.fill(architecture)).eval()
        assert network(torch.randn(2, 1, 8, 8)).shape == (2, 3)
    strides = [node.stride for node in tiny.graph.nodes]
    assert bool(tiny.notes) == (strides != [node.stride for node in searched.resized(classes=3).graph.nodes])


def test_known_points_are_points(searched: SearchSpace) -> None:
    assert searched.known
    literals = {searched.parse(name).literal for name in searched.known}
    assert len(literals) == len(searched.known)


def test_wrong_text_is_refused_in_a_sentence(searched: SearchSpace) -> None:
    name = next(iter(searched.known))
    for text in (
        "",
        "|",
        name + "x",
        searched.known[name] + "+|x~0|",
        searched.known[name].replace("~0", "~9"),
    ):
        with pytest.raises(ValueError, match=r"\w+"):
            searched.parse(text)


# --- published figures --------------------------------------------------------------------------------------


def published() -> list[dict]:
    assert TRUTH.exists(), f"the table of published figures is missing: {TRUTH}"
    elsewhere = ("NASNet", "AmoebaNet", "ENAS_paper_fig")  # points of spaces of blocks
    entries = json.loads(TRUTH.read_text())
    found = [e for e in entries if e["family"] == "nasbench201"]
    return found + [
        e for e in entries if e["family"] == "darts_cell_network" and e["config"]["genotype"] not in elsewhere
    ]


def made_from(entry: dict) -> tuple[SearchSpace, str]:
    config, common = entry["config"], {"classes": entry["num_classes"], "input": entry["input_size"]}
    if entry["family"] == "nasbench201":
        return space("nasbench201", channels=config["C"], cells=config["N"], **common), config["arch"]
    scale = {
        "channels": config["C"],
        "cells": config["layers"],
        "stem": config["skeleton"],
        "auxiliary": config["aux"],
    }
    return space("darts", **scale, **common), entry["genotype"]


def test_published_counts_are_exact() -> None:
    entries = published()
    assert len(entries) == 46
    for entry in entries:
        made, text = made_from(entry)
        figures = graph_cost(made.fill(made.parse(text)))
        assert (figures.params, figures.macs) == (entry["params"], entry["macs"]), entry["name"]
        if "genotype" in entry["config"]:
            assert made.parse(entry["config"]["genotype"]) == made.parse(text)


def test_published_counts_of_built_modules() -> None:
    for entry in published()[::9]:
        made, text = made_from(entry)
        counted = module_cost(Network(made.fill(made.parse(text))), input=tuple(entry["input_size"]))
        assert (counted.params, counted.macs) == (entry["params"], entry["macs"]), entry["name"]


def test_nasbench201_table_counts() -> None:
    """Every row of the benchmark's table: its string is a literal, and its parameters are ours."""
    import csv

    made = space("nasbench201")
    with gzip.open(TABLE, "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == made.size == 15_625
    for row in rows[::25]:
        architecture = made.parse(row["arch"])
        assert architecture.literal == row["arch"]
        figures = graph_cost(made.fill(architecture))
        assert figures.params == int(row["params_cifar10"])
        assert figures.macs == int(row["flops_cifar10"]) - 10  # the table counts the classifier's bias


def test_cost_needs_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    made = space("darts", channels=36, cells=20)
    graph = made.fill(made.parse("DARTS_V2"))
    monkeypatch.setattr(torch.nn.Module, "__init__", None)
    assert graph_cost(graph).params == 3_349_342
    best = min(_seconds(graph) for _ in range(20))
    assert best < 1e-3


def _seconds(graph: Graph) -> float:
    start = time.perf_counter()
    graph_cost(graph)
    return time.perf_counter() - start


# --- isomorphism --------------------------------------------------------------------------------------------


def test_digest_does_not_depend_on_names_or_order() -> None:
    def graph(first: str, second: str) -> Graph:
        b = Builder((4, 8, 8))
        b("x", first, "input", out=4)
        b("y", second, "input", out=4)
        b("sum", "sum", "x", "y")
        return b.graph()

    assert graph("conv_1x1", "conv_3x3").digest() == graph("conv_3x3", "conv_1x1").digest()
    assert graph("conv_1x1", "conv_3x3").digest() != graph("conv_1x1", "conv_1x1").digest()
    assert nx.is_directed_acyclic_graph(graph("conv_1x1", "conv_3x3").to_networkx())


def test_a_graph_reads_only_earlier_nodes() -> None:
    with pytest.raises(ValueError, match="earlier"):
        Graph([Node("input", "input", (), 3), Node("a", "conv_1x1", ("b",), 3)], input=(3, 8, 8))
