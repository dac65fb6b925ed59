"""Zero-cost proxies against those of NAS-Bench-Suite-Zero (Krishnakumar et al., NeurIPS 2022), on CIFAR-10.

    python benchmarks/zero_cost_agreement.py --table nasbench201.csv.gz --zero-cost zerocost.csv.gz \\
        --data-dir DIR [--cells 60] [--batch 64] [--seed 0] [--repeats 1] [--proxies synflow ...]
        [--keep FILE]

Cells of NAS-Bench-201 at the benchmark's size (16 channels, 5 cells a stage), each with fresh weights and one
batch of normalised training images, without augmentation. Both tables have a column `index`; the first has
`arch` and the test accuracy, the second a column `cifar10_<proxy>` each. For every proxy: Spearman's rank
correlation of its values with the published ones, and of either with the accuracy.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
import time
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import Any

import torch
from scipy.stats import spearmanr

from nas.data import load
from nas.data.batches import Batches
from nas.evaluators.proxies import PROXIES
from nas.graph import Graph
from nas.network import Network
from nas.search_space import space
from nas.seeding import randomness

COLUMNS = {"naswot": "nwot", "macs": "flops"}  # the others have their proxy's name


def rows(path: Path) -> dict[str, dict[str, str]]:
    """The lines of a table by index."""
    with gzip.open(path, "rt", newline="") as file:
        return {line["index"]: line for line in csv.DictReader(file)}


def measured(options: argparse.Namespace, chosen: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """Of each chosen cell the proxies' values, and the seconds that they took."""
    lines = options.keep.read_text().splitlines() if options.keep and options.keep.exists() else []
    found = {line["index"]: line for line in map(json.loads, lines)}
    data = load("cifar10", root=options.data_dir)
    batches = Batches(
        data.train, mean=data.mean, std=data.std, batch=options.batch, device="cpu", seed=options.seed,
        shuffle=True,
    )  # fmt: skip
    epoch = batches.epoch(0)
    given = [next(epoch) for _ in range(options.repeats)]
    made = space("nasbench201", channels=16, cells=5, classes=10)
    for number, index in enumerate(chosen, 1):
        if index not in found:
            graph = made.fill(made.parse(known[index]["arch"]))
            found[index] = {"index": index, **scored(graph, given, options, index)}
            if options.keep:
                with options.keep.open("a") as file:
                    file.write(json.dumps(found[index]) + "\n")
        print(f"\r{number}/{len(chosen)} cells", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return found


def scored(graph: Graph, given: list[Any], options: argparse.Namespace, index: str) -> dict[str, Any]:
    """The proxies' means over batches, each with weights of its own, and the seconds of one."""
    networks = []
    for repeat in range(len(given)):
        with randomness(options.seed, index, repeat):
            networks.append(Network(graph))
    values, seconds = {}, {}
    for name in options.proxies:
        began = time.perf_counter()
        values[name] = fmean(PROXIES[name](net, *batch) for net, batch in zip(networks, given, strict=True))
        seconds[name] = (time.perf_counter() - began) / len(given)
    return {"values": values, "seconds": seconds}


def rank(a: list[float], b: list[float]) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(a, b).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--zero-cost", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--accuracy", default="cifar10_test_200")
    parser.add_argument("--cells", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="file of values, to go on from when run again")
    parser.add_argument("--proxies", nargs="+", default=list(PROXIES), choices=list(PROXIES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    known, published = rows(options.table), rows(options.zero_cost)
    chosen = Random(options.seed).sample(sorted(published), options.cells)
    accuracy = [float(known[index][options.accuracy]) for index in chosen]
    found = [line for line in measured(options, chosen, known).values() if line["index"] in chosen]
    found.sort(key=lambda line: chosen.index(line["index"]))
    print("| proxy | with the table | with accuracy | the table's with accuracy | seconds |")
    print("|---|---|---|---|---|")
    for name in options.proxies:
        column = [float(published[index][f"cifar10_{COLUMNS.get(name, name)}"]) for index in chosen]
        ours = [line["values"][name] for line in found]
        figures = rank(ours, column), rank(ours, accuracy), rank(column, accuracy)
        cells = " | ".join(f"{figure:.3f}" for figure in figures)
        print(f"| {name} | {cells} | {median(line['seconds'][name] for line in found):.2f} |")


if __name__ == "__main__":
    main()
