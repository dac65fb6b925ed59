"""python -m baselines.verify FILE.json: parameters and multiply-adds of networks described as data.

FILE holds a list of entries: `name`, `family`, `config` (keyword arguments of the family), `genotype` (of
networks made of cells), `input_size`, `num_classes`. On stdout comes a list of {"name", "params", "macs"}, with
"error" in place of the figures where an entry describes nothing that there is. Blocks (`kind: block`), which
are operations and no networks, are left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
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
    "lenet5": {"subsampling": {"trainable (coefficient+bias per map)": "trainable"}},
    "preresnet": {"stride_in": {"-": None}},
    "preresnet_cifar": {"shortcut": {"1x1 conv without BN on the shared pre-activation": None}},
    "pyramidnet_cifar": {"shortcut": {"zero-padded identity": None}},
    "resnet": {"shortcut": {"A/none": "A"}, "stride_in": {"-": None}},
    "resnet_cifar_w64": {"stem": {"3x3 s1, no pool": None}},
    "seresnet": {"stride_in": {"1x1 (v1)": "1x1", "3x3 (v1.5)": "3x3", "-": None}},
    "stochastic_depth": {"decay": {"linear": None}},
}


def arguments(entry: Entry) -> dict[str, Any]:
    """Keyword arguments of the entry's family. Raises ValueError if `resolution` contradicts the input."""
    given: dict[str, Any] = {}
    words = WORDS.get(entry["family"], {})
    for key, value in (entry.get("config") or {}).items():
        if key == "note":
            continue
        if key == "resolution":
            if value != entry["input_size"][-1]:
                raise ValueError(f"resolution {value} is not that of the input {entry['input_size']}")
            continue
        known = words.get(key, {})
        ours = known[value] if isinstance(value, str) and value in known else value
        if ours is not None or value not in known:
            given[key] = ours
    if entry.get("genotype"):
        given["genotype"] = entry["genotype"]
    given["input"] = tuple(entry["input_size"])
    if entry.get("num_classes") is not None:
        given["classes"] = entry["num_classes"]
    return given


def build(entry: Entry) -> nn.Module:
    """The network of an entry, on the meta device. Raises ValueError that says what is wrong with it."""
    with torch.device("meta"):
        return hand_designed.build(entry["name"], arguments={"family": entry["family"], **arguments(entry)})


def figures(entry: Entry) -> Cost:
    """Its parameters and multiply-adds: counted, or of a graph in closed form."""
    network = build(entry)
    return cost(network.graph if isinstance(network, Network) else network, input=tuple(entry["input_size"]))


def verify(entries: list[Entry]) -> list[dict[str, Any]]:
    """A row for each network of `entries`, in their order."""
    rows = []
    for entry in entries:
        if entry.get("kind", "network") != "network":
            continue
        row: dict[str, Any] = {"name": entry.get("name")}
        try:
            found = figures(entry)
            row |= {"params": found.params, "macs": found.macs}
        except Exception as error:  # a row of a file is data: what is wrong with it is part of the answer
            row["error"] = f"{error}" or type(error).__name__
        rows.append(row)
    return rows


def main(arguments: list[str]) -> int:
    """0: all done; 1: some entries have an error; 2: no such file, or it is not a list of entries."""
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
    rows = verify(entries)
    print(json.dumps(rows))
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
