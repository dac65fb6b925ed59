"""Published points of the mobile and elastic spaces, and the laws of supernets on their other structures."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
import torch

from nas.counting import graph_cost, module_cost
from nas.network import Network
from nas.search_space import SearchSpace, space
from nas.subject import identify
from nas.supernet import Supernet

TRUTH = Path(__file__).parents[2] / "shared" / "truth" / "baselines.json"
FAMILIES = {
    "mnasnet": 7, "nas_imagenet": 4, "mobilenet_v2": 15, "mobilenet_v3": 1, "efficientnet": 1,
    "shufflenet_v2": 4, "resnet": 11, "vit": 8,
}  # fmt: skip
# A bias that the first release had by mistake; a network whose last unit is not narrowed; cells; deeper ones.
ELSEWHERE = (
    "resnet50_v1_caffe_conv1bias", "resnet18_width0.75", "nasnet_a_large_6@4032", "nasnet_a_mobile_4@1056",
    "pnasnet5_large", "efficientnet_b2", "efficientnet_b4", "efficientnet_b6",
)  # fmt: skip
IMAGENET = {"classes": 1000, "input": (3, 224, 224)}


def published() -> list[dict]:
    assert TRUTH.exists(), f"the table of published figures is missing: {TRUTH}"
    entries = json.loads(TRUTH.read_text())
    return [e for e in entries if e["family"] in FAMILIES and e["name"] not in ELSEWHERE]


def made_from(entry: dict) -> tuple[SearchSpace, str]:
    """The space at the entry's scale, and the name of its point."""
    config, family = entry["config"], entry["family"]
    scale = {"classes": entry["num_classes"], "input": entry["input_size"]}
    if family == "mobilenet_v2":
        point, more = "mobilenet_v2", {"width": config["width"], "round_to": config["round_to"]}
    elif family == "mnasnet":
        variant, _, percent = config["variant"].lower().partition("_")
        width = int(percent) / 100 if percent else config.get("width", 1.0)
        point, more = f"mnasnet_{variant}", {"width": width}
    elif family == "shufflenet_v2":
        halves = config["downsample"] == "torchvision"
        more = {"width": config["width"], "downsample": "halves" if halves else "authors"}
        return space("shufflenet?skeleton=shufflenet_v2", head_bias=halves, **more, **scale), "shufflenet_v2"
    elif family == "resnet":
        return resnet(config, scale)
    elif family == "vit":
        point = config["variant"].partition("_patch")[0]
        size = "small" if "small" in point else "vit_" + point.partition("_")[2]
        return space("vit", size=size, **scale), point
    else:
        variant = config.get("variant", f"mobilenet_v3_{config.get('size')}")
        points = {"fbnetc_100": "fbnet_c", "spnasnet_100": "spnasnet", 0: "efficientnet_b0"}
        point, more = points.get(variant, variant), {}
    skeleton = "mnasnet_b1" if point == "spnasnet" else point
    return space("mobile", skeleton=skeleton, **more, **scale), point


def resnet(config: dict, scale: dict) -> tuple[SearchSpace, str]:
    deepest = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 101: (4, 4, 23, 4), 152: (4, 8, 36, 4)}
    more = {"block": "basic" if config["depth"] < 50 else "bottleneck", "shortcut": config["shortcut"][0]}
    if config["depth"] in deepest:
        more["deepest"] = deepest[config["depth"]]
    if config["stride_in"] != "-":
        more["stride_in"] = config["stride_in"]
    return space("resnet_elastic", **more, **scale), f"resnet{config['depth']}"


def test_published_counts_are_exact() -> None:
    found: dict[str, int] = {}
    for entry in published():
        made, name = made_from(entry)
        figures = graph_cost(made.fill(made.parse(name)))
        assert (figures.params, figures.macs) == (entry["params"], entry["macs"]), entry["name"]
        if "macs_all_matmuls" in entry:
            assert figures.macs + figures.macs_attention == entry["macs_all_matmuls"], entry["name"]
        found[entry["family"]] = found.get(entry["family"], 0) + 1
    assert found == FAMILIES


def test_published_counts_of_built_modules() -> None:
    for entry in [e for e in published() if e["macs"] < 5e9][::6]:
        made, name = made_from(entry)
        with torch.device("meta"):
            network = Network(made.fill(made.parse(name)))
        counted = module_cost(network, input=tuple(entry["input_size"]))
        assert (counted.params, counted.macs) == (entry["params"], entry["macs"]), entry["name"]


@pytest.mark.parametrize(
    ("address", "name", "scale", "params"),
    [
        # pytorchcv's figures
        ("mobile", "proxylessnas_gpu", {"skeleton": "proxylessnas_gpu"}, 7_119_848),
        ("mobile", "proxylessnas_mobile", {"skeleton": "proxylessnas_mobile14"}, 6_857_568),
        # torchvision's
        ("mobile", "mnasnet_b1", {"skeleton": "mnasnet_b1", "width": 0.75}, 3_170_208),
        ("mobile?skeleton=mobilenet_v3_small", "mobilenet_v3_small", {}, 2_542_856),
        (
            "shufflenet?skeleton=shufflenet_v2",
            "shufflenet_v2",
            {"width": 0.5, "downsample": "halves", "head_bias": True},
            1_366_792,
        ),
        (
            "shufflenet?skeleton=shufflenet_v2",
            "shufflenet_v2",
            {"width": 1.5, "downsample": "halves", "head_bias": True},
            3_503_624,
        ),
        # timm's
        ("vit", "deit_tiny", {}, 5_717_416),
    ],
)
def test_further_published_counts(address: str, name: str, scale: dict, params: int) -> None:
    made = space(address, **scale, **IMAGENET)
    assert graph_cost(made.fill(made.parse(name))).params == params


def test_the_network_of_single_path_one_shot() -> None:
    """Guo et al. 2020, table 3: found by searching blocks alone, 319 million multiply-adds."""
    found, _, _ = identify("shufflenet:SPOS").cost()
    assert round(found.macs / 1e6) == 319


@pytest.mark.parametrize(
    ("what", "params"),
    [
        ("mobile:proxylessnas_cpu", 4_361_648),
        ("mobile?skeleton=mobilenet_v3_large:mobilenet_v3_large", 5_483_032),
        ("shufflenet?skeleton=shufflenet_v2:shufflenet_v2", 2_278_604),
        ("resnet_elastic:resnet50", 25_557_032),
        ("resnet_elastic?deepest=[4,4,23,4]:resnet101", 44_549_160),
        ("vit?size=small:vit_small", 22_050_664),
        ("vit?size=vit_base:deit_base", 86_567_656),
    ],
)
def test_a_published_point_is_named_with_its_space(what: str, params: int) -> None:
    found, shape, classes = identify(what).cost()
    assert (found.params, shape, classes) == (params, (3, 224, 224), 1000)


def test_sizes_are_those_of_the_papers() -> None:
    """The supernet "base" of Chen et al. 2021 has 1.7 * 10^16 networks, that of Guo et al. 2020 4^20."""
    assert space("vit", size="base").size == 9**17  # 3 widths, 3 depths, 9 kinds of each of 16 blocks
    assert space("shufflenet").size == 4**20


STRUCTURES = (
    "mobile?skeleton=mobilenet_v3_small&width=0.1&last=16",
    "mobile?skeleton=fbnet_c&width=0.1&last=16",
    "mobile?skeleton=efficientnet_b0&width=0.1&last=16",
    "shufflenet?skeleton=shufflenet_v2&width=0.125&last=16",
    "resnet_elastic?block=basic&width=0.5&deepest=[3,2,1,2]",
    "resnet_elastic?block=basic&width=0.25&deepest=[1,2,1,1]&shortcut=A",
    "resnet_elastic?width=0.125&deepest=[2,1,1,1]&shortcut=C&stride_in=1x1",
    "vit?widths=[8,12]&depths=[1,2]&heads=[1,2,3]&ratios=[2,2.5]&head_dim=4",
)


@pytest.mark.parametrize("address", STRUCTURES)
def test_other_structures_obey_the_laws_of_supernets(address: str) -> None:
    """A path equals one-hot tables, and a network that holds its weights."""
    torch.manual_seed(0)
    made = space(address, input=(3, 8, 8))
    supernet = Supernet(made).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for i in range(3):
        architecture = made.sample(Random(i))
        masks = {d.name: torch.tensor(d.mask(architecture.choices[d.name])).double() for d in made.decisions}
        network = Network(made.fill(architecture)).double().eval()
        network.load_state_dict(supernet.state_of(architecture))
        expected = supernet(x, architecture)
        for output in (supernet(x, masks), network(x)):
            assert torch.allclose(output, expected, rtol=1e-9, atol=1e-12)
        assert space(made.name).parse(architecture.literal).digest == architecture.digest


def test_a_width_is_positive() -> None:
    with pytest.raises(ValueError, match="above 0"):
        space("mobile", width=0)
