"""The files to start a cluster from: by Ray's schema, by what KubeRay demands, and run with stubs of SLURM.

Every `nas` command in them and in docs/cluster.md goes through the command line to a resolved configuration.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import nas.config
import nas.seeds  # before a part of nas.config is replaced, which it imports by name
from nas.cli.app import app

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "examples/cluster"
JOB = str(os.getpid())  # a number that nobody else has now
PORT = 20_000 + int(JOB) % 5000
DOCUMENT = ROOT / "docs/cluster.md"
STUBS = {
    "srun": 'while [[ $1 == -* ]]; do [ "$1" = -w ] && shift; shift; done; exec "$@"',
    "scontrol": "echo node-1; echo node-2",
    "hostname": "echo 192.0.2.1",
    "ray": 'echo "$@" >> "$TOLD/ray"; [ "$1" != start ] || sleep 1',
    "nas": 'printf "%s\\n" "$@" > "$TOLD/nas"; echo "$RAY_ADDRESS" > "$TOLD/address"; exit "${STATUS:-0}"',
    "python": 'exec "$PYTHON" "$@"',
}


class Resolved(Exception):
    """Ends a command when its configuration is there."""


def resolved(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The configuration of a `nas search` with these arguments, through the command line."""
    real, found = nas.config.resolve_search, []

    def resolve(*given: Any, **more: Any) -> Any:
        found.append(real(*given, **more))
        raise Resolved

    monkeypatch.setattr(nas.config, "resolve_search", resolve)
    with pytest.raises(Resolved):
        app(arguments, prog_name="nas", standalone_mode=False)
    monkeypatch.undo()
    return found[0]


def parsed(arguments: list[str]) -> None:
    """Raises a usage error if the command line does not know what is there."""
    group = typer.main.get_command(app)
    name, command, rest = group.resolve_command(group.make_context("nas", [arguments[0]]), arguments)
    command.make_context(name, rest)


def commands(text: str) -> Iterator[list[str]]:
    """The `nas` command lines of a text, in comments and in fences."""
    joined = re.sub(r"\\\n[#\s]*", " ", text)
    for line in joined.splitlines():
        found = re.match(r"[#\s$]*(nas (?:search|resume|report|list) .*)", line)
        if found:
            yield shlex.split(found[1], comments=True)[1:]


def texts() -> list[tuple[str, list[str]]]:
    """Where a command is written, and its arguments."""
    found = [
        (path.name, each)
        for path in (FOLDER / "ray-up.yaml", DOCUMENT)
        for each in commands(path.read_text())
    ]
    return [*found, ("kuberay.yaml", shlex.split(job()["spec"]["entrypoint"])[1:])]


def job() -> dict[str, Any]:
    documents = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text())
    return next(each for each in documents if each["kind"] == "RayJob")


def version() -> str:
    """Of Ray, as tested."""
    return re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]


# --- commands -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "arguments"), texts(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_commands_are_accepted(where: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments[0] != "search":
        parsed(arguments)
        return
    config = resolved(arguments, monkeypatch)
    assert config["executor"]["name"] in ("ray", "local")
    if where != DOCUMENT.name:
        assert config["executor"]["address"] == "auto"


def test_each_place_has_commands() -> None:
    assert {where for where, _ in texts()} == {"ray-up.yaml", "kuberay.yaml", "cluster.md"}
    assert sum(where == "cluster.md" for where, _ in texts()) >= 4


def test_a_wrong_key_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = shlex.split(job()["spec"]["entrypoint"])[1:]
    with pytest.raises(ValueError, match="gpu"):
        resolved([*arguments, "--set", "executor.gpu=1"], monkeypatch)


# --- ray up -------------------------------------------------------------------------------------------------


def test_ray_accepts_its_cluster() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((FOLDER / "ray-up.yaml").read_text()))
    validate_config(config)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"]["CPU"] == 0
    assert any(each["resources"].get("GPU") for each in types.values())
    assert config["docker"]["image"].startswith(f"rayproject/ray:{version()}-")
    assert not any("0.0.0.0" in line for line in config["head_start_ray_commands"])


# --- KubeRay ------------------------------------------------------------------------------------------------


def test_the_rayjob_has_what_the_crd_demands() -> None:
    made = job()
    assert made["apiVersion"] == "ray.io/v1"
    cluster = made["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == version()
    head, groups = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    for group in groups:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (head, *groups):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        names = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["image"].endswith(f"ray-{version()}")
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= names
            assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/shared"}
    assert head.get("serviceType") == "ClusterIP"
    assert cluster["authOptions"]["mode"] == "token"


def test_the_rayjob_asks_for_no_more_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    made = job()
    executor = resolved(shlex.split(made["spec"]["entrypoint"])[1:], monkeypatch)["executor"]
    [group] = made["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    there = group["maxReplicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])
    assert executor["workers"] * executor["gpus"] <= there


# --- SLURM --------------------------------------------------------------------------------------------------


@pytest.fixture
def batch(tmp_path: Path) -> Any:
    """Runs slurm.sh in a folder of its own, where SLURM, Ray and nas write down what they are told."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    for name, text in STUBS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), "TOLD": str(tmp_path),
        "PYTHON": sys.executable, "SLURM_JOB_ID": JOB, "SLURM_JOB_NODELIST": "node-[1-2]",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "16",
    }  # fmt: skip

    def run(**more: str) -> int:
        script = ["bash", FOLDER / "slurm.sh", "runs/first"]
        return subprocess.run(
            script, cwd=tmp_path, env=environment | more, timeout=30, check=False
        ).returncode

    return run


def test_the_batch_script_parses() -> None:
    assert subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], check=False).returncode == 0


def test_the_batch_script_searches(batch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch(STATUS="3") == 3
    config = resolved((tmp_path / "nas").read_text().splitlines(), monkeypatch)
    assert (config["executor"]["workers"], config["executor"]["address"]) == (8, "auto")
    started = [line for line in (tmp_path / "ray").read_text().splitlines() if line.startswith("start")]
    assert len(started) == 2
    assert sum("--head" in line for line in started) == 1
    assert (tmp_path / "address").read_text() == f"192.0.2.1:{PORT}\n"
    assert all("192.0.2.1" in line and str(PORT) in line for line in started)
    assert not list((tmp_path / ".ray").iterdir())  # the token
    assert not Path(f"/tmp/ray-{JOB}").exists()


def test_the_batch_script_goes_on(batch: Any, tmp_path: Path) -> None:
    (tmp_path / "runs/first").mkdir(parents=True)
    (tmp_path / "runs/first/config.yaml").touch()
    assert batch() == 0
    assert (tmp_path / "nas").read_text().splitlines() == ["resume", "runs/first"]
