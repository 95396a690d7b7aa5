"""What is typed on the command line, and what comes of it: a value in the composed config, or one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from morphoclip.cli.hydra_app import main
from morphoclip.experiment.keywords import accepted, nearest

ABSENT = "absent"
SIGLIP = "method.loss._target_=morphoclip.losses.SigLIPLoss"
EARLY = "{_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val/knn}"
# (arguments, dotted key, its value in the composed config)
COMPOSED: list[tuple[str, list[str], str, Any]] = [
    # Settings by name.
    ("train", ["trainer.max_epochs=3"], "trainer.max_epochs", 3),
    ("train", ["max_time=01:00:00"], "max_time", "01:00:00"),
    ("train", ["rank_timeout=00:05:00"], "rank_timeout", "00:05:00"),
    ("train", ["trainer.deterministic=true"], "trainer.deterministic", True),
    ("train", ["trainer.limit_train_batches=20"], "trainer.limit_train_batches", 20),
    ("train", ["trainer.tf32=true"], "trainer.tf32", True),
    ("train", ["trainer.compile=true"], "trainer.compile", True),
    ("train", ["trainer.channels_last=true"], "trainer.channels_last", True),
    ("train", ["trainer.recompute_blocks=true"], "trainer.recompute_blocks", True),
    ("train", ["data=dataset", "data.root=x", "data.loader.val_split=val"], "data.loader.val_split", "val"),
    ("train", ["data.loader.max_batch_size=8"], "data.loader.max_batch_size", 8),
    ("train", ["optimizer.fused=false"], "optimizer.fused", False),
    (
        "train",
        ["data=profiles", "data.root=x", "data.table.columns.perturbation=Compound"],
        "data.table.columns",
        {"perturbation": "Compound"},
    ),
    ("train", ["--dry-run"], "dry_run", True),
    # Arguments of what a `_target_` names can be added.
    ("train", ["+trainer.val_check_interval=5"], "trainer.val_check_interval", 5),
    ("train", ["+optimizer.eps=1e-6"], "optimizer.eps", 1e-6),
    ("train", ["++optimizer.lr=3"], "optimizer.lr", 3),
    ("train", ["+optimizer.lr_scale={encoder.: 0.1}"], "optimizer.lr_scale", {"encoder.": 0.1}),
    ("train", ["+encoder.drop_path_rate=0.1"], "encoder.drop_path_rate", 0.1),
    ("train", ["encoder=vit_small", "+encoder.global_pool=avg"], "encoder.global_pool", "avg"),
    ("train", ["+data.loader.sampler_options.bag_scope=well"], "data.loader.sampler_options.bag_scope", "well"),
    ("train", ["+data.prepare.crops_per_field=2"], "data.prepare.crops_per_field", 2),
    ("train", ["+data.holdout.modality=crispr"], "data.holdout.modality", "crispr"),
    ("train", ["+method.monitor_every=10"], "method.monitor_every", 10),
    ("train", [f"+callbacks.stop={EARLY}"], "callbacks.stop.monitor", "val/knn"),
    ("evaluate", ["+sweep=pipelines", "profiles=x"], "sweep.depth", 4),
    ("evaluate", ["+protocol.exclude_by=x"], "protocol.exclude_by", ABSENT),
    # Switched off.
    ("train", ["logger=null"], "logger", {}),
    ("train", ["callbacks=null"], "callbacks", {}),
    ("train", ["augment=null"], "augment.transforms", []),
    ("train", ["callbacks.progress=null"], "callbacks.progress", None),
    ("train", ["callbacks.knn=null"], "callbacks.knn", None),  # not there in the demo: off already
    ("train", ["experiment=kim2025_simclr", "data.root=x", "callbacks.knn=null"], "callbacks.knn", None),
    ("train", ["~callbacks.progress"], "callbacks.progress", ABSENT),
    ("train", ["trainer.enable_progress_bar=false"], "trainer.enable_progress_bar", False),
    ("evaluate", ["normalize=null"], "normalize", ABSENT),
    ("evaluate", ["columns.perturbation=Compound"], "columns.perturbation", "Compound"),
    ("evaluate", ["columns.dose=Conc. [µM], final"], "columns.dose", "Conc. [µM], final"),
    ("evaluate", ["columns.Metadata_donor=donor's id"], "columns.Metadata_donor", "donor's id"),
    ("evaluate", ["columns=map.yaml"], "columns", "map.yaml"),
    ("evaluate", ["control=DMSO (0.1 %)"], "control", "DMSO (0.1 %)"),
    ("evaluate", ["control={Compound Name: [DMSO, vehicle]}"], "control.Compound Name", ["DMSO", "vehicle"]),
    ("evaluate", ["features=Cells_*,f[0-9]*"], "features", "Cells_*,f[0-9]*"),
    ("evaluate", ["features=[Cells_*,*]"], "features", ["Cells_*", "*"]),
    # Another class drops the keywords that it does not take.
    ("train", [SIGLIP], "method.loss", {"_target_": "morphoclip.losses.SigLIPLoss"}),
    ("train", ["method=simclr", SIGLIP], "method.loss.temperature", ABSENT),
    (
        "train",
        ["optimizer.lr_schedule._target_=morphoclip.training.schedules.constant"],
        "optimizer.lr_schedule.warmup_share",
        ABSENT,
    ),
    (
        "train",
        ["experiment=cwa_msn", "data.root=x", "optimizer.lr_schedule._target_=morphoclip.training.schedules.cosine"],
        "optimizer.lr_schedule.factor",
        ABSENT,
    ),
    (
        "train",
        ["method.loss={_target_: morphoclip.losses.CLOOBLoss, beta: 9.0}"],
        "method.loss.beta",
        9.0,
    ),
]
# (arguments, what the line of the error says)
REFUSED: list[tuple[str, list[str], str]] = [
    ("train", ["trainer.max_step=3"], "no key trainer.max_step; nearest: trainer.max_steps"),
    ("train", ["+init_from=/no/such"], "no key init_from; nearest: "),
    ("train", ["lr=1"], "no key lr; nearest: optimizer.lr"),
    ("train", ["metod=simclr"], "no key metod; nearest: method"),
    ("train", ["optimizer.weigth_decay=0.1"], "no key optimizer.weigth_decay; nearest: optimizer.weight_decay"),
    ("train", ["+optimizer.weigth_decay=0.1"], "no key optimizer.weigth_decay; nearest: optimizer.weight_decay"),
    ("train", ["++optimizer.lrr=1"], "no key optimizer.lrr; nearest: optimizer.lr"),
    ("train", ["trainer.val_check_interval=5"], "Trainer takes it: add it by +trainer.val_check_interval=…"),
    ("train", ["+encoder.drop_path_rat=0.1"], "nearest: encoder.drop_path_rate"),
    ("train", ["encoder=vit_small", "+encoder.global_pol=avg"], "nearest: encoder.global_pool"),
    ("train", ["+data.loader.sampler_options.bag_siz=2"], "nearest: data.loader.sampler_options.bag_size"),
    ("train", ["+data.prepare.crop_siz=2"], "nearest: data.prepare.crop_size"),
    ("train", ["+data.enrichs=[]"], "nearest: data.enrich"),
    ("train", ["+perturbation.crisp=x"], "nearest: perturbation.crispr"),
    ("train", ["+method.image.pol=mean"], "nearest: method.image.pool"),
    ("train", ["+score.null_sizes=1"], "nearest: score.null_size"),
    ("train", ["callbacks.knm=null"], "no key callbacks.knm; nearest: callbacks.knn"),
    ("train", ["~callbacks.nope"], "no key callbacks.nope; nearest: "),
    ("train", ["+callbacks.stop=3"], "needs a class: +callbacks.stop={_target_: …}"),
    (
        "train",
        ["+callbacks.stop={_target_: pytorch_lightning.callbacks.EarlyStopping, monitr: val/knn}"],
        "nearest: callbacks.stop.monitor",
    ),
    ("train", ["method.loss._target_=morphoclip.losses.SigLipLoss"], "nearest: SigLIPLoss"),
    ("train", ["method.loss._target_=nolab.losses.Loss"], "cannot be imported: No module named 'nolab'"),
    ("train", ["experiment=kim2025_dinp"], "no experiment 'kim2025_dinp'; nearest: kim2025_dino, "),
    ("train", ["experiment=zzz"], "no experiment 'zzz'; choose one of cellclip, "),
    ("train", ["data=datasets"], "no data 'datasets'; nearest: dataset"),
    ("train", ["encoder=vit_smal"], "no encoder 'vit_smal'; nearest: vit_small"),
    ("train", ["perturbation=target"], "no perturbation 'target'; nearest: targets"),
    ("train", ["method=simclear"], "no method 'simclear'; nearest: simclr"),
    ("train", ["optimizer=adam"], "no optimizer 'adam'; nearest: adamw"),
    ("train", ["trainer=dpp"], "no trainer 'dpp'; nearest: ddp"),
    ("train", ["callbacks=selfsupervised"], "no callbacks 'selfsupervised'; nearest: self_supervised"),
    ("train", ["logger=wand"], "no logger 'wand'; nearest: wandb"),
    (
        "evaluate",
        ["columns.pertubation=x"],
        "columns.pertubation: there is no column of ours of that name; nearest: perturbation",
    ),
    ("evaluate", ["+columns.plte=x"], "nearest: plate"),
    ("train", ["method=null"], "method cannot be left out; choose one of clip, "),
    ("evaluate", ["normalize=kim2024"], "no normalize 'kim2024'; nearest: kim2025"),
    ("evaluate", ["protocol=cpjump"], "no protocol 'cpjump'; nearest: cpjump1"),
    ("evaluate", ["+sweep=pipeline"], "no sweep 'pipeline'; nearest: pipelines"),
    ("evaluate", ["profile=x"], "no key profile; nearest: profiles"),
    ("evaluate", ["+umapp=false"], "no key umapp; nearest: umap"),
    ("evaluate", ["+protocol.batch_colum=x"], "nearest: protocol.batch_column"),
]
COMPOSED = [case for case in COMPOSED if case[1] != ["+protocol.exclude_by=x"]]


@pytest.fixture
def composed(monkeypatch):
    """The config that a command runs on, with its command run in this process."""
    seen: list[DictConfig] = []
    monkeypatch.setattr("morphoclip.experiment.run.run", seen.append)
    monkeypatch.setattr("morphoclip.experiment.evaluate.run", seen.append)

    def run(name: str, arguments: list[str]) -> DictConfig:
        main(name, arguments)
        return seen.pop()

    return run


def words(value: Any) -> str | None:
    return " ".join(value) if isinstance(value, list) else None


@pytest.mark.parametrize(("name", "arguments", "key", "value"), COMPOSED, ids=words)
def test_what_is_typed_is_composed(name, arguments, key, value, composed):
    config = OmegaConf.to_container(composed(name, arguments), resolve=False)
    for part in key.split("."):
        config = config.get(part, ABSENT) if isinstance(config, dict) else ABSENT
    assert config == value


@pytest.mark.parametrize(("name", "arguments", "said"), REFUSED, ids=words)
def test_what_does_not_exist_is_one_line_with_the_nearest(name, arguments, said, composed, capfd):
    with pytest.raises(SystemExit) as exit:
        composed(name, arguments)
    assert exit.value.code == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert said in lines[0]


def test_keywords_that_are_left_out_are_printed(composed, capfd):
    composed("train", ["method=simclr", SIGLIP])
    assert "method.loss: SigLIPLoss does not take temperature=0.2: left out" in capfd.readouterr().out


def test_keywords_typed_beside_a_class_that_does_not_take_them_are_refused(composed, capfd):
    with pytest.raises(SystemExit):
        composed("train", [SIGLIP, "+method.loss.temperature=1"])
    assert "no key method.loss.temperature" in capfd.readouterr().err


def test_a_wrong_choice_in_a_labs_own_recipe_is_named_with_its_file(tmp_path, composed, capfd):
    recipe = tmp_path / "experiment/ours.yaml"
    recipe.parent.mkdir()
    recipe.write_text("# @package _global_\ndefaults:\n  - override /encoder: vit_smal\nname: ours\n")
    with pytest.raises(SystemExit):
        composed("train", ["--config-dir", str(tmp_path), "experiment=ours"])
    said = capfd.readouterr().err
    assert "there is no encoder 'vit_smal' (named in a file); nearest: vit_small" in said
    recipe.write_text("# @package _global_\nname: ours\noptimizer:\n  weigth_decay: 0.1\n")
    with pytest.raises(SystemExit):
        composed("train", ["--config-dir", str(tmp_path), "experiment=ours"])
    assert "there is no key optimizer.weigth_decay" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        composed("train", ["--config-dir", str(tmp_path), "experiment=our"])
    assert "there is no experiment 'our'; nearest: ours" in capfd.readouterr().err


def test_each_run_of_a_grid_is_checked(composed, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where Hydra makes its folder of a grid
    seen: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr("morphoclip.experiment.run.run", lambda config: seen.append(config.optimizer.eps))
        main("train", ["-m", "+optimizer.eps=1e-6,1e-7"])
    assert seen == [1e-6, 1e-7]
    with pytest.raises(SystemExit):
        composed("train", ["-m", "seed=0,1", "+optimizer.weigth_decay=0.1"])
    assert "there is no key optimizer.weigth_decay" in capfd.readouterr().err


class Base:
    def __init__(self, a: int, b: int = 0) -> None: ...


class Passing(Base):
    def __init__(self, c: int, **options: Any) -> None: ...


def test_keywords_of_a_class_are_those_of_its_bases_where_it_is_ours():
    assert accepted(Base) == {"a", "b"}
    assert accepted(Passing) is None
    Passing.__module__ = "morphoclip.losses.test"
    assert accepted(Passing) == {"a", "b", "c"}
    assert nearest("max_step", ["max_steps", "seed"]) == ["max_steps"]
    assert Path  # a module name for `Path` in annotations
