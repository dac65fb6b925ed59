"""python -m baselines.verify FILE.json: parameters and multiply-adds of networks described as data.

FILE holds a list of entries: `name`, `family`, `config` (keyword arguments of the family), `genotype` (of
networks made of cells), `input_size`, `num_classes`. On stdout comes a list of {"name", "params", "macs"},
with "error" in place of the figures where an entry describes nothing that there is. Blocks (`kind: block`),
which are operations and no networks, are left out.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas import hand_designed
from nas.counting import Cost, cost
from nas.network import Network

Entry = Mapping[str, Any]
# Words of such files that our functions spell otherwise: family -> keyword -> word -> ours. None: left out.
WORDS: dict[str, dict[str, dict[str, Any]]] = {
    "alexnet": {"variant": {"one-weird-trick": "owt"}},
    "convnext": {"variant": {f"convnext_{size}": size for size in ("tiny", "small", "base", "large")}},
    "efficientnet": {"variant": {**{f"b{number}": number for number in range(9)}, "L2": "l2"}},
    "preresnet_cifar": {"shortcut": {"1x1 conv without BN on the shared pre-activation": "B"}},
    "pyramidnet_cifar": {"shortcut": {"zero-padded identity": None}},
    "pyramidnet_imagenet": {"shortcut": {"zero-padded identity": None}},
    "resnet": {"shortcut": {"A/none": "A"}},
    "resnet_cifar": {"shortcut": {"A/none": "A"}},
    "resnet_cifar_w64": {"stem": {"3x3 s1, no pool": None}},
    "shufflenet_v2": {"downsample": {"torchvision": "halves"}},
    "swin": {"variant": {"swin_t": "swin_tiny", "swin_s": "swin_small", "swin_b": "swin_base"}},
    "vit": {"variant": {"vit_b_16": "vit_base", "vit_l_16": "vit_large", "vit_h_14": "vit_huge"}},
    "vgg": {"config": {"A-LRN": "A"}},
    "vgg_cifar": {"head": {f"single Linear {c}->{n}": () for c in (64, 128, 256, 512) for n in (10, 100)}},
}


def arguments(entry: Entry) -> dict[str, Any]:
    """Keyword arguments of the entry's family. Raises ValueError if `resolution` contradicts the input."""
    given: dict[str, Any] = {}
    for key, value in (entry.get("config") or {}).items():
        if key == "resolution" and value != entry["input_size"][-1]:
            raise ValueError(f"resolution {value} is not that of the input {entry['input_size']}")
        if key not in ("note", "resolution"):
            ours = word(entry["family"], key, value) if isinstance(value, str) else value
            if ours is not None or value is None:
                given[key] = ours
    if entry.get("genotype"):
        given["genotype"] = entry["genotype"]
    given["input"] = tuple(entry["input_size"])
    if entry.get("num_classes") is not None:
        given["classes"] = entry["num_classes"]
    return given


def word(family: str, key: str, text: str) -> Any:
    """What our function calls `text`, of which a comment in parentheses is left out; None: leave it out."""
    plain = text.partition(" (")[0]
    return WORDS.get(family, {}).get(key, {}).get(plain, plain)


def build(entry: Entry) -> nn.Module:
    """The network of an entry, on the meta device. Raises ValueError that says what is wrong with it."""
    for key in ("family", "input_size"):
        if key not in entry:
            raise ValueError(f"an entry needs the key {key!r}; this one has {sorted(entry)}")
    with torch.device("meta"):
        return hand_designed.build(entry["family"], arguments={"family": entry["family"], **arguments(entry)})


def figures(entry: Entry) -> Cost:
    """Its parameters and multiply-adds: counted, or of a graph in closed form."""
    network = build(entry)
    return cost(network.graph if isinstance(network, Network) else network, input=tuple(entry["input_size"]))


def verify(entries: list[Entry]) -> list[dict[str, Any]]:
    """A row for each network of `entries`, in their order; an entry without `kind` is a network."""
    networks = [entry for entry in entries if entry.get("kind", "network") == "network"]
    workers = min(os.cpu_count() or 1, len(networks))
    if workers < 2:
        return list(map(row, networks))
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:  # nothing runs here but meta
        return list(pool.map(row, networks, chunksize=4))


def row(entry: Entry) -> dict[str, Any]:
    """The answer to one entry. What is wrong with a row of a file is part of the answer."""
    try:
        found = figures(entry)
    except Exception as error:
        return {"name": entry.get("name"), "error": f"{error}" or type(error).__name__}
    return {"name": entry.get("name"), "params": found.params, "macs": found.macs}


def main(arguments: list[str]) -> int:
    """0: every entry is answered, if with its error; 2: no such file, or it is not a list of entries."""
    if len(arguments) != 1:
        print("usage: python -m baselines.verify FILE.json", file=sys.stderr)
        return 2
    try:
        entries = json.loads(Path(arguments[0]).read_text())
    except (OSError, ValueError) as error:
        print(f"{arguments[0]} cannot be read as JSON: {error}", file=sys.stderr)
        return 2
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        print(f"{arguments[0]} must hold a list of entries, each a mapping", file=sys.stderr)
        return 2
    print(json.dumps(verify(entries)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
