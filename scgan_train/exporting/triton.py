"""A bundle as a model repository for Triton Inference Server.

A graph is a folder: `config.pbtxt` beside `1/model.onnx`. Triton joins requests along the first
dimension, if every tensor of a model has it open. Its configuration then leaves that dimension out;
what is left may not be empty, so a tensor [n] travels as [n, 1] and is reshaped on its way.
`sampler.onnx` takes one seed a call and can't be joined: it is configured by whole shapes, and on
the CPU, since onnxruntime has no CUDA kernels for bits of integers. Small graphs run fastest in
calls of one block and in one thread each; Triton has several instances of a model for more.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from scgan_infer import bundle as bundles
from scgan_infer.bundle import Bundle
from scgan_infer.bundle.interfaces import Tensors
from scgan_infer.bundle.onnx_schema import FLOAT, INT64
from scgan_infer.errors import DataError
from scgan_infer.files import write_bytes
from scgan_infer.sampling.noise import BLOCK

TYPES = {FLOAT: "TYPE_FP32", INT64: "TYPE_INT64"}


def repository(path: str | Path, out: str | Path) -> Path:
    """Write a bundle's graphs as Triton models named BUNDLE_encoder, ..., BUNDLE_sampler.

    Args:
        path: the bundle's folder, whose name becomes BUNDLE.
        out: the repository, returned; its other models are left alone, and these models replaced.

    Raises:
        ModelError: not a bundle.
        ChecksumError: a file of it is not the one that the manifest names.
        DataError: the repository can't be written.
    """
    bundle, out = bundles.load(path), Path(out)
    prefix = re.sub(r"[^A-Za-z0-9_.-]", "_", bundle.path.resolve().name)
    try:
        for graph, data in bundle.graphs.items():
            name = f"{prefix}_{Path(graph).stem}"
            (out / name / "1").mkdir(parents=True, exist_ok=True)
            write_bytes(out / name / "1" / "model.onnx", data)
            write_bytes(out / name / "config.pbtxt", config(bundle, graph, name).encode())
    except OSError as error:
        raise DataError(
            f"can't write the model repository {out}: {error.strerror or error}"
        ) from None
    return out


def config(bundle: Bundle, graph: str, name: str) -> str:
    """Return the configuration of a graph as the model `name`: a ModelConfig message as text."""
    inputs, outputs = bundle.manifest.interfaces[graph]
    joined = all(shape[0] == 0 for _, shape in (*inputs.values(), *outputs.values()))
    columns = json.dumps([column.name for column in bundle.manifest.columns])
    return f"""# {graph} of the bundle with SHA-256 {bundle.sha256}
# columns of x: {columns}
name: "{name}"
backend: "onnxruntime"
max_batch_size: {BLOCK if joined else 0}
{"dynamic_batching { }" if joined else "instance_group [ { kind: KIND_CPU } ]"}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
{_tensors("input", inputs, joined)}
{_tensors("output", outputs, joined)}
"""


def _tensors(field: str, tensors: Tensors, joined: bool) -> str:
    """Return the field of a graph's inputs or outputs, without their first dimension if joined."""
    entries = []
    for name, (kind, shape) in tensors.items():
        dims = [size or -1 for size in shape[joined:]]
        kept = f"dims: {dims}" if dims else "dims: [1] reshape { shape: [] }"
        entries.append(f'  {{ name: "{name}" data_type: {TYPES[kind]} {kept} }}')
    return f"{field} [\n" + ",\n".join(entries) + "\n]"
