"""An encoder folder answers words by itself: moved away, with the run and the text model it came from gone."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from morphoclip.cli.main import app
from morphoclip.data import ShardDataset
from morphoclip.export.provenance import encoder_hash
from morphoclip.methods.query import embed_prompts, embed_query, load_clip
from morphoclip.methods.towers import describe
from morphoclip.models import SmallTextEncoder, create_encoder
from morphoclip.profiling import export_encoder, load_encoder
from morphoclip.profiling.features import write_features
from tests.datasets import screen_rows, write_screen
from tests.methods import tiny

BERT_PROMPTS = ["CCO", "c1ccccc1", "cells treated with DMSO", "treated cells compound", None]
HEAD = {"_target_": "morphoclip.models.ResidualMLP", "width": 16, "blocks": 1}
DOSED = {
    "text": {"towers": [tiny.TOWERS["towers"][0] | {"head": HEAD}, tiny.TOWERS["towers"][1]]},
    "doses": ["1", "10", "", "", ""],
    "conditions": {"dose": {"_target_": "morphoclip.models.DoseEncoding", "kind": "log10"}},
}


def with_bert(folder: Path, **settings) -> dict:
    bert = {"_target_": "morphoclip.models.HuggingFaceTextEncoder", "name_or_path": str(folder), **settings}
    reagents = {"modalities": ["crispr", "orf"], "tower": bert}
    return {"text": {"towers": [tiny.TOWERS["towers"][0], reagents]}, "prompts": BERT_PROMPTS}


def settings(name: str, folder: Path) -> dict:
    if name == "graph":
        graph = {"_target_": "morphoclip.models.GraphEncoder", "width": 16, "depth": 2}
        return {"text": {"towers": [{"modalities": ["compound"], "tower": graph}, tiny.TOWERS["towers"][1]]}}
    if name in ("morgan and small", "dosed"):
        return DOSED if name == "dosed" else {}
    bert = with_bert(tiny.save_bert(folder / "bert"), training=name, **({"lora_rank": 2} if name == "lora" else {}))
    return bert | ({"conditions": {"cache": str(folder / "cache")}} if name == "frozen" else {})


@pytest.mark.parametrize("towers", ["morgan and small", "dosed", "frozen", "lora", "full", "graph"])
@pytest.mark.parametrize("source", ["method", "checkpoint", "folder"])
def test_a_folder_moved_away_answers_as_the_run_did(towers, source, tmp_path):
    if towers in ("lora", "graph"):
        extra = {"lora": "peft", "graph": "chemprop"}[towers]
        pytest.importorskip(extra, reason=f"the {extra} extra is not installed")
    (tmp_path / "there").mkdir()
    method = tiny.trained(tmp_path / "there/run", tiny.feature_clip(**settings(towers, tmp_path / "there")))
    made = export_encoder(method if source == "method" else tmp_path / "there/run", tmp_path / "there/run/encoder")
    if source == "folder":
        made = export_encoder(made, tmp_path / "there/copied")
    asked = [("cells treated with DMSO", None), ("a word never seen", None), (None, "OCC")]
    dose = 10.0 if towers == "dosed" else None
    expected = [embed_query(method, *words, dose) for words in asked]
    prompts, names = embed_prompts(method)
    for again in (load_clip(tmp_path / "there/run"), load_clip(tmp_path / "there/run/checkpoints/last.ckpt")):
        assert torch.equal(torch.stack([embed_query(again, *words, dose) for words in asked]), torch.stack(expected))
    shutil.move(made, tmp_path / "here")
    shutil.rmtree(tmp_path / "there")
    method_away = load_clip(tmp_path / "here")
    assert torch.equal(torch.stack([embed_query(method_away, *words, dose) for words in asked]), torch.stack(expected))
    vectors, again = embed_prompts(method_away)
    assert again == names
    # Prompts of a frozen tower were embedded together with others, which rounds otherwise.
    torch.testing.assert_close(vectors, prompts, atol=1e-6, rtol=1e-5)
    assert not any(p.requires_grad for p in method_away.conditions.parameters())
    encoder = load_encoder(tmp_path / "here")
    assert encoder_hash(encoder) == encoder_hash(method.encoder)
    files = {path for path in (tmp_path / "here").rglob("*") if path.is_file()}
    assert {path.suffix for path in files} <= {".json", ".jinja", ".txt", ".safetensors", ".md"}
    told = "".join(path.read_text() for path in files if path.suffix != ".safetensors")
    assert str(tmp_path) not in told
    assert "morphoclip query" in (tmp_path / "here/README.md").read_text()


def test_a_run_is_asked_without_its_text_model(tmp_path):
    method = tiny.trained(tmp_path / "run", tiny.feature_clip(**with_bert(tiny.save_bert(tmp_path / "bert"))))
    expected = embed_query(method, "cells treated with DMSO", None)
    shutil.rmtree(tmp_path / "bert")
    assert torch.equal(embed_query(load_clip(tmp_path / "run"), "cells treated with DMSO", None), expected)


def query(source, tmp_path, *words):
    out = tmp_path / "ranking.csv"
    command = ["query", str(source), "--profiles", str(tmp_path / "p.parquet"), "--out", str(out), *map(str, words)]
    result = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "note:" not in result.output
    return pd.read_csv(out)


@pytest.mark.parametrize(
    "words",
    [
        ("--text", "loss of PLK1"),
        ("--smiles", "CCO", "--level", "well"),
        ("--plate", "P1", "--well", "A01"),
        ("--plate", "P1", "--well", "A01", "--candidates", "c.csv"),
    ],
)
def test_the_command_asks_a_folder_as_it_asks_the_run(words, folder, tmp_path):
    pd.DataFrame({"smiles": ["CCO", "CC(=O)O"]}).to_csv(tmp_path / "c.csv", index=False)
    words = [tmp_path / word if word == "c.csv" else word for word in words]
    expected = query(tmp_path / "run", tmp_path, *words)
    shutil.rmtree(tmp_path / "run")
    pd.testing.assert_frame_equal(query(folder, tmp_path, *words), expected)


def test_the_command_exports_what_answers(folder, tmp_path):
    result = CliRunner().invoke(app, ["export", str(tmp_path / "run"), "--to", str(tmp_path / "other")])
    assert result.exit_code == 0, result.output
    assert len(query(tmp_path / "other", tmp_path, "--text", "loss of PLK1")) == 2


def test_folders_without_towers_name_the_remedy(tmp_path):
    images = export_encoder(tiny.clip(image={"export": "backbone"}), tmp_path / "backbone")
    assert not (images / "towers").exists()
    with pytest.raises(FileNotFoundError, match=r"no towers/.*morphoclip export RUN"):
        load_clip(images)
    with pytest.raises(FileNotFoundError, match="SimCLR, which has no text side"):
        load_clip(export_encoder(tiny.simclr(), tmp_path / "simclr"))
    with pytest.raises(FileNotFoundError, match="give a run folder"):
        load_clip(tmp_path / "nowhere")


def test_the_encoder_of_an_older_run_is_asked_by_its_checkpoint(folder, tmp_path):
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    expected = embed_query(load_clip(folder), "loss of PLK1", None)
    del saved["towers"]
    torch.save(saved, checkpoint)
    old = export_encoder(tmp_path / "run", tmp_path / "run/encoder")
    assert not (old / "towers").exists()
    assert torch.equal(embed_query(load_clip(old), "loss of PLK1", None), expected)


def test_files_of_a_folder_are_read_by_the_same_people(folder):
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {(folder / "config.json").stat().st_mode & 0o777}


MADE_BY = {"name": "per_channel", "backbone": "resnet18", "revision": None}
PLATES = {"fit_on": "negcon"}


@pytest.mark.parametrize(
    ("features", "line"),
    [
        (None, "morphoclip features ENCODER DATASET --out FEATURES"),
        ({"encoder": {"name": "vit_demo"}}, "morphoclip features ENCODER DATASET --out FEATURES"),
        (
            {"encoder": MADE_BY, "standardised_by_plate": PLATES},
            "morphoclip features timm:resnet18 DATASET --out FEATURES --standardise-by-plate",
        ),
        (
            {"encoder": {"backbone": "hf:lab/model", "revision": "abc"}, "standardised_by_plate": None},
            "morphoclip features hf:lab/model DATASET --out FEATURES --revision abc",
        ),
    ],
)
def test_the_card_of_an_encoder_of_features_says_how_they_are_made(features, line, tmp_path):
    made = export_encoder(tiny.feature_clip(), tmp_path / "made", trained_on={"features": features})
    card = (made / "README.md").read_text()
    assert line in card.splitlines()
    assert "crops, low, high" not in card
    assert "morphoclip embed path/to/this/folder DATASET" not in card


def test_the_code_of_a_card_runs(tmp_path, monkeypatch):
    """Of an encoder of features, and of one of crops, on what they take."""
    monkeypatch.chdir(tmp_path)
    screen = ShardDataset(write_screen(tmp_path / "screen", screen_rows()[:3], size=16))
    write_features(create_encoder("per_channel", backbone="resnet10t", image_size=32), screen, "FEATURES")
    shape = tiny.FORMER | {"feature_dim": 512, "channels": list(screen.channels)}
    low, high = map(torch.from_numpy, screen.intensities(range(4)))
    crops = torch.from_numpy(screen.read(range(4)))
    encoders = {
        "features": tiny.feature_clip(encoder=shape),
        "crops": tiny.clip(),
    }
    for name, method in encoders.items():
        card = (export_encoder(method, tmp_path / name) / "README.md").read_text()
        code = card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", name)
        said = {"crops": crops, "low": low, "high": high}
        exec(code, said)
        assert len(said["profiles"]) == 3 if name == "features" else said["features"].shape == (4, 8)
        commands = [line for line in card.splitlines() if line.startswith("morphoclip embed")]
        assert commands
        for line in commands:
            source = "FEATURES" if name == "features" else "screen"
            words = line.replace("path/to/this/folder", name).replace("DATASET", str(source)).split()[1:]
            result = CliRunner().invoke(app, [*words, "--device", "cpu"])
            assert result.exit_code == 0, result.output


def test_an_older_run_finds_its_text_model_by_name(tmp_path):
    method = tiny.trained(tmp_path / "run", tiny.feature_clip(**with_bert(tiny.save_bert(tmp_path / "bert"))))
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    tiny.changed(checkpoint, lambda saved: saved.pop("towers"))
    expected = embed_query(method, "cells treated with DMSO", None)
    assert torch.equal(embed_query(load_clip(checkpoint), "cells treated with DMSO", None), expected)
    shutil.rmtree(tmp_path / "bert")
    with pytest.raises((OSError, ValueError), match="bert"):
        load_clip(checkpoint)


def test_a_prompt_is_never_a_setting(tmp_path):
    prompts = ["CCO", "c1ccccc1", "${oc.create:{_target_: os.getcwd}}", "${oc.env:HOME}", None]
    tiny.trained(tmp_path / "run", tiny.feature_clip(prompts=prompts))
    away = load_clip(export_encoder(tmp_path / "run", tmp_path / "away"))
    assert {prompt for prompt, _, _ in away.conditions.distinct} == set(prompts[:4])


class OwnTower(SmallTextEncoder):
    """A user's tower, which no folder can bring along."""


def test_towers_of_the_users_own_stay_in_the_run(tmp_path):
    own = {**tiny.TEXT, "_target_": f"{__name__}.OwnTower"}
    method = tiny.trained(tmp_path / "run", tiny.feature_clip(text=own, modalities=None))
    assert describe(method.conditions) is None
    expected = embed_query(method, "loss of PLK1", None)
    with pytest.raises(ValueError, match=r"OwnTower', which is not a tower of this package.*load_clip\(RUN, allow="):
        load_clip(tmp_path / "run")
    again = load_clip(tmp_path / "run", allow=[own["_target_"]])
    assert torch.equal(embed_query(again, "loss of PLK1", None), expected)
    assert not (export_encoder(tmp_path / "run", tmp_path / "away") / "towers").exists()


def test_the_hub_gives_an_encoder_without_towers(folder, tmp_path, monkeypatch):
    import huggingface_hub

    def download(repository, allow_patterns):
        assert repository == "lab/encoder"
        from huggingface_hub.utils import filter_repo_objects

        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        target = tmp_path / f"cache-{len(allow_patterns)}"
        for name in filter_repo_objects(names, allow_patterns=allow_patterns):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
        return str(target)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    assert encoder_hash(load_encoder("lab/encoder")) == encoder_hash(load_encoder(folder))
    assert {path.name for path in (tmp_path / "cache-2").iterdir()} == {"config.json", "model.safetensors"}
    expected = query(folder, tmp_path, "--text", "loss of PLK1")
    pd.testing.assert_frame_equal(query("lab/encoder", tmp_path, "--text", "loss of PLK1"), expected)
    copied = export_encoder("lab/encoder", tmp_path / "copied")
    pd.testing.assert_frame_equal(query(copied, tmp_path, "--text", "loss of PLK1"), expected)
