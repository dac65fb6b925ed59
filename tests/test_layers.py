"""The structure: who imports whom, how long files and functions are, that every file is in its package's
table of contents.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "nas").rglob("*.py"))
LAYERS = [
    {"registry", "seeding", "budget", "documents", "interruption", "goal", "pareto", "correlation"},
    {"graph", "isomorphism", "signature", "recipe", "augment", "settings"},
    {"search_space", "primitives", "hand_designed"},
    {"network", "counting", "data", "group", "kernels"},
    {"supernet", "train"},
    {"execution", "run", "storage", "exporters"},
    {"front", "usage"},
    {"strategies", "evaluators", "subject", "constraints"},
    {"report", "lint", "bench", "described"},
    {
        "training",
        "loop",
        "jobs",
        "seeds",
        "controls",
        "ranking",
        "config",
        "entries",
        "compare",
        "result",
        "bench_searches",
    },
    {"artefacts", "api", "inspection", "integrations", "pruning", "inherit"},
    {"cli"},
    {"__main__"},
]
LAYER = {name: height for height, names in enumerate(LAYERS) for name in names}
NO_TORCH = (
    "registry",
    "seeding",
    "budget",
    "documents",
    "interruption",
    "goal",
    "pareto",
    "correlation",
    "settings",
    "graph",
    "isomorphism",
    "signature",
    "recipe",
    "augment",
    "search_space",
    "hand_designed",
)
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def part(path: Path) -> str:
    """The module or package below `nas` that a file belongs to."""
    return path.relative_to(ROOT / "nas").parts[0].removesuffix(".py")


def imported(path: Path, *, everywhere: bool) -> set[str]:
    """Full names of the modules that a file imports: at import time, or also within functions."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else _at_import(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _at_import(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    here = part(path)
    if here == "__init__":
        return
    assert here in LAYER, f"give {here} a layer"
    for name in imported(path, everywhere=True):
        parts = name.split(".")
        if parts[0] == "nas" and len(parts) > 1 and parts[1] in LAYER:
            assert LAYER[parts[1]] <= LAYER[here], f"{path} imports {name}, which is above it"
        assert parts[0] != "baselines", f"{path} imports {name}: baselines are looked up by name, at use"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lengths_stay_sane(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = (first.end_lineno or 0) if documented else node.lineno
            assert (node.end_lineno or 0) - start < LONGEST_FUNCTION, f"{node.name} is too long"


def test_what_needs_no_torch_imports_none() -> None:
    for path in FILES:
        if part(path) in NO_TORCH:
            assert not any(name.split(".")[0] == "torch" for name in imported(path, everywhere=False)), path


def test_every_file_is_in_its_package() -> None:
    """A file that registers something is imported by its package, or it would never be found."""
    for folder in {path.parent for path in FILES}:
        if folder.name in ("nas", "cli", "recipes"):
            continue
        listed = imported(folder / "__init__.py", everywhere=False)
        package = "nas." + ".".join(folder.relative_to(ROOT / "nas").parts)
        for path in folder.glob("*.py"):
            if "register(" in path.read_text() or "@primitive" in path.read_text():
                assert f"{package}.{path.stem}" in listed, f"{path} is not imported by {package}"
