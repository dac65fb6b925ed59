"""Blocks: the published arithmetic of each and of networks made of them, what they compute, and that a
narrower one is a part of a wider one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from nas.counting import module_cost
from nas.primitives import PRIMITIVES
from nas.primitives.gates import CondConv, DeformableConv, NonLocal, SelectiveKernel, squeeze_width
from nas.primitives.shuffle import interleave

# The table of exact counts beside the repository.
TABLE = Path(__file__).parents[2] / "shared" / "truth" / "baselines.json"
ENTRIES = [row for row in json.loads(TABLE.read_text()) if row["kind"] == "block"]
Config = dict[str, Any]


class Row(NamedTuple):
    """A primitive and its arguments. `built`: whether the module is built and counted too."""

    primitive: str
    c_in: int
    c_out: int
    attributes: Mapping[str, Any] = MappingProxyType({})
    built: bool = True


# op -> the primitive that a config of it describes
ROWS: dict[str, Callable[[Config], Row]] = {
    "inception_naive": lambda c: Row(
        "inception_naive",
        c["c_in"],
        c["b1"] + c["b3"] + c["b5"] + c["c_in"],
        {"b1": c["b1"], "b3": c["b3"], "b5": c["b5"], "norm": "none"},
    ),
    "inception": lambda c: Row(
        "inception",
        c["c_in"],
        c["b1"] + c["b3"] + c["b5"] + c["pool_proj"],
        {name: c[name] for name in ("b1", "r3", "b3", "r5", "b5", "pool_proj")} | {"norm": "none"},
    ),
    "conv": lambda c: Row(
        "conv_bn",
        c["c_in"],
        c["c_out"],
        {"kernel": c.get("k") or c["kernel"], "bias": c.get("bias", False), "norm": "none"},
        built="k" in c,  # an even kernel has no middle: of that entry only the arithmetic is ours
    ),
    "depthwise_separable": lambda c: Row(
        "depthwise_separable", c["c_in"], c["c_out"], {"kernel": c["k"], "norm": "none"}
    ),
    "squeeze_excite": lambda c: Row(
        "squeeze_excite", c["c"], c["c"], {"reduction": c["r"], "bias": c["bias"]}
    ),
    "fire": lambda c: Row("fire", c["c_in"], c["e1"] + c["e3"], {"squeeze": c["s"], "wide": c["e3"]}),
    "inverted_residual": lambda c: Row("inverted_residual", c["c_in"], c["c_out"], {"expand": c["t"]}),
    "shuffle_v1": lambda c: Row("shuffle_v1", c["c"], c["c"], {"groups": c["g"]}),
    "shuffle_v2": lambda c: Row("shuffle_v2", c["c"], c["c"]),
    "selective_kernel": lambda c: Row(
        "selective_kernel",
        c["c"],
        c["c"],
        {"paths": c["M"], "groups": c["G"], "reduction": c["r"], "least": c["L"]},
    ),
    "condconv": lambda c: Row(
        "condconv", c["c_in"], c["c_out"], {"kernel": c["k"], "experts": c["n"], "norm": "none"}
    ),
    "deformable_v1": lambda c: Row(
        "deformable_conv_v1",
        c["c_in"],
        c["c_out"],
        {"kernel": c["k"], "offset_groups": c["offset_groups"], "norm": "none"},
    ),
    "non_local": lambda c: Row("non_local", c["c"], c["c"]),
    "bottleneck": lambda c: Row("bottleneck_block", c["c"], c["c"], {"expansion": c["mid"] / c["c"]}),
    "basic": lambda c: Row("basic_block", c["c"], c["c"]),
    "resnext": lambda c: Row(
        "resnext_block", c["c"], c["c"], {"cardinality": c["cardinality"], "width": c["width"]}
    ),
    "linear": lambda c: Row("linear", c["inputs"], c["outputs"], {"bias": c["bias"]}, built=False),
    "multihead_attention": lambda c: Row(
        "multihead_attention", c["d"], c["d"], {"heads": c["heads"], "bias": c["bias"]}
    ),
    "transformer_encoder_layer": lambda c: Row(
        "encoder_layer", c["d"], c["d"], {"mlp_ratio": c["ff"] / c["d"]}
    ),
    "vit_block": lambda c: Row("vit_block", c["d"], c["d"], {"mlp_ratio": c["ff"] / c["d"]}),
}

ELSEWHERE = {  # operations of sequences, sums of blocks and ratios: no primitives of images
    *("rnn", "lstm", "gru"),
    *("transformer_decoder_layer", "transformer_stack", "torch_nn_transformer", "transformer_with_embedding"),
    *("mixture_of_experts", "locally_connected", "weights_ratio"),
}


OURS = [pytest.param(entry, id=entry["name"]) for entry in ENTRIES if entry["config"]["op"] in ROWS]


@pytest.mark.parametrize("entry", OURS)
def test_published_arithmetic(entry: dict[str, Any]) -> None:
    """Parameters and, where published, multiply-adds with those of attention, closed form and counted."""
    config = entry["config"]
    row = ROWS[config["op"]](config)
    primitive, size = PRIMITIVES[row.primitive], (config.get("h", 1), config.get("w", 1))
    tally = primitive.tally(row.c_in, *size, row.c_out, **row.attributes)
    assert tally.params == entry["params"]
    assert entry["macs"] in (None, tally.macs + tally.attention)
    if row.built:
        with torch.device("meta"):
            module = primitive(row.c_in, row.c_out, **row.attributes)
        counts = module_cost(module, input=(row.c_in, *size))
        assert (counts.params, counts.macs, counts.macs_attention) == (
            tally.params,
            tally.macs,
            tally.attention,
        )


def test_every_operation_of_the_table_has_a_row_or_is_elsewhere() -> None:
    unknown = {entry["config"]["op"] for entry in ENTRIES} - set(ROWS) - ELSEWHERE
    assert not unknown
    assert not ELSEWHERE & set(ROWS)


# Networks made of the blocks: rows of (primitive, channels out, stride of the first, how many, attributes).
Stage = tuple[str, int, int, int, Mapping[str, Any]]


def stage(name: str, out: int, stride: int = 1, number: int = 1, **attributes: Any) -> Stage:
    return name, out, stride, number, attributes


def network(*stages: Stage, classes: int = 1000, **head: Any) -> tuple[int, int]:
    """Parameters and multiply-adds of the stages in a row and a classifier, on an image of 224 x 224."""
    shape, params, macs = (3, 224, 224), 0, 0
    end = stage("global_avg_pool", stages[-1][1]), stage("linear", classes, **head)
    for name, out, stride, number, attributes in (*stages, *end):
        for i in range(number):
            step = 1 if i else stride
            PRIMITIVES[name].check(shape[0], out, step, size=min(shape[1:]), **attributes)
            tally = PRIMITIVES[name].tally(*shape, out, step, **attributes)
            params, macs, shape = params + tally.params, macs + tally.macs, (tally.c, tally.h, tally.w)
    return params, macs


def inverted(rows: str, **given: Any) -> tuple[int, int]:
    """A stem, stages of "kernel-stride-expand-out-number", "s": with a squeeze of a quarter, and an end."""
    stages = [stage("conv_bn", 32, 2)]
    for row in rows.split():
        kernel, stride, expand, out, number = map(int, row.rstrip("s").split("-"))
        more = {"kernel": kernel, "expand": expand, "se": 0.25 * row.endswith("s"), **given}
        stages.append(stage("inverted_residual", out, stride, number, **more))
    return network(*stages, stage("conv_bn", 1280, kernel=1))


def mobilenet_v1() -> tuple[int, int]:
    rows = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2))
    return network(stage("conv_bn", 32, 2), *(stage("depthwise_separable", *row) for row in rows))


def mobilenet_v3_large() -> tuple[int, int]:
    """Rows of kernel, hidden width, channels out, whether squeezed, stride (Howard et al. 2019, table 1)."""
    rows = (
        (3, 16, 16, 0, 1), (3, 64, 24, 0, 2), (3, 72, 24, 0, 1), (5, 72, 40, 1, 2), (5, 120, 40, 1, 1),
        (5, 120, 40, 1, 1), (3, 240, 80, 0, 2), (3, 200, 80, 0, 1), (3, 184, 80, 0, 1), (3, 184, 80, 0, 1),
        (3, 480, 112, 1, 1), (3, 672, 112, 1, 1), (5, 672, 160, 1, 2), (5, 960, 160, 1, 1),
        (5, 960, 160, 1, 1),
    )  # fmt: skip
    stages = [stage("conv_bn", 16, 2)]
    for kernel, hidden, out, squeezed, stride in rows:
        more = {"kernel": kernel, "expand": hidden / stages[-1][1], "se": squeezed / 4}
        stages.append(stage("inverted_residual", out, stride, se_of="hidden", se_round=8, **more))
    end = stage("global_avg_pool", 960), stage("linear", 1280)
    return network(*stages, stage("conv_bn", 960, kernel=1), *end)


def shufflenet_v1(groups: int, width: int, bias: bool) -> tuple[int, int]:
    unit = "shuffle_v1"
    return network(
        stage("conv_bn", 24, 2),
        stage("max_pool", 24, 2),
        stage(unit, width, 2, groups=groups, first_group=False),
        stage(unit, width, 1, 3, groups=groups),
        stage(unit, 2 * width, 2, 8, groups=groups),
        stage(unit, 4 * width, 2, 4, groups=groups),
        bias=bias,
    )


def shufflenet_v2(downsample: str, bias: bool) -> tuple[int, int]:
    rows = ((116, 2, 4), (232, 2, 8), (464, 2, 4))
    units = [stage("shuffle_v2", *row, downsample=downsample) for row in rows]
    stem = stage("conv_bn", 24, 2), stage("max_pool", 24, 2)
    return network(*stem, *units, stage("conv_bn", 1024, kernel=1), bias=bias)


def googlenet(name: str, modules: str, **given: Any) -> tuple[int, int]:
    """A stem, and modules of "b1-r3-b3-r5-b5-pool"; "+": at stride 2, "|": a pooling."""
    stages = [stage("conv_bn", 64, 2, kernel=7, **given), stage("max_pool", 64, 2)]
    stages += [
        stage("conv_bn", 64, kernel=1, **given),
        stage("conv_bn", 192, **given),
        stage("max_pool", 192, 2),
    ]
    for module in modules.split():
        last = stages[-1][1]
        if module == "|":
            stages.append(stage("max_pool", last, 2))
            continue
        b1, r3, b3, r5, b5, pool_proj = map(int, module.strip("+").split("-"))
        widths = {"b1": b1, "r3": r3, "b3": b3, "r5": r5, "b5": b5, "pool_proj": pool_proj}
        out, stride = b1 + b3 + b5 + (pool_proj or last), 2 if module.startswith("+") else 1
        stages.append(stage(name, out, stride, **widths, **given))
    return network(*stages)


V1_MODULES = (
    "64-96-128-16-32-32 128-128-192-32-96-64 | 192-96-208-16-48-64 160-112-224-24-64-64 128-128-256-24-64-64 "
    "112-144-288-32-64-64 256-160-320-32-128-128 | 256-160-320-32-128-128 384-192-384-48-128-128"
)
V2_MODULES = (
    "64-64-64-64-96-32 64-64-96-64-96-64 +0-128-160-64-96-0 224-64-96-96-128-128 192-96-128-96-128-128 "
    "160-128-160-128-160-128 96-128-192-160-192-128 +0-128-192-192-256-0 352-192-320-160-224-128 "
    "352-192-320-192-224-128"
)
PUBLISHED = {
    "MobileNet": (mobilenet_v1, 4_231_976, 568_740_352),
    "MobileNetV2": (
        lambda: inverted("3-1-1-16-1 3-2-6-24-2 3-2-6-32-3 3-2-6-64-4 3-1-6-96-3 3-2-6-160-3 3-1-6-320-1"),
        3_504_872,
        300_774_272,
    ),
    "MnasNet-A1": (
        lambda: inverted(
            "3-1-1-16-1 3-2-6-24-2 5-2-3-40-3s 3-2-6-80-4 3-1-6-112-2s 5-2-6-160-3s 3-1-6-320-1"
        ),
        3_887_038,
        311_579_072,
    ),
    "EfficientNet-B0": (
        lambda: inverted(
            "3-1-1-16-1s 3-2-6-24-2s 5-2-6-40-2s 3-2-6-80-3s 5-1-6-112-3s 5-2-6-192-4s 3-1-6-320-1s",
            se_act="silu",
        ),
        5_288_548,
        385_814_752,
    ),
    "MobileNetV3-Large": (mobilenet_v3_large, 5_483_032, 216_589_760),
    "ShuffleNet 1x, g = 3": (lambda: shufflenet_v1(3, 240, bias=False), 1_864_728, 137_460_672),
    "ShuffleNet 1x, g = 8": (lambda: shufflenet_v1(8, 384, bias=False), 2_433_768, 138_365_952),
    "ShuffleNetV2 1x, halves": (lambda: shufflenet_v2("halves", bias=True), 2_278_604, 144_907_992),
    "ShuffleNetV2 1x, authors": (lambda: shufflenet_v2("authors", bias=False), 2_278_760, 145_814_296),
    "GoogLeNet": (
        lambda: googlenet("inception", V1_MODULES, norm="none", bias=True),
        6_998_552,
        1_582_671_872,
    ),
    "BN-Inception": (lambda: googlenet("inception_v2", V2_MODULES, bias=True), 11_295_240, 2_032_600_064),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_blocks_add_up_to_published_networks(name: str) -> None:
    count, params, macs = PUBLISHED[name]
    assert count() == (params, macs)


SQUEEZES = [
    {"se": 0.5, "expand": expand, "se_of": of, "se_round": multiple, "kernel": 5}
    for expand, of, multiple in product((1, 3.5), ("input", "hidden"), (1, 8))
]


@pytest.mark.parametrize("given", SQUEEZES, ids=str)
@pytest.mark.parametrize("name", ["inverted_residual", "fused_inverted_residual"])
def test_squeezes_are_counted_at_every_width(name: str, given: Config) -> None:
    module, tally = PRIMITIVES[name](20, 12, 2, **given), PRIMITIVES[name].tally(20, 9, 9, 12, 2, **given)
    counts = module_cost(module, input=(20, 9, 9))
    assert (tally.params, tally.macs) == (counts.params, counts.macs)


def test_squeeze_widths_of_mobilenet_v3() -> None:
    """From its hidden widths, as published: a quarter, in eights, never less than nine tenths of that."""
    assert [squeeze_width(c, 0.25, 8) for c in (72, 120, 480, 672, 960)] == [24, 32, 120, 168, 240]


def test_without_expansion_it_is_a_depthwise_separable_convolution_with_a_linear_end() -> None:
    x = torch.randn(2, 8, 7, 7)
    inverted, separable = (
        PRIMITIVES["inverted_residual"](8, 12, expand=1, act="relu"),
        PRIMITIVES["depthwise_separable"](8, 12),
    )
    separable.load_state_dict(dict(zip(separable.state_dict(), inverted.state_dict().values(), strict=True)))
    assert torch.equal(inverted(x).relu(), separable(x))


@pytest.mark.parametrize("name", ["inverted_residual", "fused_inverted_residual"])
def test_an_inverted_residual_adds_its_input_only_where_the_shape_stays(name: str) -> None:
    x = torch.randn(2, 8, 7, 7)
    for given, c_out, stride, kept in (
        ({}, 8, 1, x),
        ({"residual": False}, 8, 1, torch.zeros(2, 8, 7, 7)),
        ({}, 12, 1, torch.zeros(2, 12, 7, 7)),
        ({}, 8, 2, torch.zeros(2, 8, 4, 4)),
    ):
        module = PRIMITIVES[name](8, c_out, stride, **given)
        nn.init.zeros_(module.project[-1].weight)  # the scale of the last norm
        assert torch.equal(module(x), kept)


def sample(plane: Tensor, y: float, x: float) -> Tensor:
    """The channels of (c, h, w) at a point between pixels; outside there is zero."""
    total, top, left = torch.zeros_like(plane[:, 0, 0]), int(y // 1), int(x // 1)
    for row, column in product((top, top + 1), (left, left + 1)):
        if 0 <= row < plane.shape[1] and 0 <= column < plane.shape[2]:
            total = total + plane[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


@pytest.mark.parametrize(("stride", "kernel", "modulated"), [(1, 3, False), (2, 3, True), (2, 5, False)])
def test_a_deformable_convolution_reads_where_its_offsets_point(
    stride: int, kernel: int, modulated: bool
) -> None:
    """Against the sum over taps, one by one."""
    torch.manual_seed(0)
    module = DeformableConv(4, 3, stride, kernel=kernel, groups=2, modulated=modulated).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    y, offsets = module(x)[0], module.offset(x)[0].unflatten(0, (2, 2, kernel, kernel))
    weights = torch.ones_like(offsets[:, 0])
    if module.modulation is not None:
        weights = module.modulation(x)[0].sigmoid().unflatten(0, (2, kernel, kernel))
    for row, column in product(range(y.shape[1]), range(y.shape[2])):
        found = torch.zeros(3, dtype=torch.float64)
        for group, i, j in product((0, 1), range(kernel), range(kernel)):
            down, right = offsets[group, :, i, j, row, column].tolist()
            at = (row * stride + i - kernel // 2 + down, column * stride + j - kernel // 2 + right)
            seen = sample(x[0, 2 * group : 2 * group + 2], *at) * weights[group, i, j, row, column]
            found += module.conv.weight[:, 2 * group : 2 * group + 2, i, j] @ seen
        assert torch.allclose(found, y[:, row, column])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_deformable_convolution_starts_as_an_ordinary_one(stride: int) -> None:
    x = torch.randn(2, 4, 9, 8)
    for modulated, weight in ((False, 1.0), (True, 0.5)):
        module = DeformableConv(4, 6, stride, kernel=3, groups=1, modulated=modulated)
        ordinary = nn.functional.conv2d(x, module.conv.weight, stride=stride, padding=1)
        assert torch.allclose(module(x), weight * ordinary, atol=1e-5)


def test_a_deformable_convolution_knows_its_places_in_half_precision() -> None:
    module, x = DeformableConv(2, 3, 1, kernel=3, groups=1, modulated=True), torch.randn(1, 2, 4, 700)
    assert torch.allclose(module.bfloat16()(x.bfloat16()).float(), module.float()(x), atol=0.1)


def test_a_conditional_convolution_mixes_kernels_for_each_example() -> None:
    module, x = CondConv(4, 6, 2, kernel=3, experts=3).double(), torch.randn(5, 4, 7, 8).double()
    routes = module.routing(x.mean(dim=(2, 3))).sigmoid()
    each = [nn.functional.conv2d(x, expert, stride=2, padding=1) for expert in module.experts]
    mixed = sum(route[:, None, None, None] * y for route, y in zip(routes.T, each, strict=True))
    assert torch.allclose(module(x), mixed)


def test_a_selective_kernel_without_preference_is_the_mean_of_its_paths() -> None:
    module = SelectiveKernel(4, 6, 2, True, paths=3, groups=2, width=8).eval()
    for select in module.select:
        nn.init.zeros_(select.weight)
    x = torch.randn(2, 4, 9, 9)
    assert torch.allclose(module(x), sum(path(x) for path in module.paths) / 3, atol=1e-6)


def test_a_non_local_block_knows_no_places() -> None:
    """Pixels in another order give the same output in that order, though each depends on all."""
    module, x = NonLocal(6, 3).double().eval(), torch.randn(2, 6, 20, dtype=torch.float64)
    order = torch.randperm(20)
    y, shuffled = module(x.view(2, 6, 4, 5)), module(x[:, :, order].view(2, 6, 4, 5))
    assert torch.allclose(y.flatten(2)[:, :, order], shuffled.flatten(2))
    x.requires_grad_()
    module(x.view(2, 6, 4, 5))[0, :, 0, 0].sum().backward()
    assert (x.grad[0] != 0).all()


def test_the_channel_shuffle_takes_from_each_group_in_turn() -> None:
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert interleave(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_a_naive_inception_module_passes_its_input_on() -> None:
    x = torch.rand(1, 3, 5, 5)
    y = PRIMITIVES["inception_naive"](3, 10, norm="none")(x)
    assert torch.equal(y[:, 7:], nn.functional.max_pool2d(x, 3, 1, 1))


def test_inception_shares_are_those_of_the_first_published_module() -> None:
    widths = {"b1": 64, "r3": 96, "b3": 128, "r5": 16, "b5": 32, "pool_proj": 32}
    shared, given = (PRIMITIVES["inception"].tally(192, 28, 28, 256, **each) for each in ({}, widths))
    assert (shared.params, shared.macs) == (given.params, given.macs)


@pytest.mark.parametrize(
    ("name", "c_out", "given", "why"),
    [
        ("inception", 3, {}, "cannot be divided"),
        ("inception", 16, {"b1": 8, "b3": 8, "b5": 8, "pool_proj": 8}, "32 channels, not 16"),
        ("inception_naive", 8, {}, "passes its 8 channels on"),
        ("inception_resnet_a", 8, {"b5": 0}, "positive"),
        ("inverted_residual", 8, {"kernel": 4}, "odd"),
        ("inverted_residual", 8, {"se": 2.0}, "fraction"),
        ("inverted_residual", 8, {"expand": 0.01}, "hidden"),
        ("shuffle_v1", 7, {}, "conv_1x1"),
        ("shuffle_v1", 15, {"groups": 2}, "must divide"),
        ("shuffle_v2", 9, {}, "even"),
        ("shuffle_v2", 6, {"downsample": "authors"}, "main path"),
        ("fire", 8, {"wide": 8}, "positive"),
        ("selective_kernel", 9, {"groups": 4}, "must divide"),
        ("selective_kernel", 8, {"paths": 0}, "paths is a count"),
        ("condconv", 8, {"experts": 0}, "experts is a count"),
        ("deformable_conv", 8, {"offset_groups": 3}, "must divide"),
        ("squeeze_excite", 8, {"reduction": 0}, "reduction is a count"),
        ("non_local", 8, {"reduction": 0}, "reduction is a count"),
    ],
)
def test_impossible_numbers_are_refused(name: str, c_out: int, given: Config, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PRIMITIVES[name](8, c_out, **given)


@pytest.mark.parametrize(
    ("name", "narrow", "wide"),
    [
        ("depthwise_separable", {"kernel": 3}, {"kernel": 7}),
        ("inverted_residual", {"kernel": 3, "expand": 3, "se": 0.25}, {"kernel": 7, "expand": 6, "se": 0.5}),
        ("inverted_residual", {"expand": 1}, {"expand": 6, "se": 0.25}),
        ("fused_inverted_residual", {"expand": 2}, {"kernel": 5, "expand": 6}),
        ("shuffle_v2", {"expand": 0.5}, {"kernel": 7, "expand": 1.5}),
        ("shuffle_xception", {"expand": 0.5}, {"kernel": 5, "expand": 1.5}),
        ("fire", {"squeeze": 2}, {"squeeze": 6}),
        ("selective_kernel", {"paths": 2, "least": 8}, {"paths": 3}),
        ("condconv", {"experts": 2}, {"experts": 8, "kernel": 5}),
        ("inception", {"r3": 2, "r5": 2}, {"r3": 5, "r5": 5}),
        ("inception_resnet_a", {"b1": 2, "m5": 2}, {"b1": 5, "m5": 5}),
    ],
)
def test_a_narrower_block_is_a_part_of_a_wider_one(name: str, narrow: Config, wide: Config) -> None:
    """By the names and sizes of its tensors, for channels in and out too."""
    small, large = PRIMITIVES[name](8, 12, 2, **narrow), PRIMITIVES[name](12, 16, 2, **wide)
    tensors = dict(large.named_parameters())
    for each, tensor in small.named_parameters():
        assert all(a <= b for a, b in zip(tensor.shape, tensors[each].shape, strict=True)), each
