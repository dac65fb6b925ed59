"""Laws of pictures and trees: nothing is drawn over anything, nothing is left out, figures add up."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from conftest import over
from torch import Tensor, nn

from nas import hand_designed
from nas.counting import cost, graph_cost
from nas.graph import JOINS, Builder, Hole
from nas.isomorphism import IDENTITIES
from nas.report import Outline, figure, module_outline, outline, save, text
from nas.report.cell import decision_groups, operation
from nas.report.draw import scene
from nas.report.items import total
from nas.report.kinds import KINDS, kind_of, look
from nas.report.scene import DARK, INK, Extent, Scene
from nas.search_space import SPACES, Architecture, Decision, SearchSpace, space

KNOWN = [(name, point) for name in SPACES for point in space(name).known]


def chain(blocks: int = 3) -> SearchSpace:
    """A space without repeated cells: every block branches, with decisions of its own, widths among them."""
    b, decisions = Builder((3, 32, 32)), []
    x = b("stem", "conv_bn_3x3", "input", out=16)
    for i in range(blocks):
        decisions.append(Decision(f"block{i}.op", ("nor_conv_3x3", "nor_conv_1x1")))
        decisions.append(Decision(f"block{i}.width", (16, 32)))
        op, width = Hole(f"block{i}.op"), Hole(f"block{i}.width")
        y = b(f"blocks.{i}.op", op, x, out=width)
        z = b(f"blocks.{i}.short", "linear_conv_1x1", x, out=width)
        x = b(f"blocks.{i}.sum", "sum", y, z)
    b("pool", "global_avg_pool", x)
    b("classifier", "linear", "pool", out=10)
    return SearchSpace(tuple(decisions), b.graph())


def skips(layers: int = 6) -> SearchSpace:
    """Layers that may add the output of each earlier one."""
    b, decisions = Builder((3, 32, 32)), []
    states = [b("stem", "conv_bn_3x3", "input", out=8)]
    for i in range(layers):
        decisions += [
            Decision(f"op{i}", ("conv_3x3", "sep_conv_3x3")),
            Decision(f"skip{i}", (0, 1), rows=i + 1, keep=i + 1),
        ]
        y = b(f"layers.{i}.op", Hole(f"op{i}"), states[-1], out=8)
        arcs = [
            b(f"layers.{i}.skip{j}", "identity", s, when=Hole(f"skip{i}", j, 1)) for j, s in enumerate(states)
        ]
        states.append(b(f"layers.{i}.sum", "sum", y, *arcs))
    b("classifier", "linear", b("pool", "global_avg_pool", states[-1]), out=10)
    return SearchSpace(tuple(decisions), b.graph())


def flat() -> SearchSpace:
    """Branches written without any groups."""
    b = Builder((3, 16, 16))
    stem = b("stem", "conv_bn_3x3", "input", out=8)
    left = b("left", Hole("op"), stem, out=8)
    right = b("right", "conv_1x1", stem, out=8)
    far = b("far", "max_pool_3x3", stem)
    b("classifier", "linear", b("pool", "global_avg_pool", b("all", "concat", left, right, far)), out=10)
    return SearchSpace((Decision("op", ("conv_3x3", "conv_5x5")),), b.graph())


OWN = [chain(2), chain(9), skips(), flat()]


def small(name: str) -> SearchSpace:
    return space(name, **SPACES.facts(name).get("small", {}))


def published(name: str, point: str) -> tuple[SearchSpace, Architecture]:
    """A known point at the scale of its publication."""
    made = space(name, **SPACES.facts(name).get("network", {}))
    made = made.resized(**made.known_scale.get(point, {}))
    return made, made.parse(point)


def points(made: SearchSpace, samples: int = 3) -> list[Architecture]:
    """The first known points of a space, and random ones."""
    rng = Random(0)
    return [made.parse(name) for name in list(made.known)[:2]] + [made.sample(rng) for _ in range(samples)]


# --- nothing is drawn over anything ------------------------------------------------------------------------


def covers(a: Extent, b: Extent, slack: float = 1e-3) -> bool:
    """Whether two rectangles share more than a rim."""
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def inside(a: Extent, b: Extent) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def assert_clear(drawn: Scene) -> None:
    """Boxes and texts apart, texts within their boxes, edges clear of what they do not join."""
    boxes = [box for box in drawn.boxes if not box.ground]
    extents = [box.extent for box in boxes]
    for a, b in itertools.combinations(extents, 2):
        assert not covers(a, b)
    texts = [label.extent for label in drawn.labels]
    for (a, one), (b, other) in itertools.combinations(zip(texts, drawn.labels, strict=True), 2):
        assert not covers(a, b), (one.text, other.text)
    free = []
    for extent, label in zip(texts, drawn.labels, strict=True):
        touched = [box for box in extents if covers(extent, box)]
        assert not touched or (len(touched) == 1 and inside(extent, touched[0])), label.text
        free += [] if touched else [extent]
    for extent in [*extents, *texts]:
        assert inside(extent, (0.0, 0.0, drawn.width, drawn.height))
    for edge in drawn.edges:
        assert edge.ends
        assert all(end in boxes for end in edge.ends)
        foreign = [box.extent for box in boxes if box not in edge.ends] + free
        x, y = np.array(edge.points()).T
        for left, top, right, bottom in foreign:
            hit = (x > left + 1e-3) & (x < right - 1e-3) & (y > top + 1e-3) & (y < bottom - 1e-3)
            assert not hit.any(), (left, top, right, bottom)
        assert x.min() >= 0
        assert x.max() <= drawn.width


@pytest.mark.parametrize("name", SPACES)
def test_nothing_is_drawn_over_anything(name: str) -> None:
    made = small(name)
    for architecture in points(made):
        assert_clear(scene(outline(made, architecture)))


@pytest.mark.parametrize("made", OWN, ids=["chain2", "chain9", "skips", "flat"])
def test_spaces_of_ones_own_are_drawn_clearly(made: SearchSpace) -> None:
    for architecture in points(made):
        assert_clear(scene(outline(made, architecture)))


def test_an_edge_through_a_box_is_found() -> None:
    """The law itself: it sees what it is there for."""
    drawn = scene(outline(*published("darts", "DARTS_V2")))
    crossed = drawn.edges[-1]
    drawn.edges.append(type(crossed)(crossed.start, (((drawn.width / 2, drawn.height / 2),),), crossed.ends))
    with pytest.raises(AssertionError):
        assert_clear(drawn)


# --- nothing is left out -----------------------------------------------------------------------------------


def written(drawn: Scene) -> str:
    return "\n".join(label.text for label in drawn.labels)


@pytest.mark.parametrize(("name", "point"), KNOWN)
def test_a_known_point_is_drawn_whole_and_clearly_at_published_scale(name: str, point: str) -> None:
    made, architecture = published(name, point)
    seen = outline(made, architecture)
    drawn = scene(seen)
    assert_clear(drawn)
    shown, picture = text(seen, width=200), written(drawn)
    unfilled = {node.name: node for node in made.graph.nodes}
    for node in made.fill(architecture).nodes:
        if isinstance(unfilled[node.name].op, Hole):
            assert operation(node) in shown
            assert operation(node) in picture


@pytest.mark.parametrize("made", [*(small(name) for name in SPACES), *OWN], ids=str)
def test_figures_add_up(made: SearchSpace) -> None:
    """Operations to items, items to the network, and that to what counting the graph gives."""
    for architecture in points(made):
        seen = outline(made, architecture)
        whole = graph_cost(made.fill(architecture))
        assert (seen.cost.params, seen.cost.macs, seen.cost.attention) == (
            whole.params, whole.macs, whole.macs_attention,
        )  # fmt: skip
        for item in seen.items:
            if item.lines:
                assert total(item.lines) == item.cost
        assert seen.items[-1].shape[0] == made.scale.get("classes", 10)
        assert [stop for _, stop in seen.stages()][-1] == len(seen.items)
        assert all(source < place for place, item in enumerate(seen.items) for source in item.reads)


@pytest.mark.parametrize("name", SPACES)
def test_cells_are_whole(name: str) -> None:
    """A picture has an input and an output at least, no cycle, and names of cells differ."""
    import networkx as nx

    made = small(name)
    for architecture in points(made):
        seen = outline(made, architecture)
        assert len({cell.name for cell in seen.cells}) == len(seen.cells)
        for cell in seen.cells:
            assert nx.is_directed_acyclic_graph(cell.graph)
            assert {"input", "output"} <= {role for _, role in cell.graph.nodes(data="role")}
            assert cell.count == sum(item.count for item in seen.items if item.label == cell.name)


@pytest.mark.parametrize("name", SPACES)
def test_svg_is_a_function_of_the_architecture(name: str, tmp_path: Path) -> None:
    made = small(name)
    one = made.sample(Random(0))
    other = made.mutate(one, Random(1))
    a = save(outline(made, one), tmp_path / "a.svg").read_bytes()
    assert a == save(outline(made, one), tmp_path / "sub" / "b.svg").read_bytes()
    assert a != save(outline(made, other), tmp_path / "c.svg").read_bytes()
    assert b"<dc:date>" not in a


# --- particular networks -----------------------------------------------------------------------------------


def items(seen: Outline) -> Iterator[tuple[str, int, int]]:
    return ((item.label, item.count, item.stride) for item in seen.items)


def test_darts_is_folded_into_its_stages() -> None:
    seen = outline(*published("darts", "DARTS_V2"))
    normal, reduce = seen.cells
    assert (normal.name, normal.count, reduce.name, reduce.count) == ("normal", 18, "reduce", 2)
    assert list(items(seen)) == [
        ("input", 1, 1), ("conv_bn_3x3", 1, 1), ("normal", 6, 1), ("reduce", 1, 2), ("normal", 6, 1),
        ("reduce", 1, 2), ("normal", 6, 1), ("global_avg_pool", 1, 1), ("linear", 1, 1),
    ]  # fmt: skip
    assert [item.shape for item in seen.items[2:7]] == [
        (144, 32, 32), (288, 16, 16), (288, 16, 16), (576, 8, 8), (576, 8, 8),
    ]  # fmt: skip
    assert seen.items[4].reads == (2, 3), "the cell behind a reduction reads the one before it too"
    for cell in (normal, reduce):
        labels = [label for _, _, label in cell.graph.edges(data="label") if label]
        assert len(labels) == 8
        assert not set(labels) & (JOINS | IDENTITIES)
    lines = text(seen, width=100).splitlines()
    assert len(lines) <= 60
    assert any("5 = skip(c[k-2]) + dil_conv_3x3(2)" in line for line in lines)
    assert any("out = concat(2, 3, 4, 5)" in line for line in lines)
    assert "3.35 M" in lines[-1]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_tree_fits_the_terminal(width: int) -> None:
    for name in ("darts", "nasbench201"):
        made = space(name)
        lines = text(outline(made, made.sample(Random(0))), width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) <= 60


def test_nasbench201_is_one_cell_and_empty_sums_are_zero() -> None:
    made = space("nasbench201")
    seen = outline(made, made.parse("best"))
    cell, reduction = seen.cells
    assert (cell.name, cell.count, reduction.name, reduction.count) == ("cell", 15, "reduction", 2)
    none = made.parse("|none~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
    first = next(item for item in outline(made, none).items if item.label == "cell")
    assert [line.label for line in first.lines] == [
        "1 = 0", "2 = nor_conv_3x3(1)", "out = skip(in) + nor_conv_1x1(2)",
    ]  # fmt: skip


def test_blocks_that_branch_have_pictures_and_are_told_apart_by_operation_alone() -> None:
    made = chain(4)
    choices = {}
    for i, (op, width) in enumerate([("3x3", 16), ("3x3", 32), ("1x1", 16), ("3x3", 16)]):
        choices |= {f"block{i}.op": ((0, f"nor_conv_{op}"),), f"block{i}.width": ((0, width),)}
    seen = outline(made, made.architecture(choices))
    assert [(cell.name, cell.count) for cell in seen.cells] == [("block A", 3), ("block B", 1)]
    assert [item.shape[0] for item in seen.items if item.kind == "cell"] == [16, 32, 16, 16]


def test_skips_are_arcs_to_where_they_lead() -> None:
    made = skips(3)
    bits = {"skip0": (0,), "skip1": (1, 0), "skip2": (1, 1, 0)}
    choices = {f"op{i}": ((0, "conv_3x3"),) for i in range(3)}
    choices |= {name: tuple(enumerate(row)) for name, row in bits.items()}
    seen = outline(made, made.architecture(choices))
    reads = {item.name: [seen.items[place].name for place in item.reads] for item in seen.items}
    assert reads["layers.1.sum"] == ["stem", "layers.1.op"]
    assert reads["layers.2.sum"] == ["stem", "layers.0.op", "layers.2.op"]
    assert "<- stem + layers.0.op + layers.2.op" in text(seen)
    choices |= {"skip1": ((0, 0), (1, 1)), "skip2": ((0, 0), (1, 0), (2, 0))}
    seen = outline(made, made.architecture(choices))
    assert [item.residual for item in seen.items] == [False, False, False, True, False, False, False]
    assert "+ its input" in text(seen)


def test_states_that_are_reduced_side_by_side_do_not_hide_where_skips_start() -> None:
    b = Builder((3, 16, 16))
    first = b("stem", "conv_bn_3x3", "input", out=8)
    second = b("body", Hole("op"), first, out=8)
    a, z = (b(f"down.{i}", "preprocess", s, out=8, stride=2) for i, s in enumerate((first, second)))
    last = b("late", "conv_3x3", z, out=8)
    b("classifier", "linear", b("pool", "global_avg_pool", b("all", "concat", last, a)), out=10)
    made = SearchSpace((Decision("op", ("conv_3x3",)),), b.graph())
    seen = outline(made, made.sample(Random(0)))
    by_name = {item.name: item for item in seen.items}
    assert by_name["down"].detail == "each of 2 states"
    assert [seen.items[place].name for place in by_name["all"].reads] == ["stem", "late"]
    assert [seen.items[place].name for place in by_name["down"].reads] == ["body"]
    assert seen.cost.params == graph_cost(made.fill(made.sample(Random(0)))).params


def test_cells_in_stages_are_the_cells() -> None:
    """Stages that only repeat one cell are no cells themselves."""
    b = Builder((3, 16, 16))
    x = b("stem", "conv_bn_3x3", "input", out=8)
    for i, j in itertools.product(range(2), range(3)):
        name = f"stage.{i}.cell.{j}"
        y = b(f"{name}.op", Hole("op"), x, out=8)
        z = b(f"{name}.other", "conv_1x1", x, out=8)
        x = b(f"{name}.sum", "sum", y, z)
    b("classifier", "linear", b("pool", "global_avg_pool", x), out=10)
    made = SearchSpace((Decision("op", ("conv_3x3",)),), b.graph())
    seen = outline(made, made.sample(Random(0)))
    assert list(items(seen))[2] == ("cell", 6, 1)


def test_auxiliary_heads_stand_behind_the_output() -> None:
    made = space("darts", channels=4, auxiliary=True)
    seen = outline(made, made.parse("DARTS_V2"))
    assert [item.label for item in seen.items[-2:]] == ["linear", "auxiliary_head"]
    assert_clear(scene(seen))


def test_blocks_of_one_operation_show_what_is_in_them() -> None:
    made = space("blocks")
    seen = outline(made, made.parse("SENet-like"))
    (block,) = seen.cells
    assert (block.name, block.count) == ("se_basic_block", 6)
    assert "SqueezeExcite" in {label for _, label in block.graph.nodes(data="label")}


def test_a_decision_outside_the_cells_is_not_hidden() -> None:
    b = Builder((3, 32, 32))
    x = b("stem", Hole("stem"), "input", out=16)
    for i in range(3):
        y = b(f"cells.{i}.op", Hole("op"), x, out=16)
        x = b(f"cells.{i}.out", "sum", x, y)
    b("classifier", "linear", b("pool", "global_avg_pool", x), out=10)
    stems, ops = Decision("stem", ("conv_bn_3x3", "conv_3x3")), Decision("op", ("nor_conv_3x3",))
    made = SearchSpace((stems, ops), b.graph())
    seen = outline(made, made.architecture({"stem": ((0, "conv_3x3"),), "op": ((0, "nor_conv_3x3"),)}))
    assert list(items(seen))[1:3] == [("conv_3x3", 1, 1), ("nor_conv_3x3", 3, 1)]


@pytest.mark.parametrize("made", [*(space(name) for name in SPACES), chain(2)], ids=str)
def test_decision_groups_hold_every_decision_once(made: SearchSpace) -> None:
    groups = decision_groups(made)
    assert sorted(d.name for group in groups.values() for d in group) == sorted(
        d.name for d in made.decisions
    )
    assert all(len({d.options for d in group}) == 1 for group in groups.values())


# --- colours -----------------------------------------------------------------------------------------------


def linear(colour: str) -> np.ndarray:
    """The linear red, green and blue of an sRGB colour."""
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear red, green and blue, under D65: distances are as large as they look."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira & Fernandes 2009, severity 1
VISION = {
    "all cones": np.eye(3),
    "protanopia": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ]),
    "deuteranopia": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ]),
    "tritanopia": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ]),
}  # fmt: skip


@pytest.mark.parametrize("vision", VISION)
def test_kinds_look_different_to_everyone(vision: str) -> None:
    seen = [lab(VISION[vision] @ linear(kind.fill)) for kind in KINDS.values()]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 7


def test_text_is_legible_on_every_fill() -> None:
    """Contrast as the Web Content Accessibility Guidelines define it: 4.5 to 1 at least, also small print."""
    luminance = np.array([0.2126, 0.7152, 0.0722])
    for kind in KINDS.values():
        for ink, least in ((INK, 7.0), (DARK, 4.5)):
            contrast = (luminance @ linear(kind.fill) + 0.05) / (luminance @ linear(ink) + 0.05)
            assert contrast >= least, (kind.name, contrast)


def test_every_option_of_a_space_has_a_colour() -> None:
    for name in SPACES:
        asked = {node.op.decision for node in space(name).graph.nodes if isinstance(node.op, Hole)}
        for decision in space(name).decisions:
            for option in decision.options if decision.name in asked else ():
                assert option == "none" or kind_of(str(option)) in KINDS, option
    assert look("something new").name == "something new"


# --- modules -----------------------------------------------------------------------------------------------


class Turns(nn.Module):
    """Its path depends on the data: no recording tells it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if x.shape[2] > 3 else x


def test_a_hand_designed_network_is_told_by_its_modules() -> None:
    with torch.device("meta"):
        network = hand_designed.build("resnet20")
    seen = module_outline(network, input=(3, 32, 32), title="resnet20")
    counted = cost(network, input=(3, 32, 32))
    assert (seen.cost.params, seen.cost.macs) == (counted.params, counted.macs) == (269_722, 40_551_040)
    assert [(item.label, item.count) for item in seen.items if item.lines or item.count > 1] == [
        ("ResidualBlock A", 3), ("ResidualBlock B", 1), ("ResidualBlock A", 2), ("ResidualBlock A", 2),
    ]  # fmt: skip
    assert [item.shape for item in seen.items if item.stride == 2] == [(32, 16, 16), (64, 8, 8)]
    assert [(cell.name, cell.count) for cell in seen.cells] == [
        ("ResidualBlock A", 7), ("ResidualBlock B", 2),
    ]  # fmt: skip
    assert_clear(scene(seen))


def test_modules_that_cannot_be_recorded_are_told_without_a_picture() -> None:
    network = nn.Sequential(Turns(), Turns(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    seen = module_outline(network, input=(4, 8, 8), title="turns")
    assert seen.cells == ()
    assert [(item.label, item.count) for item in seen.items][1] == ("Turns", 2)
    assert seen.cost.params == sum(p.numel() for p in network.parameters())
    assert_clear(scene(seen))


FAMILIES = [name for name, module in hand_designed.package().FAMILIES.items() if module != "searched"]


@pytest.mark.parametrize("name", over(FAMILIES))
def test_a_member_of_every_family_is_drawn_clearly(name: str) -> None:
    family = hand_designed.family(name)
    with torch.device("meta"):
        network = family(**family.small)
    shape = tuple(family.small["input"])
    seen = module_outline(network, input=shape, title=name)
    counted = cost(network, input=shape)
    assert (seen.cost.params, seen.cost.macs) == (counted.params, counted.macs)
    assert_clear(scene(seen))


# --- files -------------------------------------------------------------------------------------------------


def test_other_suffixes_are_refused_with_the_nearest(tmp_path: Path) -> None:
    made = small("nasbench201")
    seen = outline(made, made.parse("best"))
    with pytest.raises(ValueError, match=r"did you mean 'png'"):
        save(seen, tmp_path / "cell.pngg")
    assert save(seen, tmp_path / "cell.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_is_as_large_as_its_scene() -> None:
    seen = outline(*published("nasbench201", "best"))
    drawn = scene(seen)
    assert tuple(figure(seen).get_size_inches()) == pytest.approx((drawn.width, drawn.height))


def test_the_package_is_light_to_import() -> None:
    heavy = ("torch", "matplotlib", "networkx", "tensorboard", "rich", "scipy")
    code = f"import sys, nas.report; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
