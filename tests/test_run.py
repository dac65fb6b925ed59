"""A run's folder: what is in it, who may work in it, what a full disk, a signal or a failing trial does."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import Begun, begin, descendants, wait_for
from conftest import TINY_DARTS, TINY_RANDOM, TINY_TRAIN, Command, ledger, sets

from nas import interruption
from nas.run import TRANSIENT, Run, load_tensors, replace, save_tensors
from nas.search_space import space

DARTS = ["search", *sets([*TINY_DARTS, "budget=4epochs"]), "--device", "cpu"]
RANDOM = ["search", *sets(TINY_RANDOM), "--device", "cpu"]
RANKED = ["ranked"] * 3 + ["ranking"]  # of the networks of TINY_DARTS
TRAIN = ["train", "darts:DARTS_V2", *sets(TINY_TRAIN), "--device", "cpu"]


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but its lock, which names the process that held it last."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def assert_equal_results(run: Path, reference: Path) -> None:
    assert ledger(run) == ledger(reference)
    for name in ("best.yaml", "config.yaml"):
        if (reference / name).exists():
            assert (run / name).read_bytes() == (reference / name).read_bytes()
    ours, theirs = load_tensors(run / "checkpoint.pt"), load_tensors(reference / "checkpoint.pt")
    assert list(tensors(ours)) == list(tensors(theirs))


def tensors(content: Any, path: str = "") -> Iterator[tuple[str, bytes]]:
    if isinstance(content, torch.Tensor):
        yield path, content.numpy().tobytes()
    elif isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from tensors(value, f"{path}/{key}")


def has_line(run: Path, kind: str, count: int = 1) -> Callable[[], bool]:
    path = run / "events.jsonl"
    return lambda: path.exists() and path.read_text().count(f'{{"kind": "{kind}"') >= count


# --- the folder ---------------------------------------------------------------------------------------------


def test_a_run_holds_its_files_and_nothing_lies_outside(nas: Command, tmp_path: Path) -> None:
    assert nas(*DARTS, "--set", "controls=1", "--run", "r").status == 0
    assert {path.name for path in tmp_path.iterdir()} == {"r"}
    found = {path.name for path in (tmp_path / "r").iterdir()}
    expected = {
        "config.yaml",
        "events.jsonl",
        "environment.json",
        "checkpoint.pt",
        "best.yaml",
        "controls",
        "tensorboard",
        "usage.json",
        ".lock",
    }
    assert found == expected
    controls = {path.name for path in (tmp_path / "r" / "controls").iterdir()}
    assert {"found-0", "random-0"} < controls
    for control in (tmp_path / "r" / "controls").iterdir():
        assert {"config.yaml", "events.jsonl", "checkpoint.pt"} <= {path.name for path in control.iterdir()}
    assert not list(tmp_path.rglob("*.part"))
    assert nas("report", "r").status == 0
    assert nas("export", "r", "--format", "yaml,torch").status == 0
    assert nas("train", "r").status == 0
    assert {path.name for path in tmp_path.iterdir()} == {"r"}
    assert {"export", "train"} < {path.name for path in (tmp_path / "r").iterdir()}


def test_files_can_be_read_without_us(nas: Command) -> None:
    assert nas(*DARTS, "--run", "r").status == 0
    run = Path("r")
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    assert {"epoch", "supernet", "alphas"} <= set(state)
    best = yaml.safe_load((run / "best.yaml").read_text())
    assert {"space", "literal", "digest", "params", "macs", "metrics"} <= set(best)
    text = (run / "best.yaml").read_text()
    assert str(run.absolute()) not in text
    assert "seconds" not in text
    assert space(best["space"]).parse(best["literal"]).digest == best["digest"]
    environment = json.loads((run / "environment.json").read_text())
    assert {"versions", "hardware", "threads", "command", "data"} <= set(environment)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events] == ["epoch"] * 4 + ["selected", *RANKED, "done"]
    assert all({"time", "seconds"} <= set(event) for event in events)


def test_runs_get_folders_of_their_own(nas: Command) -> None:
    found = [nas(*RANDOM, "--json").document["run"] for _ in range(2)]
    assert [Path(run).name[-1] for run in found] == ["1", "2"]


# --- the ledger ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "torn", [b"{", b'{"kind": "trial", "step": 9', b'{"kind": "epoch"}', b"\x00" * 40, b"\xff\n"]
)
def test_a_torn_last_line_is_repaired(tmp_path: Path, torn: bytes) -> None:
    with Run.create(tmp_path / "r", {"seed": 0}, {}) as run:
        for step in range(3):
            run.log("epoch", step=step)
        whole = (run.folder / "events.jsonl").read_bytes()
    with open(tmp_path / "r" / "events.jsonl", "ab") as ledger:
        ledger.write(torn)
    with Run.open(tmp_path / "r") as run:
        assert (run.folder / "events.jsonl").read_bytes() == whole
        run.log("epoch", step=3)
        assert [event["step"] for event in run.events()] == [0, 1, 2, 3]


def test_time_used_before_counts(tmp_path: Path) -> None:
    with Run.create(tmp_path / "r", {"seed": 0}, {}) as run:
        run._started -= 1000
        run.log("epoch")
    with Run.open(tmp_path / "r") as run:
        assert 1000 < run.seconds < 1100


def test_a_search_cuts_its_ledger_back_to_the_checkpoint(nas: Command) -> None:
    assert nas(*DARTS, "--run", "whole").status == 0
    assert nas(*DARTS, "--run", "r").status == 0
    run = Path("r")
    kept = [line for line in (run / "events.jsonl").read_text().splitlines(True) if '"epoch"' in line[:20]]
    extra = kept[-1].replace('"step": 4', '"step": 5')
    (run / "events.jsonl").write_text("".join([*kept, extra, extra[:50]]))
    assert nas("resume", "r").status == 0
    assert_equal_results(run, Path("whole"))
    assert [event["kind"] for event in ledger(run, without=())] == ["epoch"] * 4 + [
        "resume",
        "selected",
        *RANKED,
        "done",
    ]


# --- atomic files -------------------------------------------------------------------------------------------


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(tmp_path / "a", "old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_what_a_killed_process_left_half_written_is_swept_up(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", {"seed": 0}, {}).__exit__()
    (tmp_path / "r" / ".checkpoint.pt.4711.part").write_bytes(b"half")
    with Run.open(tmp_path / "r"):
        assert not list((tmp_path / "r").glob(".*.part"))


def test_a_damaged_checkpoint_is_named(nas: Command) -> None:
    assert nas(*DARTS, "--run", "r").status == 0
    events = Path("r/events.jsonl").read_text().splitlines(True)
    Path("r/events.jsonl").write_text("".join(events[:2]))
    Path("r/checkpoint.pt").write_bytes(b"PK\x03\x04 nothing")
    refused = nas("resume", "r")
    assert refused.status == 2
    assert "checkpoint.pt is damaged" in refused.err


def test_tensors_come_back_to_the_same_bits(tmp_path: Path) -> None:
    state = {
        "a": torch.randn(3),
        "b": [torch.tensor(float("nan")), 1, None, "text"],
        "c": {"d": torch.get_rng_state()},
    }
    save_tensors(tmp_path / "s.pt", state)
    assert list(tensors(load_tensors(tmp_path / "s.pt"))) == list(tensors(state))


# --- one process at a time ----------------------------------------------------------------------------------


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Begun]:
    """A process that works in the run ``r``."""
    process = begin(*DARTS, "--set", "budget=100000epochs", "--run", "r", folder=tmp_path)
    wait_for(has_line(tmp_path / "r", "epoch"), process)
    yield process
    if process.poll() is None:
        process.kill_group()
    process.communicate()


def test_a_second_process_is_refused(nas: Command, held: Begun) -> None:
    refused = nas("resume", "r")
    assert refused.status == 2
    assert str(held.pid) in refused.err
    assert socket.gethostname() in refused.err
    for other in (nas(*DARTS, "--run", "r"), nas(*RANDOM, "--run", "r")):
        assert other.status == 2
        assert "nas resume r" in other.err
    assert held.poll() is None
    assert str(held.pid) in nas("resume", "r").err, "being refused must not change who holds the run"
    assert nas("show", "r").status == 0, "looking is allowed"


def test_a_killed_process_holds_nothing(nas: Command, held: Begun) -> None:
    held.kill_group()
    with Run.open(Path("r")) as run:
        assert run.events()


def test_a_folder_that_holds_a_run_is_refused(nas: Command) -> None:
    assert nas(*RANDOM, "--run", "r").status == 0
    before = contents(Path("r"))
    for command in (RANDOM, DARTS, TRAIN):
        refused = nas(*command, "--run", "r")
        assert refused.status == 2
        assert "nas resume r" in refused.err
    assert contents(Path("r")) == before


@pytest.mark.parametrize("command", [DARTS, RANDOM, TRAIN], ids=["darts", "random", "train"])
def test_resuming_a_finished_run_gives_its_result(nas: Command, command: list[str]) -> None:
    first = nas(*command, "--run", "r", "--json")
    assert first.status == 0, first.err
    before = contents(Path("r"))
    again = nas("resume", "r", "--json")
    assert (again.status, again.document) == (0, first.document)
    assert contents(Path("r")) == before


def test_a_moved_run_goes_on(nas: Command) -> None:
    first = nas(*TRAIN, "--run", "r", "--json").document
    Path("r").rename("elsewhere")
    assert nas("resume", "elsewhere", "--json").document == {**first, "run": "elsewhere"}
    assert nas("evaluate", "elsewhere", "--json").document == {**first, "run": "elsewhere"}


# --- interruptions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "more", "number"),
    [
        (DARTS, "budget=12epochs", signal.SIGINT),
        pytest.param(DARTS, "budget=12epochs", signal.SIGTERM, marks=pytest.mark.slow),
        (RANDOM, "budget=40trials", signal.SIGTERM),
        (TRAIN, "train.epochs=40", signal.SIGINT),
    ],
    ids=["darts-int", "darts-term", "random-term", "train-int"],
)
def test_an_interruption_saves_and_says_how_to_go_on(
    nas: Command, tmp_path: Path, command: list[str], more: str, number: signal.Signals
) -> None:
    kind = "trial" if command is RANDOM else "epoch"
    process = begin(*command, "--set", more, "--run", "r", folder=tmp_path)
    wait_for(has_line(tmp_path / "r", kind, 2), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "nas resume r" in err
    assert "Traceback" not in err
    assert not out
    done = len([line for line in ledger(tmp_path / "r") if line["kind"] == kind])
    assert 2 <= done < (12 if command is DARTS else 40)
    assert nas("resume", "r", "--quiet").status == 0
    assert nas(*command, "--set", more, "--run", "whole", "--quiet").status == 0
    if command is RANDOM:
        assert ledger(Path("r")) == ledger(Path("whole"))
    else:
        assert_equal_results(Path("r"), Path("whole"))


def test_an_interruption_before_the_run_begins(tmp_path: Path) -> None:
    process = begin(*DARTS, folder=tmp_path)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGTERM)  # the interpreter itself may still be starting
    assert "Traceback" not in err


def test_an_interruption_waits_for_what_must_be_whole() -> None:
    done = []

    def work() -> None:
        with interruption.held():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert done == ["whole"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


# --- a full disk --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 120 kB, for those who may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=120k", "none", str(place)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a file system here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("command", [DARTS, RANDOM, TRAIN], ids=["darts", "random", "train"])
def test_a_full_disk(nas: Command, small_disk: Path, command: list[str]) -> None:
    more = sets(
        ["budget=60trials"]
        if command is RANDOM
        else ["budget=12epochs"]
        if command is DARTS
        else ["train.epochs=6"]
    )
    assert nas(*command, *more, "--run", "whole", "--quiet").status == 0
    # Room for the start and a little more; each command needs more than that for the whole.
    filler = small_disk / "filler"
    run = small_disk / "r"
    filler.write_bytes(b"0" * (60 if command is RANDOM else 70) * 1024)
    full = nas(*command, *more, "--run", run, "--quiet")
    assert full.status == 1, full
    assert "the disk is full" in full.err
    assert full.err.count("error") == 1
    assert "Traceback" not in full.err
    if (run / "config.yaml").exists():
        assert f"nas resume {run}" in full.err
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    go_on = ["resume", run] if (run / "config.yaml").exists() else [*command, *more, "--run", run]
    resumed = nas(*go_on, "--quiet")
    assert resumed.status == 0, resumed.err
    assert ledger(run) == ledger(Path("whole"))
    if command is not RANDOM:
        assert_equal_results(run, Path("whole"))
    assert not list(run.rglob("*.part"))


def test_a_file_that_may_not_grow(nas: Command, tmp_path: Path) -> None:
    """A limit on the size of files: what a batch system sets."""
    limit = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
"""
    process = begin(*DARTS, "--run", "r", "--quiet", folder=tmp_path, before=limit)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert err.count("error: ") == 1
    assert nas(*(["resume", "r"] if Path("r/config.yaml").exists() else [*DARTS, "--run", "r"])).status == 0
    assert nas(*DARTS, "--run", "whole").status == 0
    assert_equal_results(Path("r"), Path("whole"))


def test_a_line_that_does_not_fit_leaves_no_torn_one(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Run.create(tmp_path / "r", {"seed": 0}, {}) as run:
        run.log("epoch", step=0)
        whole = (run.folder / "events.jsonl").read_bytes()
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 10, before[1]))
        try:
            with pytest.raises(OSError):
                run.log("epoch", step=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
        assert (run.folder / "events.jsonl").read_bytes() == whole


# --- executors ----------------------------------------------------------------------------------------------


def test_two_workers_give_what_one_gives(nas: Command, tmp_path: Path) -> None:
    more = ["--set", "search.lag=1", "--set", "budget=4trials", "--quiet"]
    two = begin(*RANDOM, *more, "--workers", 2, "--run", "two", folder=tmp_path)
    assert nas(*RANDOM, *more, "--run", "one").status == 0
    _, err = two.communicate(timeout=120)
    assert two.returncode == 0, err
    assert ledger(Path("one")) == ledger(Path("two"))
    assert ledger(Path("one"), without=()) == ledger(Path("two"), without=())
    assert Path("one/best.yaml").read_bytes() == Path("two/best.yaml").read_bytes()


def test_what_may_differ_between_equal_runs() -> None:
    """No more than was promised."""
    assert {"time", "seconds", "pid", "host", "worker"} == TRANSIENT


def test_workers_end_with_a_parent_that_is_killed(nas: Command, tmp_path: Path) -> None:
    """Not the group: the parent alone, as the system does when memory runs out."""
    more = ["--set", "budget=100000trials", "--quiet"]
    process = begin(*RANDOM, *more, "--workers", 2, "--run", "r", folder=tmp_path)
    wait_for(has_line(tmp_path / "r", "trial", 2), process)
    workers = descendants(process.pid)
    assert len(workers) == 3  # what workers are forks of, and they
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}/status").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [pid for pid in workers if Path(f"/proc/{pid}/status").exists()]
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive
