"""Every start of a run records its code, machine and datasets; changes of the code are named when a run goes on."""

from __future__ import annotations

import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import morphoclip
from morphoclip.data.shards.dataset import ShardDataset
from morphoclip.experiment import environment
from morphoclip.experiment.environment import (
    code_change,
    code_of,
    manifest_hashes,
    read_starts,
    record_datasets,
    record_start,
    variables,
)
from morphoclip.export import training_data
from morphoclip.version import __version__


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package in a checkout of one commit, which takes the place of ours."""
    folder = tmp_path / "checkout/src/package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("VALUE = 1\n")
    top = tmp_path / "checkout"
    git(top, "init", "-q")
    git(top, "add", ".")
    git(top, "commit", "-qm", "first")
    monkeypatch.setattr(environment.morphoclip, "__file__", str(folder / "__init__.py"))
    return folder


def test_each_start_has_its_commit_and_its_changes(package, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    record_start(run)
    assert sorted(path.name for path in run.iterdir()) == ["environment.json"]  # nothing is uncommitted
    record_start(run)
    assert capsys.readouterr().out == ""

    (package / "__init__.py").write_text("VALUE = 2\n")
    (package / "new file.py").touch()
    record_start(run)
    assert "-VALUE = 1\n+VALUE = 2\n" in (run / "code-3.diff").read_text()
    assert "other uncommitted changes than at the start before (none -> code-3.diff)" in capsys.readouterr().out
    record_start(run)
    assert capsys.readouterr().out == ""
    first = git(package, "rev-parse", "HEAD").strip()
    git(package, "commit", "-qam", "second")
    second = git(package, "rev-parse", "HEAD").strip()
    record_start(run)
    assert f"code: {first[:12]} at the start before, {second[:12]} now\n" == capsys.readouterr().out
    starts = read_starts(run)
    assert [start["commit"] for start in starts] == [first] * 4 + [second]
    assert [start["diff"] for start in starts] == [None, None, "code-3.diff", "code-3.diff", None]
    assert [start["untracked"] for start in starts] == [[]] * 2 + [["src/package/new file.py"]] * 3
    assert sorted(path.name for path in run.iterdir()) == ["code-3.diff", "environment.json"]


def test_changes_of_the_first_start_are_code_diff(package, tmp_path):
    (package / "__init__.py").write_bytes(b"VALUE = 'caf\xe9'\n")  # no UTF-8
    record_start(tmp_path)
    assert b"+VALUE = 'caf\xe9'\n" in (tmp_path / "code.diff").read_bytes()


def test_an_installed_package_has_its_version_also_within_a_checkout(package, tmp_path):
    installed = package.parents[1] / ".venv/site-packages/package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    code, diff = code_of(installed)
    assert (code["commit"], code["version"], diff) == (None, __version__, b"")
    assert code_change(code, {**code, "version": "0.0.1"}) == (
        f"code: version {__version__} at the start before, version 0.0.1 now"
    )


def test_without_git_there_is_the_version(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_of(Path(morphoclip.__file__).parent)[0]["commit"] is None


def test_the_machine_and_its_packages_are_recorded(tmp_path):
    record_start(tmp_path)
    (start,) = read_starts(tmp_path)
    assert start["torch"] == torch.__version__
    assert {name: start["packages"][name] for name in ("torch", "hydra-core")} == {
        name: version(name) for name in ("torch", "hydra-core")
    }
    assert start["cuda"] == torch.version.cuda
    assert start["gpus"] == [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    assert start["cpus"] >= 1
    assert {"host", "system", "python", "variables", "started"} <= set(start)


def test_variables_of_the_launcher_are_recorded_and_no_secret():
    given = {"SLURM_JOB_ID": "17", "LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "0", "HOME": "/home/a"}
    secret = {
        "WANDB_API_KEY": "x",
        "SLURM_JWT": "x",
        "NCCL_secret": "x",
        "MORPHOCLIP_TOKEN": "x",
        "WANDB_PASSWORD": "x",
    }
    assert variables({**given, **secret}) == {name: given[name] for name in given if name != "HOME"}


def test_datasets_have_the_hash_that_encoders_and_profiles_carry(screen, tmp_path):
    data = OmegaConf.create({"root": "unused", "loader": {"datasets": [{"root": str(screen)}]}})
    record_start(tmp_path)
    record_datasets(tmp_path, data)
    expected = training_data(ShardDataset(screen))["manifest_sha256"]
    assert read_starts(tmp_path)[-1]["datasets"] == {str(screen): expected}
    manifest = json.loads((screen / "manifest.json").read_text())
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved/manifest.json").write_text(json.dumps(manifest, indent=7))
    moved = OmegaConf.create({"root": str(tmp_path / "moved"), "loader": {}})
    assert list(manifest_hashes(moved).values()) == [expected]
    assert manifest_hashes(OmegaConf.create({"root": str(tmp_path), "loader": {}})) == {}
