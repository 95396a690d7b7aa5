"""model.pt2: an encoder as a program of torch.export, which runs without morphoclip or the model's code."""

from __future__ import annotations

from pathlib import Path

import torch

from morphoclip.export.graph import Graph

PT2 = "model.pt2"


def write_torch_export(graph: Graph, folder: Path, program: torch.export.ExportedProgram | None = None) -> Path:
    """Write `folder`/model.pt2; `torch.export.load(path).module()(*inputs)` gives the same features exactly.

    Args:
        program: the graph as `traced` before; None to trace it now.

    Raises:
        ValueError: torch.export cannot trace the encoder, or the program gives other features.
    """
    path = folder / PT2
    torch.export.save(traced(graph) if program is None else program, path)
    with torch.no_grad():
        found = torch.export.load(path).module()(*graph.examples)
    if not torch.equal(found, expected := graph.features()):
        raise ValueError(
            f"the exported program differs from the encoder by up to {(found - expected).abs().max():.1e}: leave out "
            "--format torch_export"
        )
    return path


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """The exported program, with free batch sizes, and without paths of this machine and example inputs.

    Raises:
        ValueError: torch.export cannot trace the encoder.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(graph.module, graph.examples, dynamic_shapes=graph.dynamic_shapes)
    except Exception as error:  # torch._dynamo and torch.export raise errors of many kinds
        line = next(iter(str(error).strip().splitlines()), "")
        raise ValueError(f"torch.export cannot trace this encoder ({type(error).__name__}: {line})") from error
    program.example_inputs = None  # they would be stored as a pickle
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)
    return program
