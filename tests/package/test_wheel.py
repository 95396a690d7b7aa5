"""What people install: a wheel built, installed apart from the checkout, and used from another folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
PLATES = ROOT / "../shared/data/cpjump1"
UV = shutil.which("uv")
SMALL = [
    *["data.screen.n_genes=2", "data.screen.compounds_per_gene=2", "data.screen.dmso_wells=4"],
    *["data.screen.nontargeting_wells=4", "data.screen.lacz_wells=4", "data.screen.field_size=128"],
    *["data.screen.compound_plates=[1,0,1]", "data.screen.crispr_plates=[0,0,0]", "data.screen.orf_plates=[0,0,0]"],
    *["trainer.max_steps=2", "data.loader.global_batch_size=8", "~callbacks.knn"],
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    if UV is None:
        pytest.skip("uv, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([UV, "build", "--wheel", "--quiet", "--out-dir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The `morphoclip` command of an environment that holds the wheel and, by a .pth file, the libraries of this one."""
    home = tmp_path_factory.mktemp("apart")
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(home)], check=True)
    python = home / "bin/python"
    install = [UV, "pip", "install", "--quiet", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True)
    libraries = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    # Libraries only: the checkout's own editable install lies in a .pth file, which is not followed from here.
    (Path(libraries) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin/morphoclip"


def run(command: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [str(command), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_the_wheel_holds_the_package_its_configs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"morphoclip", next(top for top in tops if top.endswith(".dist-info"))}
    for needed in ("py.typed", "configs/train.yaml", "configs/experiment/demo.yaml", "cli/main.py"):
        assert f"morphoclip/{needed}" in names
    assert "morphoclip/evaluation/report/report.html.j2" in names
    assert "morphoclip/evaluation/card/published_cpjump1.csv" in names


def test_what_is_installed_is_not_the_checkout(installed, tmp_path):
    where = "import morphoclip; print(morphoclip.__file__, morphoclip.configs_dir())"
    found = run(installed.with_name("python"), "-c", where, cwd=tmp_path).stdout
    assert str(ROOT) not in found
    assert run(installed, "--version", cwd=tmp_path).stdout.startswith("morphoclip ")


def test_a_recipe_trains_from_any_folder(installed, tmp_path):
    run(installed, "train", "experiment=kim2025_simclr_debug", *SMALL, "run_id=1", "output_dir=runs", cwd=tmp_path)
    made = tmp_path / "runs/kim2025_simclr_debug/1"
    assert (made / "encoder/model.safetensors").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs"]


def test_real_plates_are_scored_from_any_folder(installed, tmp_path):
    if not PLATES.is_dir():
        pytest.skip("no ../shared/data/cpjump1 beside the checkout")
    plates = PLATES.resolve()
    given = [f"profiles={plates}/profiles/*.csv.gz", f"metadata={plates}/metadata", "protocol=cpjump1"]
    quick = ["tasks=[replicate]", "p_convention=copairs", "null_size=100", "umap=false", "output_dir=scores"]
    run(installed, "evaluate", *given, *quick, cwd=tmp_path)
    metrics = pd.read_csv(tmp_path / "scores/metrics.csv").set_index(["task", "subset", "metric"])["value"]
    assert metrics["replicate", "all", "mean_average_precision"] == pytest.approx(0.66456, abs=1e-5)
