"""The arrows of the design: which room may import which. A new arrow is a decision, not an accident."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "morphoclip"
ANYWHERE = {"batch", "distributed"}
MAY_IMPORT: dict[str, set[str]] = {
    "batch": set(),
    "distributed": set(),
    "losses": set(),
    "augment": set(),
    "models": set(),
    "data": set(),
    "training": {"losses"},
    "methods": {"models", "losses", "augment", "training"},
    "profiling": {"models", "data", "augment"},
    "evaluation": {"data.schema"},  # the names of the columns, and nothing that loads an image
    "screening": {"evaluation", "data.schema"},
    "alignment": {"evaluation", "data.schema"},
    "data_prep": {"data"},
}
# Libraries a room may use besides the standard one. What is absent here is a decision too: no timm in evaluation.
TABLES = {"numpy", "pandas", "scipy", "torch", "tqdm"}
LIBRARIES: dict[str, set[str]] = {
    "batch": {"torch"},
    "distributed": {"torch"},
    "losses": {"torch"},
    "augment": {"torch"},
    "models": {"torch", "timm", "transformers", "tokenizers", "rdkit", "numpy", "peft", "chemprop", "safetensors"},
    "data": TABLES
    | {
        "pyarrow",
        "numcodecs",
        "fsspec",
        "skimage",
        "tifffile",
        "imagecodecs",
        "webdataset",
        "rdkit",
        "pytorch_lightning",
        "typer",
    },
    "training": {"torch", "pytorch_lightning", "PIL"},
    "methods": {"torch", "pytorch_lightning", "hydra"},
    "profiling": TABLES | {"anndata", "harmonypy", "huggingface_hub", "safetensors", "PIL"},
    "evaluation": TABLES | {"sklearn", "statsmodels", "umap", "rdkit", "jinja2", "plotly", "PIL"},
    "screening": TABLES | {"sklearn", "statsmodels", "rdkit"},
    "alignment": TABLES | {"sklearn"},
    "data_prep": set(),
}
HEAVY = {"transformers", "rdkit", "umap", "plotly", "matplotlib", "sklearn.manifold"}
HEAVY_FREE = ["morphoclip", "morphoclip.data", "morphoclip.evaluation", "morphoclip.profiling", "morphoclip.models"]


def modules() -> list[tuple[str, Path]]:
    """(room, file) of every module; the package's own __init__, the command line and what runs and scores experiments may."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room not in {"__init__", "cli", "rotation", "run_report", "run_scores"}:
            found.append((room, path))
    return found + [("data_prep", path) for path in sorted((ROOT / "data_prep").glob("*.py"))]


def imported(path: Path) -> set[str]:
    """Every module `path` imports anywhere in it, absolute."""
    package = path.relative_to(ROOT / "src" if SOURCE in path.parents else ROOT).parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: getattr(value, "stem", value))
def test_arrows(room: str, path: Path) -> None:
    assert room in MAY_IMPORT, f"{room} is a room DESIGN §2 does not know"
    for name in imported(path):
        if not name.startswith("morphoclip."):
            continue
        target = name.removeprefix("morphoclip.")
        allowed = MAY_IMPORT[room] | ANYWHERE | {room}
        assert any(target == a or target.startswith(f"{a}.") for a in allowed), f"{path.name} imports {name}"


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: getattr(value, "stem", value))
def test_libraries(room: str, path: Path) -> None:
    outside = {n.split(".")[0] for n in imported(path)} - sys.stdlib_module_names - {"morphoclip", room}
    assert outside <= LIBRARIES[room], f"{path.name} imports {outside - LIBRARIES[room]}, which {room} does without"


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: getattr(value, "stem", value))
def test_one_lightning(room: str, path: Path) -> None:
    assert not {n for n in imported(path) if n.split(".")[0] == "lightning"}, "import pytorch_lightning as pl"


def test_importing_the_rooms_leaves_heavy_libraries_alone() -> None:
    program = f"import sys, {', '.join(HEAVY_FREE)}; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
