"""python: one file that reads like code a person wrote, and its weights; it imports torch alone."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from nas.exporters.job import EXPORTERS, ExportError, Facts, Job, Written
from nas.exporters.source import Closure, called, listing, literal, simplified
from nas.network import Network
from nas.primitives import resolve

DTYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
RESERVED = {
    "load", "read_weights", "INPUT", "MEAN", "STD", "CLASSES", "DTYPES", "WEIGHTS",
}  # fmt: skip

IMPORTS = (
    ("json", None), ("struct", None), ("pathlib", "Path"),
    ("torch", None), ("torch", "Tensor"), ("torch", "nn"),
)  # fmt: skip

READER = '''
def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: the length of the header, the header in JSON, then the bytes"""
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    weights = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            flat = torch.frombuffer(content[start:end], dtype=DTYPES[entry["dtype"]])
            weights[name] = flat.reshape(entry["shape"])
    return weights


def load(path: str | Path | None = None) -> nn.Module:
    """The network with its weights, which lie beside this file unless `path` says otherwise, for inference"""
    network = {maker}()
    network.load_state_dict(read_weights(Path(path) if path else Path(__file__).with_name(WEIGHTS)))
    return network.eval()


if __name__ == "__main__":
    with torch.no_grad():
        print(tuple(load()(torch.randn(1, *INPUT)).shape))
'''

CHECK = """
import importlib.util, sys, torch

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"the exported file must not import {{name}}")

sys.meta_path.insert(0, Blocker())
torch.set_num_threads({threads})
spec = importlib.util.spec_from_file_location("exported", {source!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
network = module.load()
with torch.no_grad():
    outputs = [network(x) for x in torch.load({inputs!r}, weights_only=True)]
torch.save(outputs, {outputs!r})
"""


@EXPORTERS.register("python")
def write_python(job: Job, *, folder: Path) -> Written:
    """One Python file of classes and loops that imports torch alone, with its weights as safetensors"""
    source, weights = folder / f"{job.facts.slug}.py", folder / f"{job.facts.slug}.safetensors"
    maker = "Network" if isinstance(job.network, Network) else "build"
    closure = Closure(_functions(job), imports=IMPORTS, reserved={*RESERVED, maker})
    if isinstance(job.network, Network):
        body, state = _from_graph(job.network, job.facts, closure)
    else:
        body, state = _from_factory(job, closure), dict(job.network.state_dict())
    weights.write_bytes(save({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}))
    text = _file(job.facts, closure, body=body, maker=maker, weights=weights.name, state=state)
    source.write_text(text, encoding="utf-8")
    local = {type(job.network).__module__.partition(".")[0], "nas", "baselines"} - {"__main__", "torch"}

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        return run_file(source, inputs=inputs, blocked=local)

    return Written((source, weights), run)


def _functions(job: Job) -> list[Callable[..., Any]]:
    """What the file is made of: primitives, or the function that built the network."""
    if isinstance(job.network, Network):
        return [resolve(call.op).build for call in simplified(job.network).calls if not call.join]
    if job.factory is None:
        raise ExportError(
            f"format 'python' needs to know what built {job.facts.name!r}, which is no graph: give the "
            "function and its arguments as `factory`, or export to onnx or torch"
        )
    return [job.factory[0]]


def _from_graph(network: Network, facts: Facts, closure: Closure) -> tuple[str, dict[str, Tensor]]:
    """The classes of a graph's network, and its weights under their names there."""
    program = simplified(network)
    makers = {c.op: closure.name(resolve(c.op).build) for c in program.calls if not c.join}
    shape = ", ".join(str(size) for size in facts.input)
    summary = f"(batch, {shape}) -> (batch, {network.classes}), logits"
    found = listing(program, summary=summary, maker=makers.__getitem__, taken=set(closure.taken))
    state = {
        f"{path}.{key}": tensor
        for name, path in found.paths.items()
        for key, tensor in network.nodes[name].state_dict().items()
    }
    return found.text, state


def _from_factory(job: Job, closure: Closure) -> str:
    """The function that builds a network written by hand, after all that it needs."""
    assert job.factory is not None
    function, arguments = job.factory
    for name, value in arguments.items():
        if not _literal(value):
            raise ExportError(f"format 'python' writes arguments as literals, and {name}={value!r} is none")
    given = [f"{name}={literal(value)}" for name, value in arguments.items()]
    lines = called(closure.name(function), given, indent=4)
    return "\n".join(["def build() -> nn.Module:", '    """The network without its weights"""', *lines])


def _literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _file(
    facts: Facts, closure: Closure, *, body: str, maker: str, weights: str, state: dict[str, Tensor]
) -> str:
    title = facts.name.replace("\\", "/").replace('"', "'").replace("\n", " ")
    names = {DTYPES[tensor.dtype]: str(tensor.dtype) for tensor in state.values()}
    constants = [
        f"INPUT = {tuple(facts.input)!r}  # channels, height, width",
        *_constant("MEAN", facts.mean, "of each channel, for images in 0..1"),
        *_constant("STD", facts.std),
        *_classes(facts),
        f"WEIGHTS = {json.dumps(weights)}",
        "DTYPES = {" + ", ".join(f'"{key}": {name}' for key, name in sorted(names.items())) + "}",
    ]
    docstring = textwrap.wrap(f"{title}: a network for inference.", 105, break_long_words=True)
    docstring[0] = f'"""{docstring[0]}'
    docstring += ["", f"`load()` gives it with its weights, which are in {weights}.", "Needs torch alone."]
    pieces = [
        "\n".join([*docstring, '"""', "", "from __future__ import annotations", "", closure.imports]),
        "\n".join(constants),
    ]
    definitions = [closure.text, body, READER.strip().replace("{maker}", maker)]
    return "\n\n".join(pieces) + "\n\n\n" + "\n\n\n".join(definitions) + "\n"


def _classes(facts: Facts) -> list[str]:
    if facts.numbered and facts.classes:
        return [f"CLASSES = tuple(str(number) for number in range({len(facts.classes)}))"]
    return _constant("CLASSES", facts.classes)


def _constant(name: str, values: Sequence[float | str], comment: str = "") -> list[str]:
    """A tuple as a constant, on as many lines as it needs."""
    line = f"{name} = {literal(tuple(values))}"
    if comment and len(f"{line}  # {comment}") <= 110:
        return [f"{line}  # {comment}"]
    if len(line) <= 110:
        return [line]
    rows: list[str] = [""]
    for item in map(literal, values):
        if len(rows[-1]) + len(item) > 100:
            rows.append("")
        rows[-1] += f"{item}, "
    return [f"{name} = (", *(f"    {row.rstrip()}" for row in rows), ")"]


def run_file(source: Path, *, inputs: Sequence[Tensor], blocked: set[str]) -> list[Tensor]:
    """Run an exported file in a process of its own, in which the packages `blocked` cannot be imported.

    Raises ExportError with the last line of what the process says if it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, found = Path(scratch) / "inputs.pt", Path(scratch) / "outputs.pt"
        torch.save(list(inputs), given)
        code = CHECK.format(
            blocked=sorted(blocked), threads=torch.get_num_threads(), source=str(source), inputs=str(given),
            outputs=str(found),
        )  # fmt: skip
        command = [sys.executable, "-I", "-c", code]
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise ExportError(f"format 'python': the file does not run by itself: {last}")
        outputs: list[Tensor] = torch.load(found, weights_only=True)
        return outputs
