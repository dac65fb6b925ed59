"""What people wait for beside training, each beside something of the same kind in the same run.

    python benchmarks/waiting.py [--rounds 5]

- The commands, beside Python alone; a search of one step, beside the imports of PyTorch that training needs.
- An architecture's cost in closed form, beside building the network on the meta device and counting a pass.
- A candidate, built, trained for an epoch and measured, beside the steps of the training alone.
- The digest by which equal networks are known, beside networkx's hash of the cell by Weisfeiler and Lehman.
- An export to ONNX, loaded again and compared, beside PyTorch's exporter alone.
- Taking up a search of 10,000 trials, all told again, beside parsing its ledger's lines.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

import networkx
import numpy as np
import strategy_overhead
import timing
import torch
from torch.utils.flop_counter import FlopCounterMode

import nas
from nas.augment import Augment
from nas.counting import cost
from nas.data import Split
from nas.data.batches import Examples
from nas.evaluators import EVALUATORS
from nas.execution import Trial
from nas.network import Network
from nas.recipe import Recipe
from nas.search_space import Architecture, space

NAS = [sys.executable, "-m", "nas"]
ONE_STEP = (
    "search --strategy darts --space darts --data digits --budget 1epochs --controls 0 --quiet "
    "--set data.limit=128 --set ranking.networks=0"
)


def commands(rounds: int) -> Iterator[str]:
    """Of the table: commands as processes."""

    def run(command: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(command, cwd=folder, check=True, capture_output=True)

    def beside(what: str, reference: str, command: str) -> str:
        ways = {"reference": [sys.executable, "-c", reference], "ours": [*NAS, *command.split()]}
        found = timing.alternated({name: partial(run, each) for name, each in ways.items()}, rounds)
        return timing.line(what, found["reference"], found["ours"])

    yield beside("`nas --help` beside Python", "pass", "--help")
    yield beside("`nas list strategies` beside Python", "pass", "list strategies")
    yield beside("`nas list primitives` beside Python", "pass", "list primitives")
    imports = "import torch, torch._dynamo"
    yield beside(f"`nas search` of one step beside `{imports}`", imports, ONE_STEP)


def inner(rounds: int) -> Iterator[str]:
    """Of the table: functions that a search calls for each candidate."""
    large = space("darts", channels=36, cells=20)
    graph = large.fill(large.parse("DARTS_V2"))
    with torch.device("meta"):
        image = torch.empty(1, 3, 32, 32)

    def counted() -> None:
        with torch.device("meta"):
            network = Network(graph)
        with FlopCounterMode(display=False), torch.no_grad():
            network.eval()(image)

    found = timing.alternated({"reference": counted, "ours": lambda: cost(graph)}, rounds)
    yield timing.line("cost of DARTS_V2 beside counting it", found["reference"], found["ours"])

    made, rng = space("nasbench201"), Random(0)
    cells = [made.sample(rng) for _ in range(500)]
    ways = {
        "reference": _each(_hashed, cells),
        "ours": _each(lambda each: made.architecture(each.choices).digest, cells),
        "network": _each(made.network_digest, cells),
    }
    found = {
        name: [seconds / len(cells) for seconds in times]
        for name, times in timing.alternated(ways, rounds).items()
    }
    what = "of a cell of nasbench201 beside networkx's hash"
    yield timing.line(f"digest {what}", found["reference"], found["ours"])
    yield timing.line(f"digest of the network {what}", found["reference"], found["network"])


def candidate(rounds: int, images: int = 1024, batch: int = 64) -> Iterator[str]:
    """Of the table: an evaluation of black-box search; half as many images are validated as trained on."""
    made = space("nasbench201", channels=16, cells=1, input=(3, 16, 16))
    path = made.sample(Random(0))
    rng = np.random.default_rng(0)
    splits = [
        Split(rng.integers(0, 256, (n, 3, 16, 16), dtype=np.uint8), np.arange(n, dtype=np.int64) % 10)
        for n in (images, images // 2)
    ]
    examples = Examples(*splits, (0.5,) * 3, (0.25,) * 3, Augment(crop=2, flip=True))
    evaluate = EVALUATORS["scratch"](made, examples, Recipe(batch=batch, optimizer="sgd", lr=0.025))
    network = Network(made.fill(path)).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.025, momentum=0.9, fused=True)
    x, y = timing.pair(batch, 16)
    x = x.to(memory_format=torch.channels_last)

    def steps() -> None:
        for _ in range(images // batch):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x), y).backward()
            optimizer.step()

    ours = partial(evaluate, Trial(0, path, epochs=1), seed=0)
    found = timing.alternated({"reference": steps, "ours": ours}, rounds)
    yield timing.line("a candidate beside its steps alone", found["reference"], found["ours"])


def _each(function: Callable[[Architecture], object], cells: Sequence[Architecture]) -> timing.Step:
    def all_of_them() -> None:
        for cell in cells:
            function(cell)

    return all_of_them


def _hashed(cell: Architecture) -> str:
    """Of the graph whose edges are the operations."""
    graph = networkx.DiGraph()
    for target, node in enumerate(cell.literal.split("+"), 1):
        for op, source in re.findall(r"(\w+)~(\d)", node):
            graph.add_edge(int(source), target, op=op)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of another hash in versions before
        return str(networkx.weisfeiler_lehman_graph_hash(graph, edge_attr="op"))


def files(rounds: int) -> Iterator[str]:
    """Of the table: what is written and read."""
    made = space("darts", channels=36, cells=20)
    network = Network(made.fill(made.parse("DARTS_V2"))).eval()
    image = torch.zeros(2, 3, 32, 32)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def reference() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dynamic = {"x": {0: torch.export.Dim.AUTO}}
                program = torch.onnx.export(
                    network, (image,), dynamic_shapes=dynamic, dynamo=True, verbose=False
                )
            program.save(place / "plain.onnx")

        def ours() -> None:
            nas.export(network, formats=("onnx",), out=place / "export", input=(3, 32, 32))

        found = timing.alternated({"reference": reference, "ours": ours}, min(rounds, 2))
        yield timing.line("export of DARTS_V2 beside PyTorch's", found["reference"], found["ours"])
        options = Namespace(space="darts", cells=8, trials=10_000)
        strategy_overhead.measure("random", options, place / "run")
        lines = (place / "run" / "events.jsonl").read_text().splitlines()
        ways = {
            "reference": lambda: [json.loads(each) for each in lines],
            "ours": partial(strategy_overhead.taken_up, "random", options, place / "run"),
        }
        found = timing.alternated(ways, rounds)
        what = "a search of 10,000 trials taken up beside parsing its lines"
        yield timing.line(what, found["reference"], found["ours"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    timing.show(commands(rounds), inner(rounds), candidate(rounds), files(rounds))


if __name__ == "__main__":
    main()
