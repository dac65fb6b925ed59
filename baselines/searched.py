"""Networks that were found by search: known points of search spaces, at the sizes that were published.

DARTS_V2 (Liu, Simonyan, Yang 2019) with 36 channels and 20 cells has 3,349,342 parameters and 528,359,040
multiply-adds; NASNet-A 4 @ 1056 (Zoph et al. 2018) 5,289,978 and 568,234,858, ENAS's released cells (Pham et
al. 2018) 3,894,372 and 620,907,552, ProxylessNAS for CPUs (Cai et al. 2019) 4,361,648 and 439,243,864.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

from torch import nn

from nas.graph import Builder, Graph
from nas.network import Network
from nas.registry import unknown
from nas.search_space import SearchSpace, space
from nas.search_space.darts import notation
from nas.search_space.enas import CELLS
from nas.search_space.skeleton import Place, Scale, darts_skeleton

from .family import baseline, one_of

Skeleton = Literal["cifar", "imagenet"]
# Published with other skeletons, and put on that of DARTS by Liu et al. 2019 and by later lists of cells.
RENAMED = {"NASNet": "NASNet-A", "AmoebaNet": "AmoebaNet-A", "ENAS_paper_fig": CELLS["ENAS_paper_fig"]}
RELEASED = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 | 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"
ENDS = {"stem": "imagenet", "ends": ((0,), (3,))}  # of NASNet-A's cells
LARGE = {"channels": 168, "cells": 20, "stem_channels": 96, "skip": True, **ENDS}
MOBILE = {"channels": 44, "cells": 14, "padding": "shifted", **ENDS}
PNAS = {"channels": 216, "cells": 12, "stem": "imagenet", "stem_channels": 96}
# name -> space, point, scale. Where libraries compute the padding of NASNet differently: first as pytorchcv.
IMAGENET: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "nasnet_a_large_6@4032": ("nasnet", "NASNet-A", {**LARGE, "padding": "shifted"}),
    "nasnet_a_mobile_4@1056": ("nasnet", "NASNet-A", MOBILE),
    "pnasnet5_large": ("pnas", "PNASNet-5", PNAS),
    **{
        f"proxylessnas_{device}": ("mobile", f"proxylessnas_{device}", {"skeleton": f"proxylessnas_{device}"})
        for device in ("cpu", "gpu", "mobile")
    },
    "proxylessnas_mobile14": ("mobile", "proxylessnas_mobile", {"skeleton": "proxylessnas_mobile14"}),
    "fbnetc_100": ("mobile?skeleton=fbnet_c", "fbnet_c", {}),
    "spnasnet_100": ("mobile", "spnasnet", {"skeleton": "mnasnet_b1"}),
    # as timm has them
    "nasnetalarge": ("nasnet", "NASNet-A", LARGE),
    **{
        f"{name}_{percent:03}": ("mobile", point, {"skeleton": point, "width": percent / 100})
        for name, point in (("semnasnet", "mnasnet_a1"), ("mnasnet", "mnasnet_b1"))
        for percent in (50, 75, 100, 140)
    },
    "mnasnet_small": ("mobile", "mnasnet_small", {"skeleton": "mnasnet_small"}),
}
SAME = {  # further names of libraries -> ours
    "nasnet_6a4032": "nasnet_a_large_6@4032",
    "nasnet_4a1056": "nasnet_a_mobile_4@1056",
    "nasnetamobile": "nasnet_a_mobile_4@1056",
    "pnasnet5large": "pnasnet5_large",
    "fbnet_cb": "fbnetc_100",
    "spnasnet": "spnasnet_100",
}


@baseline(small={"C": 4, "layers": 3, "aux": True, "classes": 5, "input": (3, 32, 32)})
def darts_cell_network(
    *,
    genotype: str = "DARTS_V2",
    C: int = 36,
    layers: int = 20,
    skeleton: Skeleton = "cifar",
    aux: bool = False,
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """Cells on the skeleton of DARTS, on which most searched cells are compared (Liu et al. 2019, section 3).

    genotype: a name that the space `darts` knows, NASNet, AmoebaNet or ENAS_paper_fig; or a literal,
    ``Genotype(normal=[(operation, input), ...], normal_concat=..., reduce=..., reduce_concat=...)``.
    C: channels of the first cells; the cells at one third and two thirds of the `layers` double them.
    skeleton: ``cifar`` or, with three convolutions of stride 2 in front, ``imagenet`` (the paper: C 48, 14
    layers). aux: a second classifier for training. Weights start as PyTorch has it, as in the paper's code.
    Raises ValueError for a name that there is not, and for a literal that describes no cells.
    """
    one_of("skeleton", skeleton, get_args(Skeleton))
    sizes = {"channels": C, "cells": layers, "stem": skeleton, "auxiliary": aux}
    text = RENAMED.get(genotype, genotype)
    graph = next(_points(text, {**sizes, "classes": classes, "input": _shape(input)}), None)
    cells = None if graph else notation(genotype)
    if cells is not None:
        size = Scale(C, layers, classes, skeleton, aux)
        graph = darts_skeleton(Builder(_shape(input)), partial(_cell, cells=tuple(cells.values())), size)
    if graph is None:
        raise ValueError(unknown("genotype", genotype, (*RENAMED, *space("darts").known)))
    return Network(graph)


def _points(text: str, scale: Mapping[str, Any]) -> Iterator[Graph]:
    """The network, from each space that holds those cells."""
    for address in ("darts", "nasnet?skeleton=darts", "amoebanet?skeleton=darts"):
        made = space(address, **scale)
        try:
            found = made.parse(text)
        except ValueError:
            continue
        yield made.fill(found)


def _cell(b: Builder, place: Place, *, cells: Sequence[tuple[list[tuple[str, int]], list[int]]]) -> str:
    """Write a cell as its genotype has it: for those that are in no space, of other nodes or outputs.

    `cells`: of the normal and the reduction cell the (operation, state) pairs, two a node, and the states
    that are concatenated. Raises ValueError for a state that is not there.
    """
    pairs, joined = cells[place.reduce]
    name, width = place.name, place.width
    before = b(f"{name}.pre0", "preprocess", place.before, out=width, stride=2 if place.shrunk else 1)
    states = [before, b(f"{name}.pre1", "preprocess", place.last, out=width)]
    for first in range(0, len(pairs), 2):
        node, edges = len(states), []
        for half, (op, state) in enumerate(pairs[first : first + 2]):
            _there(f"node {node} of a genotype reads", [state], node)
            stride = 2 if place.reduce and state < 2 else 1
            edges.append(b(f"{name}.edge{half}_{node}", op, states[state], out=width, stride=stride))
        states.append(b(f"{name}.node{node}", "sum", *edges))
    _there("a genotype concatenates", joined, len(states))
    return b(f"{name}.out", "concat", *(states[state] for state in joined))


def _there(what: str, states: Sequence[int], count: int) -> None:
    if not states or not set(states) <= set(range(count)):
        raise ValueError(f"{what} some of the states 0 to {count - 1}, not {list(states)}")


@baseline(small={"out_filters": 4, "num_layers": 3, "aux": True, "classes": 5, "input": (3, 32, 32)})
def enas_micro(
    *,
    out_filters: int = 36,
    num_layers: int = 15,
    total_cells: int | None = None,
    fixed_arc: str = RELEASED,
    aux: bool = False,
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """Cells on ENAS's own skeleton (Pham et al. 2018, section 3.2); names are those of the authors' code.

    out_filters: channels of the first cells. num_layers: cells that keep the size; total_cells: with the two
    that halve it, num_layers + 2. fixed_arc: for each node of the normal and then of the reduction cell a
    state and an operation, twice; by default the released cells. aux: a second classifier for training.
    Weights start as PyTorch has it. Raises ValueError for numbers that do not fit, or that make no cells.
    """
    if total_cells not in (None, num_layers + 2):
        raise ValueError(f"total_cells is num_layers + 2, {num_layers + 2} here, not {total_cells}")
    made = space(
        "enas_micro",
        channels=out_filters,
        cells=num_layers + 2,
        auxiliary=aux,
        classes=classes,
        input=_shape(input),
    )
    return _network(made, fixed_arc)


@baseline(small={"C": 4, "N": 1, "classes": 5, "input": (3, 16, 16)})
def nasbench201(
    *,
    arch: str = "best",
    C: int = 16,
    N: int = 5,
    genotype: str | None = None,
    classes: int = 10,
    input: Sequence[int] = (3, 32, 32),
) -> nn.Module:
    """A network of NAS-Bench-201 (Dong & Yang 2020, section 2.1).

    arch: a cell in the benchmark's notation, ``|nor_conv_3x3~0|+|...``, or a name that the space knows. C:
    channels of the first stage. N: cells of a stage. genotype: the cell, where `arch` is the name of one that
    is not known here. Weights start as PyTorch has it. Raises ValueError for what is no cell.
    """
    made = space("nasbench201", channels=C, cells=N, classes=classes, input=_shape(input))
    return _network(made, genotype or arch)


@baseline(small={"variant": "mnasnet_small", "classes": 5, "input": (3, 64, 64)})
def nas_imagenet(
    *,
    variant: str = "nasnet_a_mobile_4@1056",
    classes: int = 1000,
    input: Sequence[int] = (3, 224, 224),
) -> nn.Module:
    """A network for ImageNet that was found by search, by its published name.

    variant: NASNet-A (Zoph et al. 2018; the large one is published for 331x331 pixels), PNASNet-5 (Liu et
    al. 2018; 331x331), ProxylessNAS (Cai et al. 2019), FBNet-C (Wu et al. 2019), Single-Path NAS (Stamoulis
    et al. 2019) or MnasNet (Tan et al. 2019), as pytorchcv and timm name them. Where libraries pad in
    different ways, their names do too: ``nasnetalarge`` is timm's. Weights start as PyTorch has it. Raises
    ValueError for a name that there is not.
    """
    name = SAME.get(variant, variant)
    if name not in IMAGENET:
        raise ValueError(unknown("network for ImageNet", variant, (*IMAGENET, *SAME)))
    address, point, scale = IMAGENET[name]
    return _network(space(address, **scale, classes=classes, input=_shape(input)), point)


def _network(made: SearchSpace, text: str) -> Network:
    return Network(made.fill(made.parse(text)))


def _shape(input: Sequence[int]) -> tuple[int, int, int]:
    channels, height, width = input
    return channels, height, width
