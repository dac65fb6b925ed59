"""Exporters: a network as files that live without this framework, each loaded again and compared."""

from nas.exporters import onnx_file, python_file, torch_program, yaml_file
from nas.exporters.checked import export
from nas.exporters.job import EXPORTERS, Exported, Exporter, ExportError, Facts, Job, Written

__all__ = [
    "EXPORTERS", "ExportError", "Exported", "Exporter", "Facts", "Job", "Written", "export",
    "onnx_file", "python_file", "torch_program", "yaml_file",
]  # fmt: skip
