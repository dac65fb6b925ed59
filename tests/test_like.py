"""Laws of like(): the hand-designed network of like cost that a found network is trained beside."""

from __future__ import annotations

import time

import pytest
import torch

from nas import hand_designed
from nas.counting import cost

# The module as `nas` itself imports it: what is cached there is cached for these tests too.
hand_designed.package()
from nas._baselines import like as chooser  # type: ignore[import-not-found]  # noqa: E402

INPUTS = [(3, 32, 32), (1, 13, 5), (3, 97, 150)]
PUBLISHED = [  # a network of the literature, its exact cost, the input and classes it is for
    ("resnet20-w16", 269_722, 40_551_040, (3, 32, 32), 10),
    ("resnet56-w16", 853_018, 125_485_696, (3, 32, 32), 10),
    ("resnet18-w64", 11_173_962, 555_422_720, (3, 32, 32), 10),
    ("wrn28-10", 36_479_194, 5_243_328_768, (3, 32, 32), 10),
    ("densenet100-k12", 769_162, 287_929_692, (3, 32, 32), 10),
    ("densenet250-k24", 15_324_406, 5_418_785_724, (3, 32, 32), 10),
    ("resnet18-x1", 11_689_512, 1_814_073_344, (3, 224, 224), 1000),
    ("resnet50-x1", 25_557_032, 4_089_184_256, (3, 224, 224), 1000),
    ("mobilenet_v2-x1", 3_504_872, 300_774_272, (3, 224, 224), 1000),
    ("mobilenet_v2-x1.4", 6_108_776, 582_195_824, (3, 224, 224), 1000),
]


@pytest.mark.parametrize("input", INPUTS, ids=str)
def test_the_closed_form_is_the_count_of_the_built_network(input: tuple[int, int, int]) -> None:
    for shape in chooser.shapes(input):
        member = chooser.member(shape, shape.widths[len(shape.widths) // 8], classes=7, input=input)
        if max(member.arguments.get("depth", 0), member.arguments.get("L", 0)) > 50:
            continue  # more of the same layers
        with torch.device("meta"):
            network = hand_designed.build(member.name, arguments=member.arguments, classes=7, input=input)
        counted = cost(network, input=input)
        assert (counted.params, counted.macs) == (member.params, member.macs), member


@pytest.mark.parametrize(("name", "params", "macs", "input", "classes"), PUBLISHED)
def test_the_control_of_a_published_network_is_that_network(
    name: str, params: int, macs: int, input: tuple[int, int, int], classes: int
) -> None:
    assert hand_designed.like(params, macs, classes=classes, input=input)[0] == name


@pytest.mark.parametrize("classes", [2, 100])
@pytest.mark.parametrize("input", [(1, 8, 8), (3, 32, 32)], ids=str)
def test_the_control_is_of_like_size(input: tuple[int, int, int], classes: int) -> None:
    pixels = input[1] * input[2]
    for exponent in range(0, 61, 3):  # 5,000 to 5,000,000 parameters
        params = round(5000 * 1000 ** (exponent / 60)) + 64 * classes
        for ratio in (0.05, 0.15, 0.35):  # multiply-adds a parameter and pixel: from late to early reduction
            macs = round(params * pixels * ratio)
            found = chooser._chosen(params, macs, classes, input)
            assert abs(found.params / params - 1) <= (0.11 if params > 50_000 else 0.2), (params, found)
            if params > 100_000:
                assert 0.6 < found.macs / macs < 1.7, (params, macs, found)


def test_multiply_adds_decide_between_networks_of_equal_size() -> None:
    few, many = (hand_designed.like(800_000, macs, classes=10, input=(3, 32, 32)) for macs in (40e6, 300e6))
    assert few[1]["family"] == "resnet_cifar_w64"  # four stages, reduced further
    assert many[1]["family"] == "densenet_cifar"


def test_choosing_is_quick() -> None:
    began = time.perf_counter()
    hand_designed.like(1_234_567, 123_456_789, classes=37, input=(3, 40, 40))
    hand_designed.like(1_234_567, 123_456_789, classes=37, input=(3, 200, 200))
    assert time.perf_counter() - began < 2
