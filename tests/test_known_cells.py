"""The cell spaces in block form and ENAS: published figures, and laws off their default scale."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn

from nas.counting import graph_cost, module_cost
from nas.network import Network
from nas.primitives import PRIMITIVES
from nas.search_space import OPERATIONS, SPACES, SearchSpace, operations, space
from nas.subject import identify
from nas.supernet import Supernet

TRUTH = Path(__file__).parents[2] / "shared" / "truth" / "baselines.json"
ENTRIES = {entry["name"]: entry for entry in json.loads(TRUTH.read_text())} if TRUTH.exists() else {}
ON_DARTS = {
    "NASNet": ("nasnet", "NASNet-A"),
    "AmoebaNet": ("amoebanet", "AmoebaNet-A"),
    "ENAS_paper_fig": ("enas_micro", "ENAS_paper_fig"),
}
IMAGENET = {"skeleton": "original", "stem": "imagenet", "classes": 1000}
NASNET_A = {"ends": ((0,), (3,)), **IMAGENET}
ORIGINAL: dict[str, tuple[str, str, dict[str, Any]]] = {
    "nasnet_a_large_6@4032": (
        "nasnet",
        "NASNet-A",
        {"channels": 168, "cells": 20, "stem_channels": 96, "skip": True, **NASNET_A},
    ),
    "nasnet_a_mobile_4@1056": (
        "nasnet",
        "NASNet-A",
        {"channels": 44, "cells": 14, "padding": "shifted", **NASNET_A},
    ),
    "pnasnet5_large": ("pnas", "PNASNet-5", {"channels": 216, "cells": 12, "stem_channels": 96, **IMAGENET}),
}
BLOCKS = ("nasnet", "amoebanet", "pnas", "enas_micro")


def on_darts() -> list[dict[str, Any]]:
    return [
        entry
        for entry in ENTRIES.values()
        if entry["family"] == "darts_cell_network" and entry["config"]["genotype"] in ON_DARTS
    ]


def made_from(entry: dict[str, Any]) -> tuple[SearchSpace, str]:
    config, common = entry["config"], {"classes": entry["num_classes"], "input": entry["input_size"]}
    name, known = ON_DARTS[config["genotype"]]
    scale = {
        "channels": config["C"],
        "cells": config["layers"],
        "auxiliary": config["aux"],
        "skeleton": "darts",
    }
    stem = {} if name == "enas_micro" else {"stem": config["skeleton"]}
    return space(name, **scale, **stem, **common), known


def test_the_table_of_published_figures_is_there() -> None:
    assert len(on_darts()) == 15
    assert set(ORIGINAL) <= set(ENTRIES)


@pytest.mark.parametrize("entry", on_darts(), ids=lambda entry: entry["name"])
def test_cells_on_the_skeleton_of_darts(entry: dict[str, Any]) -> None:
    made, known = made_from(entry)
    architecture = made.parse(entry["genotype"])
    assert architecture == made.parse(known)
    figures = graph_cost(made.fill(architecture))
    assert (figures.params, figures.macs) == (entry["params"], entry["macs"])


@pytest.mark.parametrize("name", ORIGINAL)
def test_networks_for_imagenet(name: str) -> None:
    address, known, scale = ORIGINAL[name]
    entry = ENTRIES[name]
    made = space(address, **scale, input=entry["input_size"])
    graph = made.fill(made.parse(known))
    figures = graph_cost(graph)
    assert figures.params == entry["params"]
    assert figures.macs in (entry["macs"], *entry.get("macs_also", ()))
    counted = module_cost(Network(graph), input=graph.input)
    assert (counted.params, counted.macs) == (figures.params, figures.macs)


def test_shifted_padding_is_counted_as_computed() -> None:
    """The first figure of NASNet-A 6 @ 4032 counts rows and columns that are cut off again."""
    entry = ENTRIES["nasnet_a_large_6@4032"]
    _, known, scale = ORIGINAL[entry["name"]]
    made = space("nasnet", **scale, input=entry["input_size"], padding="shifted")
    assert graph_cost(made.fill(made.parse(known))).macs == entry["macs"]


@pytest.mark.parametrize("name", ["enas_micro_best_F36_L15_noaux", "enas_micro_best_F36_L15_aux"])
def test_enas_cells_on_their_own_skeleton(name: str) -> None:
    entry = ENTRIES[name]
    config = entry["config"]
    scale = {"channels": config["out_filters"], "cells": config["total_cells"], "auxiliary": config["aux"]}
    made = space("enas_micro", **scale)
    architecture = made.parse(config["fixed_arc"])
    assert architecture == made.parse("ENAS")
    graph = made.fill(architecture)
    figures = graph_cost(graph)
    assert (figures.params, figures.macs) == (entry["params"], entry["macs"])
    assert module_cost(Network(graph), input=graph.input).params == entry["params"]


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("nasnet:NASNet-A", "nasnet_a_mobile_4@1056"),
        ("amoebanet:AmoebaNet-A", "AmoebaNet_C36_L20_cifar10_noaux"),
        ("pnas:PNASNet-5", "pnasnet5_large"),
        ("enas_micro:ENAS", "enas_micro_best_F36_L15_noaux"),
        ("enas_micro:ENAS_paper_fig", "ENAS_paper_fig_C36_L20_cifar10_noaux"),
    ],
)
def test_known_points_come_at_their_published_scale(what: str, name: str) -> None:
    found, shape, classes = identify(what).cost()
    entry = ENTRIES[name]
    assert found.params == entry["params"]
    assert found.macs in (entry["macs"], *entry.get("macs_also", ()))
    assert (list(shape), classes) == (entry["input_size"], entry["num_classes"])


def test_published_sizes() -> None:
    assert f"{space('pnas').size:.1e}" == "5.6e+14"  # Liu et al. 2018, section 3.1
    assert space("enas_macro").size == 6**12 * 2**66  # Pham et al. 2018, section 2.3
    assert space("nasnet").size == (13**10 * 2**2 * 3**2 * 4**2 * 5**2 * 6**2) ** 2


# --- laws off the default scale -----------------------------------------------------------------------------

SCALES: list[tuple[str, dict[str, Any]]] = [
    *((name, {"skeleton": "darts"}) for name in BLOCKS),
    ("nasnet", {"stem": "imagenet", "channels": 8, "input": (3, 32, 32), "padding": "shifted", "skip": True}),
    ("nasnet", {"ends": ((0, 3), (0, 3)), "operations": "darts"}),
    ("pnas", {"stem": "imagenet", "channels": 8, "operations": "nasbench201", "blocks": 2}),
    ("enas_micro", {"operations": ("conv_3x3", "skip_connect")}),
    ("enas_macro", {"layers": 5, "doubling": False}),
]


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_path_equals_one_hot_and_the_network(name: str, scale: dict[str, Any]) -> None:
    torch.manual_seed(0)
    made = space(name, **{"input": (3, 8, 8), **SPACES.facts(name)["small"], **scale})
    supernet = Supernet(made).double().eval()
    x = torch.randn(2, *made.graph.input, dtype=torch.float64)
    for i in range(3):
        architecture = made.sample(Random(i))
        masks = {d.name: torch.tensor(d.mask(architecture.choices[d.name])).double() for d in made.decisions}
        network = Network(made.fill(architecture)).double().eval()
        network.load_state_dict(supernet.state_of(architecture))
        y = supernet(x, architecture)
        assert torch.allclose(y, supernet(x, masks), rtol=1e-9, atol=1e-12)
        assert torch.allclose(y, network(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_output_takes_what_nothing_reads(name: str) -> None:
    made = space(name, **SPACES.facts(name)["small"])
    seen = set()
    for i in range(200):
        architecture = made.sample(Random(i))
        graph = made.fill(architecture)
        for cell, kind in (("cells.0", "normal"), ("cells.2", "reduce")):
            kind = "cell" if name == "pnas" else kind
            read = {
                architecture.choices[f"{kind}.{j}.{h}"][0][0] for j in range(5) for h in ("left", "right")
            }
            free = set(range(2, 7)) if name == "pnas" else set(range(7)) - read
            output = next(node for node in graph.nodes if node.name == f"{cell}.out")
            assert len(output.inputs) == len(free)
            seen |= {(cell, state) for state in free if state < 2}
    assert name == "pnas" or len(seen) == 4  # inputs too are left unread, at either size


@pytest.mark.parametrize("name", BLOCKS)
def test_the_order_of_halves_makes_no_network(name: str) -> None:
    made = space(name, **SPACES.facts(name)["small"])
    for i in range(20):
        architecture = made.sample(Random(i))
        swapped = dict(architecture.choices)
        for left in [key for key in swapped if key.endswith("left")]:
            right = left.replace("left", "right")
            if Random(f"{i}{left}").random() < 0.5:
                swapped[left], swapped[right] = swapped[right], swapped[left]
        other = made.architecture(swapped)
        assert made.network_digest(other) == made.network_digest(architecture)


def test_auxiliary_classifiers_run() -> None:
    for name, scale in (
        ("nasnet", {}),
        ("pnas", {"stem": "imagenet", "channels": 8, "input": (3, 160, 160)}),
        ("enas_micro", {}),
    ):
        made = space(name, **{**SPACES.facts(name)["small"], "cells": 4, "auxiliary": True, **scale})
        network = Network(made.fill(made.sample(Random(0))))
        logits, second = network.outputs(torch.randn(2, *made.graph.input))
        assert logits.shape == second.shape == (2, 10)


# --- text ---------------------------------------------------------------------------------------------------


def test_released_macro_network_has_its_skips() -> None:
    made = space("enas_macro", layers=24)
    released = made.parse("ENAS")
    assert released.choices["op1"] == ((0, "separable_conv_5x5"),)
    assert released.choices["skip5"] == ((0, 1), (1, 1), (2, 0), (3, 1), (4, 0))
    graph = made.fill(released)
    joined = next(node for node in graph.nodes if node.name == "layers.5.join")
    assert [name.rpartition(".")[2] for name in joined.inputs] == ["skip0", "skip1", "skip3", "op"]
    halvings = [node for node in graph.nodes if node.stride == 2]
    assert len(halvings) == 9 + 17  # every state is read behind both reductions


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("enas_micro", "0 1 2", "40 numbers, got 3"),
        ("enas_micro", " ".join(["0 9"] * 20), "operation 9 is not one of 0 to 4"),
        ("enas_macro", "0 1 2", "78 numbers, got 3"),
        ("pnas", ENTRIES.get("NASNet_C36_L20_cifar10_noaux", {}).get("genotype", ""), "one cell"),
        ("nasnet", "Genotype(normal=[], normal_concat=[], reduce=[], reduce_concat=[])", "5 blocks"),
        ("nasnet", "Genotype(normal=3)", "not a genotype"),
        ("nasnet", "NASNet", "NASNet-A"),
    ],
)
def test_wrong_notation_is_refused(name: str, text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        space(name).parse(text)


def test_a_genotype_must_concatenate_what_the_space_does() -> None:
    genotype = ENTRIES["NASNet_C36_L20_cifar10_noaux"]["genotype"]
    wrong = genotype.replace("reduce_concat=[4, 5, 6]", "reduce_concat=[2, 5, 6]")
    with pytest.raises(ValueError, match=r"reduce cell concatenates \[2, 5, 6\]; .* takes \[4, 5, 6\]"):
        space("nasnet").parse(wrong)


@pytest.mark.parametrize(
    ("scale", "match"),
    [
        ({"operations": "nasnett"}, "did you mean 'nasnet'"),
        ({"skeleton": "darts", "padding": "shifted"}, "original skeleton"),
        ({"ends": ((9,), ())}, "states 0 to 6"),
        ({"stem": "imagenet", "channels": 6}, "multiple of 4"),
    ],
)
def test_wrong_scales_are_refused(scale: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        space("nasnet", **scale)


def test_named_sets_are_primitives() -> None:
    assert len(OPERATIONS["nasnet"]) == 13
    for name, members in OPERATIONS.items():
        assert operations(name) == members == operations(members)
        assert set(members) <= set(PRIMITIVES)


# --- primitives ---------------------------------------------------------------------------------------------


def test_shifted_pools_see_what_tensorflow_sees() -> None:
    """At an even size all padding of stride 2 is behind; an odd size and stride 1 have nothing to shift."""
    for size in (8, 9):
        x = torch.randn(2, 3, size, size)
        behind = nn.functional.pad(x, (0, 1, 0, 1), value=-torch.inf)
        expected = nn.MaxPool2d(3, 2)(behind) if size == 8 else nn.MaxPool2d(3, 2, 1)(x)
        assert torch.equal(PRIMITIVES["shifted_max_pool_3x3"](3, 3, 2)(x), expected)
        for name in ("max", "avg"):
            plain, shifted = (PRIMITIVES[f"{each}{name}_pool_3x3"](3, 3, 1) for each in ("", "shifted_"))
            assert torch.equal(plain(x), shifted(x))


def test_forms_of_separable_convolutions_agree() -> None:
    """Where the width stays, and nothing is shifted, all forms are one operation."""
    x = torch.randn(2, 4, 9, 9)
    plain = PRIMITIVES["sep_conv_5x5"](4, 4, 2).eval()
    tensors = list(plain.state_dict().values())
    for name in ("widening_sep_conv_5x5", "shifted_sep_conv_5x5"):
        other = PRIMITIVES[name](4, 4, 2).eval()
        other.load_state_dict(dict(zip(other.state_dict(), tensors, strict=True)))
        assert torch.allclose(other(x), plain(x), atol=1e-6)
