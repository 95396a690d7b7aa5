"""Encoder folders and checkpoints that are mixed, damaged or hostile: an error that names them, and nothing runs or is written."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from morphoclip.cli.main import app
from morphoclip.export.crop_pool import load_crop_pool
from morphoclip.methods.query import embed_query, load_clip
from morphoclip.profiling import export_encoder, load_encoder
from tests.methods import tiny


def test_towers_and_encoder_belong_together(folder, tmp_path):
    torch.manual_seed(5)
    other = export_encoder(tiny.clip(embed_dim=4), tmp_path / "other")
    shutil.rmtree(other / "towers")
    shutil.copytree(folder / "towers", other / "towers")
    with pytest.raises(ValueError, match="belong to encoder"):
        load_clip(other)
    (folder / "towers/model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"towers/model\.safetensors does not exist: export the run again"):
        load_clip(folder)


@pytest.mark.parametrize("weights", ["model.safetensors", "towers/model.safetensors"])
def test_weights_of_another_export_are_refused(weights, folder, tmp_path):
    """Of the same shapes, so that only their sha256 tells."""
    from safetensors.torch import load_file, save_file

    reads = load_clip if weights.startswith("towers") else load_encoder
    reads(folder)
    tensors = load_file(folder / weights)
    save_file({name: v + 1 if v.is_floating_point() else v for name, v in tensors.items()}, folder / weights)
    with pytest.raises(ValueError, match=rf"{weights} does not match the hash in .*config\.json.*mixes two exports"):
        reads(folder)
    with pytest.raises(ValueError, match="mixes two exports"):
        export_encoder(folder, tmp_path / "copied")
    asked = ["query", str(folder), "--profiles", str(tmp_path / "p.parquet"), "--text", "loss of PLK1"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 1
    assert "mixes two exports" in result.stderr
    config = json.loads((folder / weights).with_name("config.json").read_text())
    del config["sha256"]  # as folders of older versions
    (folder / weights).with_name("config.json").write_text(json.dumps(config))
    if weights.startswith("towers"):
        load_clip(folder)
    else:
        load_encoder(folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(change):
    def damage(path: Path) -> None:
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return damage


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut),
        ("crop_pool.safetensors", cut),
        ("crop_pool.safetensors", lambda path: shutil.copyfile(path.with_name("model.safetensors"), path)),
        ("config.json", cut),
        ("config.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
        ("config.json", lambda path: path.write_text("[1, 2]")),
        ("config.json", edit(lambda config: config.update(format_version="new"))),
        ("config.json", edit(lambda config: config.update(encoder=None))),
        ("config.json", edit(lambda config: config.pop("trained_on"))),
        ("config.json", edit(lambda config: config["encoder"].pop("name"))),
        ("config.json", edit(lambda config: config["encoder"].update(heads="two"))),
        ("config.json", edit(lambda config: config["encoder"].update(heads=5))),
        ("towers/model.safetensors", cut),
        ("towers/config.json", cut),
        ("towers/config.json", edit(lambda config: config.update(conditions=None))),
        ("towers/config.json", edit(lambda config: config["conditions"].pop("text"))),
        ("towers/config.json", edit(lambda config: config["conditions"].pop("prompts"))),
        ("towers/config.json", edit(lambda config: config["conditions"].update(text=3))),
        ("towers/config.json", edit(lambda config: config["conditions"].update(more=3))),
        ("towers/config.json", edit(lambda config: config["conditions"]["text"]["towers"][0].pop("tower"))),
        (
            "towers/config.json",
            edit(lambda config: config["conditions"]["text"]["towers"][0]["tower"].update(depth=0.5)),
        ),
        ("towers/config.json", edit(lambda config: config["state"].update(dict.fromkeys(config["state"], "{}")))),
        ("towers/config.json", edit(lambda config: config.update(state={}))),
        ("towers/0/tokenizer.json", cut),
        ("towers/0/tokenizer.json", Path.unlink),
        ("towers/0/config.json", cut),
        ("towers/0/config.json", Path.unlink),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_folder_is_an_error_in_a_line(name, damage, tmp_path):
    text = tiny.TEXT
    if "/0/" in name:
        text = {
            "_target_": "morphoclip.models.HuggingFaceTextEncoder",
            "name_or_path": str(tiny.save_bert(tmp_path / "b")),
        }
    folder = export_encoder(tiny.clip(text=text), tmp_path / "away")
    damage(folder / name)

    def read():
        load_clip(folder)
        load_encoder(folder)
        load_crop_pool(folder)

    with pytest.raises(
        ValueError, match=r"damaged or was not written by morphoclip: copy or export|is not the config of"
    ) as e:
        read()
    assert str(folder) in str(e.value)


@pytest.mark.parametrize(
    "tower",
    [
        {"_target_": "os.system", "command": "touch harmed"},
        {"_target_": "morphoclip.models.create_encoder", "name": "per_channel", "trust_remote_code": True},
        {"_target_": "morphoclip.models.MorganEncoder", "bits": "${oc.create:{_target_: os.system, command: true}}"},
    ],
)
def test_a_folder_names_no_code_to_run(tower, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = folder / "towers/config.json"
    config = json.loads(path.read_text())
    config["conditions"]["text"]["towers"][0]["tower"] = tower
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="not a tower of this package and is not run"):
        load_clip(folder)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["../outside", "0/../../../outside", "{}/outside", ""])
def test_a_checkpoint_writes_into_its_own_folder_alone(name, folder, tmp_path):
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    name = name.format(tmp_path)
    tiny.changed(checkpoint, lambda saved: saved["towers"]["files"].update({name: b"harm"}))
    before = set(tmp_path.iterdir())
    for attempt in (load_clip, lambda source: export_encoder(source, tmp_path / "new/encoder")):
        with pytest.raises(ValueError, match="outside the folder of its towers") as caught:
            attempt(checkpoint)
        assert str(checkpoint) in str(caught.value)
        assert repr(name) in str(caught.value)
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "new"}
    assert not list((tmp_path / "new").rglob("outside"))


@pytest.mark.parametrize("part", ["loss", "optimizer", "encoder", "text", "dose"])
@pytest.mark.parametrize("asked", ["run", "run/encoder"])
def test_an_older_checkpoint_runs_nothing_that_it_names(part, asked, folder, tmp_path):
    """Without a description of its towers, those are built of its hyperparameters, and nothing else is."""
    expected = embed_query(load_clip(folder), "loss of PLK1", None)
    harm = {"_target_": "pathlib.Path.write_text", "self": {"_target_": "pathlib.Path", "_args_": [f"{tmp_path}/harm"]}}
    model = tmp_path / "model"
    model.mkdir()
    (model / "code_of_it.py").write_text(f"open({str(tmp_path / 'harm')!r}, 'w')\n")
    where = {"AutoConfig": "code_of_it.Config", "AutoModel": "code_of_it.Model"}
    (model / "config.json").write_text(json.dumps({"model_type": "unheard_of", "auto_map": where}))
    own_code = {"name": "per_channel", "backbone": f"hf:{model}", "pretrained": True, "trust_remote_code": True}

    def change(saved):
        del saved["towers"]
        known = saved["hyper_parameters"]
        known = known.__setitem__("conditions", {}) or known["conditions"] if part == "dose" else known
        known[part] = own_code if part == "encoder" else {**harm, "data": "done"}

    tiny.changed(tmp_path / "run/checkpoints/last.ckpt", change)
    shutil.copytree(folder, tmp_path / "run/encoder")
    shutil.rmtree(tmp_path / "run/encoder/towers")
    if part in ("text", "dose"):
        with pytest.raises(ValueError, match=r"names 'pathlib\.Path.*is not run"):
            load_clip(tmp_path / asked)
    else:
        assert torch.equal(embed_query(load_clip(tmp_path / asked), "loss of PLK1", None), expected)
    assert not (tmp_path / "harm").exists()
