"""Launches that cannot work: one line each that names the key or file, and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from morphoclip.cli.hydra_app import main
from tests.experiment.test_first_screen import TINY
from tests.methods.resume import small_screen

RANKS = {"LOCAL_WORLD_SIZE": "16", "WORLD_SIZE": "16", "RANK": "0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A dataset, a finished run on it, and files that are no checkpoints of ours."""
    made = tmp_path_factory.mktemp("launches")
    small_screen(made / "screen")
    main("train", [*TINY, f"data.root={made}/screen", f"output_dir={made}", "run_id=good", "trainer.max_epochs=1", "callbacks.knn=null"])  # fmt: skip
    torch.save({"state_dict": {"a": torch.zeros(2)}}, made / "other.ckpt")
    torch.save({"a": torch.zeros(2)}, made / "plain.ckpt")
    (made / "junk.ckpt").write_bytes(b"no checkpoint")
    return made


DATA = ["data.root={folder}/screen", "output_dir={folder}"]
EMBED = ["dataset={folder}/screen", "output_dir={folder}/scores"]
# (command, arguments, variables of a launcher, exit status, what the line says)
LAUNCHES: list[tuple[str, list[str], dict[str, str], int, str]] = [
    # no GPU
    ("train", ["trainer=gpu"], {}, 1, "trainer.accelerator=gpu, but torch finds no GPU"),
    # more ranks than there is work for
    ("train", [*TINY, *DATA, "data.loader.global_batch_size=8"], RANKS, 1, "global_batch_size=8 cannot be divided among 16 ranks"),
    ("train", [*TINY, *DATA, "data.loader.global_batch_size=80"], {}, 1, "72 crops are fewer than a batch of 80 (all ranks)"),
    ("train", ["trainer.accumulate_grad_batches=2"], {}, 1, "follows from data.loader.global_batch_size"),
    # another launch than the config asks for
    ("train", ["trainer.devices=4"], {}, 1, "torchrun --nproc-per-node 4 train.py"),
    ("train", ["trainer.num_nodes=2"], {}, 1, "torchrun --nnodes 2"),
    ("train", ["trainer=ddp_multinode"], {}, 1, "trainer.num_nodes is not set"),
    ("train", ["trainer=fsdp", "callbacks.checkpoint=null"], {}, 1, "trainer=fsdp needs callbacks.checkpoint"),
    # settings
    ("train", ["trainer.precision=half"], {}, 1, "trainer.precision=half: use one of 32-true"),
    ("train", ["rank_timeout=soon"], {}, 1, "rank_timeout='soon': give HH:MM:SS"),
    ("train", ["max_time=soon"], {}, 1, "max_time='soon': give HH:MM:SS"),
    ("train", [*TINY, *DATA, "trainer.compile=nope"], {}, 1, "trainer.compile=nope: give true, false"),
    ("train", [*TINY, *DATA, "trainer.limit_train_batches=few"], {}, 1, "trainer.limit_train_batches='few': give"),
    # data
    ("train", ["experiment=kim2025_dino"], {}, 1, "data.root is not set: give data.root=…"),
    ("train", ["experiment=kim2025_dino", "data.root=nowhere"], {}, 1, "nowhere"),
    # checkpoints of something else
    ("train", ["resume=good", *DATA, "encoder.depth=2"], {}, 1, "a run cannot go on with another method, encoder or prompts (encoder.depth: 1 -> 2)"),
    ("train", ["resume=swapped", *DATA, "trainer.max_epochs=9"], {}, 1, "the weights are of another model"),
    ("train", ["resume=goood", *DATA], {}, 1, "there is no run 'goood' in {folder}; nearest: tiny/good"),
    ("evaluate", ["checkpoint={folder}/other.ckpt", *EMBED], {}, 1, "other.ckpt has no encoder_config: it was not saved by a MorphoCLIP method"),
    ("evaluate", ["checkpoint={folder}/plain.ckpt", *EMBED], {}, 1, "plain.ckpt has no state_dict: it is not a training checkpoint"),
    ("evaluate", ["checkpoint={folder}/junk.ckpt", *EMBED], {}, 1, "junk.ckpt cannot be read as a checkpoint"),
    ("evaluate", ["checkpoint={folder}/tiny/good/encoder/model.safetensors", *EMBED], {}, 1, "holds only weights: give its folder"),
    ("evaluate", ["checkpoint={folder}/nowhere.ckpt", *EMBED], {}, 1, "nowhere.ckpt"),
    # names
    ("train", ["experiment=kim2025_dinp"], {}, 2, "there is no experiment 'kim2025_dinp'; nearest: kim2025_dino"),
    ("train", ["trainer=dpp"], {}, 2, "there is no trainer 'dpp'; nearest: ddp"),
]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="one of them is about a machine without a GPU")
@pytest.mark.parametrize(
    ("name", "arguments", "variables", "status", "said"),
    LAUNCHES,
    ids=lambda value: " ".join(v for v in value if v not in TINY) if isinstance(value, list) else None,
)
def test_a_bad_launch_is_one_line(name, arguments, variables, status, said, folder, monkeypatch, capfd, tmp_path):
    monkeypatch.chdir(tmp_path)
    for variable in ("SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS", "TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    if "resume=swapped" in arguments:
        swap_checkpoint(folder)
    with pytest.raises(SystemExit) as exit:
        main(name, [argument.format(folder=folder) for argument in arguments])
    assert exit.value.code == status
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:") or "Traceback" in line]
    assert len(errors) == 1
    assert said.format(folder=folder) in errors[0]
    assert len(errors[0]) < 500


def swap_checkpoint(folder: Path) -> None:
    """A run whose last checkpoint is that of a wider encoder."""
    run = folder / "tiny/swapped"
    shutil.copytree(folder / "tiny/good", run)
    for path in (run / "checkpoints").glob("*.ckpt"):
        saved = torch.load(path, weights_only=True)
        saved["state_dict"] = {
            key: torch.cat([value, value]) if getattr(value, "ndim", 0) else value
            for key, value in saved["state_dict"].items()
        }
        torch.save(saved, path)
