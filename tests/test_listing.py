"""`nas list`, and what is not imported for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command

from nas.cli.listing import KINDS, Imported, Read

NUMPY = ("prunings", "proxies")  # declared in modules that need it


@pytest.mark.parametrize("kind", KINDS)
def test_lists(nas: Command, kind: str) -> None:
    listed = nas("list", kind, "--json").document
    keys = (
        {"name", "family", "params", "macs", "input", "classes"}
        if kind == "baselines"
        else {"name", "summary"}
    )
    assert all(keys <= set(row) for row in listed)
    assert listed or kind == "runs"
    for row in listed:
        assert row["name"]
        assert row.get("summary", "-").strip(), f"{row['name']} says nothing of itself"
    assert len(nas("list", kind).out.splitlines()) == len(listed)


def test_lists_are_the_same_without_pytorch(nas: Command) -> None:
    """A process that has not imported it lists what one lists that has."""
    apart = {
        kind: subprocess.run(
            [sys.executable, "-m", "nas", "list", kind, "--json"], capture_output=True
        ).stdout
        for kind in ("primitives", *NUMPY)
    }
    for kind, said in apart.items():  # this process may have imported files with primitives of their own
        here = [row for row in nas("list", kind, "--json").document if row.get("kind") != "own"]
        assert json.loads(said) == here


@pytest.mark.parametrize("kind", [kind for kind, rows in KINDS.items() if isinstance(rows, Read)])
def test_what_is_read_is_what_is_registered(kind: str) -> None:
    rows = KINDS[kind]
    assert isinstance(rows, Read)
    assert rows() == Imported(rows.package, rows.registry)()


HEAVY = ("torch", "numpy", "sklearn", "matplotlib", "networkx", "scipy", "onnx", "PIL")
LIGHT = [
    "--help",
    "search --help",
    *(f"list {kind}" for kind in KINDS if kind not in NUMPY),
    "none",
    *(f"list {kind}" for kind in NUMPY),
]
SCRIPT = """
import json, sys
from nas.cli import main
status, heavy = {{}}, {{}}
for line in {lines!r}:
    sys.argv = ["nas", *line.split()]
    try:
        main()
    except SystemExit as ended:
        status[line] = ended.code
    heavy[line] = [name for name in {heavy!r} if name in sys.modules]
print("\\n" + json.dumps([status, heavy]))
"""


def test_light_commands_import_nothing_heavy(tmp_path: Path) -> None:
    """All in one process, so that the first that imports something is told."""
    script = SCRIPT.format(lines=LIGHT, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    status, heavy = json.loads(done.stdout.splitlines()[-1])
    assert status == {line: 2 * (line == "none") for line in LIGHT}
    assert heavy == {line: ["numpy"] * line.endswith(NUMPY) for line in LIGHT}
