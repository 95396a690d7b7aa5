"""model.onnx: an encoder for ONNX Runtime and others that read ONNX."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from morphoclip.export.graph import Graph
from morphoclip.export.torch_export import traced

ONNX = "model.onnx"
TOLERANCE = 1e-4  # relative to features of size 1 and more


def write_onnx(graph: Graph, folder: Path, program: torch.export.ExportedProgram | None = None) -> float | None:
    """Write `folder`/model.onnx and model.onnx.data, its weights; both belong together.

    Args:
        program: the graph as `torch_export.traced` before; None to trace it now.

    Returns:
        The largest difference of ONNX Runtime's features from the encoder's on example crops; None if it is not installed.

    Raises:
        ImportError: onnx or onnxscript is not installed.
        ValueError: an operation that ONNX lacks, or features that differ by more than `TOLERANCE`.
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise ImportError(f"--format onnx needs {' and '.join(missing)}: pip install onnx onnxscript onnxruntime")
    path = folder / ONNX
    try:
        written = torch.onnx.export(
            traced(graph) if program is None else program,
            input_names=list(graph.inputs),
            output_names=["features"],
            dynamo=True,
            verbose=False,
            opset_version=18,
        )
        assert written is not None  # with dynamo=True
        for node in written.model.graph.all_nodes():
            node.metadata_props.clear()  # stack traces with paths of the machine that exports
        written.save(path, external_data=True)
    except torch.onnx.errors.OnnxExporterError as error:
        line = str(error).strip().splitlines()[0]
        raise ValueError(f"ONNX cannot hold this encoder ({line}): use --format torch_export") from error
    if find_spec("onnxruntime") is None:
        return None
    import numpy as np

    expected = graph.features().numpy()
    found = run_onnx(path, {name: value.numpy() for name, value in graph.inputs.items()})
    difference = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"ONNX Runtime's features differ from the encoder's by {difference:.1e}: leave out --format onnx"
        )
    return difference


def run_onnx(path: str | Path, inputs: dict) -> object:
    """The features of numpy arrays by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["features"], inputs)[0]
