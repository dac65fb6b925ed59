"""One thread a test process: the tests run side by side, and small tensors gain nothing from more.

And the fixture `nas`: the command line, called in this process.
"""

from __future__ import annotations

import os

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["OMP_NUM_THREADS"] = "1"

import json
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

# Settings that make a run of either kind last less than a second.
TINY = ["data.limit=60", "train.epochs=2"]
TINY_TRAIN = ["network.channels=2", "network.cells=3", *TINY]
TINY_SEARCH = [
    "space.name=nasbench201",
    *("space.channels=2", "space.cells=1", "network.channels=2", "network.cells=1", "controls=0"),
    *TINY,
]
TINY_DARTS = [*TINY_SEARCH, "strategy=darts", "budget=2epochs", "ranking.networks=3", "ranking.epochs=1"]
TINY_RANDOM = [*TINY_SEARCH, "strategy=random", "strategy.epochs=1", "budget=3trials"]


# Members of a registry that take long, of which another one has the same kinds of parts: cells as those of
# `enas_micro`, and networks of the same authors, or of the same blocks in larger numbers.
LARGE = (
    *("nasnet", "amoebanet", "pnas"),
    *("senet154", "inception_v2", "inception_v3", "inception_v4", "inception_resnet", "xception"),
    "nas_imagenet",
    *("condconv_efficientnet", "nonlocal_resnet", "sknet"),
)


def slow_if_large(name: str, but: Iterable[str] = ()) -> Any:
    """The mark of a parameter of this name: slow if it is large, or in `but`."""
    return pytest.mark.slow if name in {*LARGE, *but} else ()


def over(names: Iterable[str], but: Iterable[str] = ()) -> list[Any]:
    """The names as parameters of a test, of which the large ones, and those in `but`, are slow."""
    return [pytest.param(name, marks=slow_if_large(name, but)) for name in names]


def sets(settings: list[str]) -> list[str]:
    """The settings as options of the command line."""
    return [word for setting in settings for word in ("--set", setting)]


def ledger(run: Path, *, without: tuple[str, ...] = ("start", "resume")) -> list[dict[str, Any]]:
    """The lines of a run, none of them torn, as they are compared: without what may differ between equal
    runs.
    """
    from nas.run import LEDGER, TRANSIENT

    events = [json.loads(line) for line in (run / LEDGER).read_text().splitlines()]
    return [{k: v for k, v in e.items() if k not in TRANSIENT} for e in events if e["kind"] not in without]


def mistakes(*layers: dict[str, Any]) -> list[str]:
    """What is wrong with a configuration of a search."""
    from nas.config import resolve_search
    from nas.signature import Errors

    with pytest.raises(Errors) as caught:
        resolve_search(layers)
    return caught.value.lines


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """Random tensors of a test are the same in every run, whichever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture
def nas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Calls the command `nas`, in an empty folder."""
    from nas.cli import errors, main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NAS_DATA", raising=False)

    def call(*arguments: object) -> Outcome:
        errors._resume.clear()
        errors._signals.clear()
        monkeypatch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        said = capsys.readouterr()
        return Outcome(status, said.out, said.err)

    return call
