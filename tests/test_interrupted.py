"""What else happens to a run: a second process, Ctrl-C, a full disk, a torn line, other data, workers."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_kill import KINDS, assert_same_bits, command, finished, ledger, start

from nas.run import Run, events


def wait_for(path: Path) -> None:
    """Until the run has reported a step."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().count("\n") > 0):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert finished(start(command("darts", run), run.parent))
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_by_a_signal(number: int, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(command("darts", run), tmp_path)
    wait_for(run / "events.jsonl")
    second = start(["resume", str(run)], tmp_path)
    _, refused = second.communicate(timeout=60)
    if process.poll() is None:
        assert second.returncode == 2
        assert f"process {process.pid} on " in refused
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"nas resume {run}" in errors
    assert finished(start(command("darts", run), tmp_path))
    assert_same_bits(run, undisturbed)


def test_a_full_disk_loses_nothing(undisturbed: Path, tmp_path: Path) -> None:
    """Files may not grow beyond what the first epoch needs: writing fails as on a full disk."""
    run = tmp_path / "run"
    size = (undisturbed / "checkpoint.pt").stat().st_size - 1000

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    code = [sys.executable, "-c", "from nas.cli import main; main()", *command("darts", run)]
    ended = subprocess.run(
        code, cwd=tmp_path, preexec_fn=limited, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert f"nas resume {run}" in ended.stderr
    assert not list(run.rglob("*.part"))
    assert finished(start(command("darts", run), tmp_path))
    assert_same_bits(run, undisturbed)


def test_a_real_full_disk(undisturbed: Path, tmp_path: Path) -> None:
    """The same on a small file system, where one can be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode:
        return  # not allowed here; the test above stands for it
    try:
        run = disk / "run"
        process = start(command("darts", run), tmp_path)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert "the disk is full" in errors
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert finished(start(command("darts", run), tmp_path))
        assert_same_bits(run, undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_torn_last_line_is_cut_off_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {"command": "search"}, {}) as run:
        run.log("epoch", step=1)
        run.log("epoch", step=2)
    path = tmp_path / "run" / "events.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind": "epo')
    with Run.open(tmp_path / "run"):
        assert path.read_bytes() == whole
    path.write_bytes(b"rubbish\n" + whole)
    with pytest.raises(ValueError, match="line 1"):
        list(events(tmp_path / "run"))
    assert path.read_bytes() == b"rubbish\n" + whole


def test_workers_change_nothing_but_the_time(tmp_path: Path) -> None:
    lag = ["--set", "search.lag=1", "--controls", "0"]
    for workers in ("1", "2"):
        arguments = [*KINDS["random"], *lag, "--workers", workers, "--run", str(tmp_path / workers)]
        assert finished(start(arguments, tmp_path))
    assert ledger(tmp_path / "1") == ledger(tmp_path / "2")
    assert (tmp_path / "1" / "best.yaml").read_bytes() == (tmp_path / "2" / "best.yaml").read_bytes()


def test_other_data_are_refused_on_resume(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("limit: 100", "limit: 90"))
    process = start(["resume", str(run)], tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "the data are not those" in errors
