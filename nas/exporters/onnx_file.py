"""onnx: one file, any batch, run again by ONNX Runtime."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.exporters.job import EXPORTERS, Job, Written


@EXPORTERS.register("onnx")
def write_onnx(job: Job, *, folder: Path) -> Written:
    """ONNX with a free batch size; its facts are in the metadata"""
    path = folder / f"{job.facts.slug}.onnx"
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _folded(job.network),
            (job.example,),
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # where the code lay on this machine
        program.model.metadata_props.update(job.facts.texts())
        model = program.model_proto
        _keep_padding(model.graph)
        path.write_bytes(model.SerializeToString())

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        found = session.get_modelmeta().custom_metadata_map
        if any(found.get(key) != text for key, text in job.facts.texts().items()):
            raise ValueError("the file lost its metadata")
        return [torch.from_numpy(session.run(["logits"], {"input": x.numpy()})[0]) for x in inputs]

    return Written((path,), run)


def _keep_padding(graph: Any) -> None:
    """Name the axes of every Pad before a MaxPool, which changes nothing but keeps the two apart.

    ONNX Runtime merges padding by zeros into a MaxPool, whose own padding is less than any number: the
    maximum of negative numbers at a border changes. It leaves alone a Pad that names its axes.
    """
    import onnx

    pooled = {name for node in graph.node if node.op_type == "MaxPool" for name in node.input}
    pads = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        inputs = [*node.input, "", ""][:4]  # values, how much on each side, of what, along which axes
        if node.op_type == "Pad" and inputs[1] in pads and not inputs[3] and node.output[0] in pooled:
            rank = pads[inputs[1]].dims[0] // 2
            axes = onnx.numpy_helper.from_array(
                np.arange(rank, dtype=np.int64), name=f"{node.output[0]}_axes"
            )
            graph.initializer.append(axes)
            node.input[:] = [*inputs[:3], axes.name]


def _folded(network: nn.Module) -> nn.Module:
    """A copy in which norms are folded into the convolutions before them.

    ONNX Runtime would do it anyhow; here it halves the nodes to trace, and with them the time of the export.
    """
    folded = copy.deepcopy(network)
    for sequence in folded.modules():
        if type(sequence) is not nn.Sequential:
            continue
        for i, (layer, norm) in enumerate(zip(sequence, list(sequence)[1:], strict=False)):
            if type(layer) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.running_mean is not None:
                sequence[i] = nn.utils.fuse_conv_bn_eval(layer, norm)
                sequence[i + 1] = nn.Identity()
    return folded


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what torch.onnx prints, logs and warns of from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
