"""nas lint finds each of a set of broken spaces and says what to do; sound ones pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from conftest import Command, over

from nas.lint import Finding, Linter
from nas.search_space import SPACES, space

OWN = """
from torch import nn
import torch

class Wide(nn.Conv2d):
    "gives one channel too many"
    def __init__(self, c_in, c_out, stride=1):
        super().__init__(c_in, c_out + 1, 3, stride, 1)

class Idle(nn.Module):
    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        self.used = nn.Conv2d(c_in, c_out, 3, stride, 1)
        self.unused = nn.Parameter(torch.zeros(3))
    def forward(self, x):
        return self.used(x)

class Broken(nn.Conv2d):
    def __init__(self, c_in, c_out, stride=1):
        super().__init__(c_in, c_out, 3, stride, 1)
    def forward(self, x):
        return super().forward(x) / torch.zeros(())

class Needs(nn.Module):
    def __init__(self, c_in, c_out, heads):
        super().__init__()
"""

SOUND = """
decisions: {op: [conv_3x3, sep_conv_3x3]}
nodes:
  - {name: a, op: $op, out: 4}
  - {op: global_avg_pool}
  - {op: linear, out: classes}
"""

# what is changed in the sound space -> (kind, topic, words of the finding)
BROKEN: dict[str, tuple[Mapping[str, str], tuple[str, str, str]]] = {
    "sum of two sizes": (
        {
            "{op: global": "{name: b, op: conv_3x3, out: 4, stride: 2}\n"
            "  - {op: sum, inputs: [a, b]}\n  - {op: global"
        },
        (
            "error",
            "shapes",
            "node 'node2' is a sum of 'a' (4x8x8) and 'b' (4x4x4): its inputs need equal strides",
        ),
    ),
    "sum of two widths": (
        {"{op: global": "{name: b, op: conv_3x3, out: 5}\n  - {op: sum, inputs: [a, b]}\n  - {op: global"},
        ("error", "shapes", "equal widths: set `out`, or put a conv_1x1 before it"),
    ),
    "pool that widens": (
        {"[conv_3x3": "[max_pool_3x3"},
        ("error", "shapes", "node 'a', on the 1x8x8 of 'input': max_pool_3x3 keeps its 1 channels"),
    ),
    "linear on a picture": (
        {"  - {op: global_avg_pool}\n": ""},
        ("error", "shapes", "put a global_avg_pool before it"),
    ),
    "unknown operation": (
        {"sep_conv_3x3]": "sep_conv_3x4]"},
        ("error", "shapes", "no primitive 'sep_conv_3x4'; did you mean 'sep_conv_3x3'?"),
    ),
    "unknown attribute": (
        {"out: 4}": "out: 4, kernell: 3}"},
        ("error", "shapes", "no attribute 'kernell'; did you mean 'kernel'?"),
    ),
    "no path to the output": (
        {"[conv_3x3, sep_conv_3x3]": "[none]"},
        ("error", "legal", "no path from the input to the output"),
    ),
    "options that are one": (
        {"[conv_3x3, sep_conv_3x3]": "[skip_connect, identity]", "$op, out: 4": "$op"},
        ("warning", "option", "decision 'op' never changes the network"),
    ),
    "two options alike": (
        {"[conv_3x3, sep_conv_3x3]": "[skip_connect, identity, dropout]", "$op, out: 4": "$op"},
        ("warning", "option", "'skip_connect' and 'identity' always give the same network"),
    ),
    "a decision of one value": (
        {"[conv_3x3, sep_conv_3x3]": "[conv_3x3]"},
        ("warning", "option", "decision 'op' has one value only"),
    ),
    "too many channels": (
        {"sep_conv_3x3]": "own.py:Wide]"},
        ("error", "shapes", "own.py:Wide must give 4 channels, as its node says, and gives 5"),
    ),
    "a parameter that is not used": (
        {"sep_conv_3x3]": "own.py:Idle]"},
        ("error", "gradient", "never gets a gradient"),
    ),
    "numbers that are not finite": (
        {"sep_conv_3x3]": "own.py:Broken]"},
        ("error", "output", "not finite"),
    ),
    "an operation that asks for more": (
        {"sep_conv_3x3]": "own.py:Needs]"},
        ("error", "shapes", "own.py:Needs needs the argument 'heads'"),
    ),
    "options that cannot be read": (
        {"[conv_3x3, sep_conv_3x3]": '[3, "3"]', "op: $op": "op: conv_3x3, groups: $op"},
        ("error", "space", "'3'"),
    ),
}


def found(folder: Path, changes: Mapping[str, str]) -> list[Finding]:
    (folder / "own.py").write_text(OWN)
    text = SOUND
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "space.yaml"
    path.write_text(text)
    try:
        made = space(str(path), input=(1, 8, 8), classes=3)
    except ValueError as error:
        return [Finding("error", "space", str(error))]
    return list(Linter(made, made, samples=8).findings())


@pytest.mark.parametrize("name", list(BROKEN))
def test_broken_spaces_are_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changes, (kind, topic, words) = BROKEN[name]
    findings = found(tmp_path, changes)
    assert any((f.kind, f.topic) == (kind, topic) and words in f.text for f in findings), findings


def test_a_sound_space_has_no_errors_or_warnings(tmp_path: Path) -> None:
    findings = found(tmp_path, {})
    assert {f.kind for f in findings} == {"fact"}
    assert {f.topic for f in findings} >= {"size", "params", "macs", "build", "supernet", "fusion"}


@pytest.mark.parametrize("name", over(SPACES, but=("mobile", "blocks")))
def test_the_spaces_of_the_library_have_no_errors(name: str) -> None:
    made = space(name, **SPACES.facts(name)["small"], input=(3, 8, 8))
    findings = list(Linter(made, made, samples=5).findings())
    assert not [f for f in findings if f.kind == "error"]


def test_impossible_limits_end_with_the_closest(nas: Command, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(dedent(SOUND))
    outcome = nas("lint", "space.yaml", "--set", "space.max_params=10", "--json")
    assert outcome.status == 1
    (line,) = [each for each in json.loads(outcome.out) if each["kind"] == "error"]
    assert "the closest is" in line["text"]
    assert "params is" in line["text"]


def test_the_command_prints_one_line_a_finding(nas: Command, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(dedent(SOUND))
    outcome = nas("lint", "space.yaml", "--samples", "4")
    assert outcome.status == 0
    assert outcome.out.count("\n") == len(nas("lint", "space.yaml", "--samples", "4", "--json").document)
