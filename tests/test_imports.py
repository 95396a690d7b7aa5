"""Which room may import which, and which libraries: the table of docs/architecture.md, for every file there is."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "morphoclip"

# The ground: what any room may import. Nothing of ours stands below it.
GROUND = {
    "batch",
    "checkpoints",
    "chemistry",
    "distributed",
    "files",
    "filters",
    "lock",
    "progress",
    "schema",
    "version",
}
# Room -> rooms (or parts of rooms) it may import besides the ground and its own files.
MAY_IMPORT: dict[str, set[str]] = {
    "losses": set(),
    "augment": set(),
    "models": set(),
    "data.metadata": set(),
    "data.shards": {"data.metadata"},
    "data.splits": {"data.metadata"},
    "data.sampling": {"data.metadata", "data.shards", "data.splits"},
    "data.loading": {"data.metadata", "data.shards", "data.splits", "data.sampling"},
    "data": {"data.metadata", "data.shards", "data.splits", "data.sampling", "data.loading"},
    "simulation": {"data"},
    "preparation": {"data"},
    "training": {"losses"},
    "export": {"models"},
    "methods": {"models", "losses", "augment", "training", "export"},
    "profiling": {"export", "models", "data", "augment", "preparation"},
    "evaluation.ranking": set(),
    "evaluation.tasks": {"evaluation.ranking", ""},  # '': the folder of configs, which holds the tasks
    "evaluation.measures": {"evaluation.ranking", "evaluation.tasks"},
    "evaluation.card": {"evaluation.ranking", "evaluation.tasks", "evaluation.measures"},
    "evaluation.report": {"evaluation.ranking", "evaluation.tasks", "evaluation.measures", "evaluation.card"},
    "evaluation": {f"evaluation.{part}" for part in ("ranking", "tasks", "measures", "card", "report")},
    "screening": {"evaluation"},
}
ABOVE = set(MAY_IMPORT) | GROUND | {""}  # '' is `morphoclip` itself: the folder of its configs
MAY_IMPORT |= {
    "experiment": ABOVE,
    "cli": ABOVE | {"experiment"},
    "data_prep": {"preparation", "simulation", "data.metadata"},
    "train.py": {"cli"},
    "evaluate.py": {"cli"},
    "": {"export"},  # `morphoclip.load_encoder`
}
# Libraries a room may use besides the standard one. What is absent here is a decision too: no timm in evaluation.
TABLES = {"numpy", "pandas", "scipy", "torch", "tqdm"}
LAZY = {"lazy_loader"}
LIBRARIES: dict[str, set[str]] = {
    "": LAZY,
    "batch": {"torch"},
    "checkpoints": {"torch"},
    "distributed": {"torch"},
    "chemistry": {"rdkit", "numpy", "pandas"},
    "files": set(),
    "lock": set(),
    "filters": {"torch"},
    "progress": {"tqdm"},
    "version": set(),
    "schema": {"numpy", "pandas"},
    "losses": {"torch"},
    "augment": {"torch"},
    "models": {"torch", "timm", "transformers", "tokenizers", "numpy", "peft", "chemprop", "rdkit", "safetensors"} | LAZY,
    "data": TABLES | {"pyarrow", "numcodecs", "fsspec", "webdataset", "pytorch_lightning", "tifffile", "imagecodecs", "skimage"} | LAZY,
    "simulation": TABLES | {"tifffile", "imagecodecs", "skimage", "rdkit"} | LAZY,
    "preparation": TABLES | {"fsspec", "tifffile", "imagecodecs", "skimage"} | LAZY,
    "training": {"torch", "pytorch_lightning", "PIL", "torchmetrics", "numpy", "wandb"},
    "methods": {"torch", "pytorch_lightning", "hydra"},
    "export": {"torch", "numpy", "safetensors", "huggingface_hub", "timm", "transformers", "onnxruntime"} | LAZY,
    "profiling": TABLES | {"pyarrow", "anndata", "harmonypy", "safetensors", "PIL"} | LAZY,
    "evaluation": TABLES | {"sklearn", "statsmodels", "umap", "rdkit", "jinja2", "plotly", "PIL", "omegaconf"} | LAZY,
    "screening": TABLES | {"sklearn", "statsmodels", "rdkit"},
    "experiment": TABLES | {"hydra", "omegaconf", "pytorch_lightning", "rich", "optuna", "submitit", "plotly", "jinja2"},
    "cli": {"typer", "click", "rich", "tqdm", "hydra", "omegaconf", "torch", "numpy", "submitit"},
    "data_prep": set(),
    "train.py": set(),
    "evaluate.py": set(),
}  # fmt: skip
HEAVY = {"transformers", "rdkit", "umap", "plotly", "matplotlib", "sklearn.manifold"}
HEAVY_FREE = ["morphoclip", "morphoclip.data", "morphoclip.evaluation", "morphoclip.profiling", "morphoclip.models"]

FILES = [
    *sorted(SOURCE.rglob("*.py")),
    *sorted((ROOT / "data_prep").glob("*.py")),
    ROOT / "train.py",
    ROOT / "evaluate.py",
]


def module_of(path: Path) -> str:
    """Dotted name below `morphoclip` ('' is the package itself); of files outside, `data_prep` or the file's name."""
    if SOURCE not in path.parents:
        return "data_prep" if path.parent.name == "data_prep" else path.name
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def room_of(module: str) -> str:
    """The innermost room of the table that holds a module; the module's first part where none does."""
    parts = module.split(".") if module.endswith(".py") is False else [module]
    rooms = (".".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((room for room in rooms if room in MAY_IMPORT or room in GROUND), parts[0])


MODULES = {module_of(path): path for path in FILES if SOURCE in path.parents}


@cache
def imported(path: Path) -> frozenset[str]:
    """Every name `path` imports anywhere in it (inside functions and for type checkers too), absolute and dotted."""
    package = path.relative_to(ROOT / "src" if SOURCE in path.parents else ROOT).parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def own_imports(path: Path) -> set[str]:
    """The modules of this package that `path` imports: `models.norm`, or `models` for a name of its __init__."""
    found = set()
    for name in imported(path):
        if name == "morphoclip" or name.startswith("morphoclip."):
            target = name.removeprefix("morphoclip").removeprefix(".")
            while target not in MODULES:
                target = target.rpartition(".")[0]
            found.add(target)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_its_room_may(path: Path) -> None:
    module = module_of(path)
    room = room_of(module)
    assert room in MAY_IMPORT or room in GROUND, f"{path.name}: there is no room {room!r} in the table"
    allowed = MAY_IMPORT.get(room, set()) | {room}
    for target in own_imports(path):
        if room in GROUND:
            assert target in GROUND, f"{room} is ground and imports {target}"
            continue
        home = room_of(target)
        inside = home in allowed or any(home.startswith(f"{room}.") for room in allowed if room)
        assert home in GROUND or inside, f"{path.relative_to(ROOT)} ({room}) imports {target}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_uses_only_the_libraries_of_its_room(path: Path) -> None:
    room = module_of(path).split(".")[0] if SOURCE in path.parents else room_of(module_of(path))
    outside = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - {"morphoclip", "data_prep"}
    assert "lightning" not in outside, "import pytorch_lightning as pl"
    assert outside <= LIBRARIES[room], f"{path.name} imports {outside - LIBRARIES[room]}, which {room} does without"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module, and modules that import themselves."""
    import numpy as np
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    names = sorted(graph)
    row = {name: i for i, name in enumerate(names)}
    arrows = np.zeros((len(names), len(names)), bool)
    for name, targets in graph.items():
        arrows[row[name], [row[t] for t in targets]] = True
    _, component = connected_components(csr_matrix(arrows), directed=True, connection="strong")
    groups: dict[int, list[str]] = {}
    for name, number in zip(names, component, strict=True):
        groups.setdefault(number, []).append(name)
    return [group for group in groups.values() if len(group) > 1] + [[n] for n in names if n in graph[n]]


def test_no_two_files_import_each_other() -> None:
    assert circles({name: own_imports(path) for name, path in MODULES.items()}) == []


def test_a_circle_would_be_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_file_is_longer_than_300_lines() -> None:
    long = {str(path.relative_to(ROOT)): n for path in FILES if (n := len(path.read_text().splitlines())) > 300}
    assert not long


def test_importing_the_rooms_leaves_heavy_libraries_alone() -> None:
    program = f"import sys, {', '.join(HEAVY_FREE)}; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
