"""An encoder gives the same features from each format, in a process that never imports morphoclip."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from morphoclip.export import export_encoder, load_encoder
from morphoclip.export.graph import graph_of
from morphoclip.export.hub import push, upload_of
from morphoclip.export.record import check_files
from morphoclip.files import sha256_of_file
from morphoclip.models import create_encoder

VIT = {"name": "vit_small_patch14_reg4_dinov2", "depth": 1, "embed_dim": 48, "num_heads": 3, "image_size": 28}
RESNET = {"name": "test_resnet", "mean": 0.2, "std": [0.1, 0.2, 0.3, 0.4, 0.5]}
CHANNEL_VIT = {"name": "channel_vit", "image_size": 32, "embed_dim": 48, "depth": 1, "heads": 3}
FORMER = {
    "name": "cross_channel_former",
    "channels": ["DNA", "ER"],
    "feature_dim": 16,
    "depth": 1,
    "heads": 2,
    "embed_dim": 8,
}
# What a fresh process does: all formats of the folders named in argv, features of their inputs beside them.
FRESH = """
import json, sys, numpy as np, torch
from pathlib import Path
torch.set_num_threads(1)
for folder in map(Path, sys.argv[1:]):
    config, x = json.loads((folder / "config.json").read_text()), dict(np.load(folder.with_suffix(".inputs.npz")))
    found, given = {}, {name: torch.from_numpy(value) for name, value in x.items() if name != "x"}
    with torch.no_grad():
        if (folder / "model.pt2").exists():
            found["torch_export"] = torch.export.load(folder / "model.pt2").module()(*given.values())
        if "architecture" in config:
            import timm
            found["timm"] = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()(torch.from_numpy(x["x"]))
        if "model_type" in config:
            from transformers import AutoModel
            found["huggingface"] = AutoModel.from_pretrained(folder)(torch.from_numpy(x["x"])).pooler_output
    if (folder / "model.onnx").exists():
        import onnxruntime
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        found["onnx"] = torch.from_numpy(session.run(None, {name: value.numpy() for name, value in given.items()})[0])
    np.savez(folder.with_suffix(".features.npz"), **{name: value.numpy() for name, value in found.items()})
assert "morphoclip" not in sys.modules
"""


def trained(seed: int = 0, **config):
    """An encoder whose weights, batch statistics included, are none of those it starts with."""
    torch.manual_seed(seed)
    encoder = create_encoder(**config)
    for value in encoder.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value) * 0.1)
    return encoder.eval()


def inputs_of(encoder, batch: int, size: int | None, preprocess: bool) -> dict[str, torch.Tensor]:
    """The first rows of the graph's examples, repeated with noise to another batch size than theirs."""
    examples = graph_of(encoder, size, preprocess=preprocess).inputs
    rows = torch.arange(batch) % 2
    return {name: value[rows] for name, value in examples.items()}


@pytest.mark.parametrize(
    "names", [["vit", "former"], pytest.param(["resnet", "channel_vit"], marks=pytest.mark.slow)], ids=" and ".join
)
def test_every_format_gives_the_features_in_a_fresh_process(tmp_path, names):
    onnx = ["onnx"] if find_spec("onnx") and find_spec("onnxscript") and find_spec("onnxruntime") else []
    cases = {  # the encoder, its crops, formats, whether preprocessing is inside
        "vit": (trained(**VIT), 28, ["timm", "huggingface", "torch_export", *onnx], True),
        "resnet": (trained(**RESNET), 32, ["timm", "huggingface", "torch_export"], False),
        "channel_vit": (trained(**CHANNEL_VIT), 32, ["torch_export", *onnx], False),
        "former": (trained(**FORMER), None, ["torch_export", *onnx], True),
    }
    cases = {name: cases[name] for name in names}
    expected = {}
    for name, (encoder, size, formats, preprocess) in cases.items():
        folder = export_encoder(encoder, tmp_path / name, formats, preprocess=preprocess, crop_size=size)
        given = inputs_of(encoder, 3, size, preprocess)
        x = given.get("crops")
        if "images" in given:
            x = encoder.preprocess(*given.values())
        with torch.no_grad():
            features = encoder(encoder.preprocess(given["bags"]), given["mask"]) if x is None else encoder(x)
            loaded = load_encoder(folder)
            again = loaded(loaded.preprocess(given["bags"]), given["mask"]) if x is None else loaded(x)
        assert torch.equal(again, features), name
        expected[name] = (features.numpy(), formats)
        saved = {key: value.numpy() for key, value in given.items()} | ({} if x is None else {"x": x.numpy()})
        np.savez(tmp_path / f"{name}.inputs.npz", **saved)
        if "model.pt2" in {path.name for path in folder.iterdir()}:
            stored = zipfile.ZipFile(folder / "model.pt2")
            assert not [entry for entry in stored.namelist() if entry.endswith((".pkl", ".py"))]
            assert str(tmp_path).encode() not in b"".join(stored.read(entry) for entry in stored.namelist())
            assert b"site-packages" not in b"".join(stored.read(entry) for entry in stored.namelist())
    folders = [str(tmp_path / name) for name in cases]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH, *folders], check=True, capture_output=True, timeout=300
    )
    for name, (features, formats) in expected.items():
        found = np.load(tmp_path / f"{name}.features.npz")
        assert sorted(found) == sorted(formats)
        for key in formats:
            difference = np.abs(found[key] - features).max()
            assert difference <= (1e-4 * max(1, np.abs(features).max()) if key == "onnx" else 0), (name, key)


def test_float16_halves_the_file_and_states_the_cosine(tmp_path):
    encoder = trained(**VIT)
    whole = export_encoder(encoder, tmp_path / "whole")
    half = export_encoder(encoder, tmp_path / "half", ["timm"], dtype="float16", license="cc-by-4.0")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    config = json.loads((half / "config.json").read_text())
    x = torch.randn(16, 5, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = torch.cosine_similarity(load_encoder(half)(x), encoder(x))
    assert next(load_encoder(half).parameters()).dtype == torch.float32
    assert config["float16_cosine"] == pytest.approx(float(found.min()), abs=1e-6)
    assert config["float16_cosine"] > 0.999
    assert str(config["float16_cosine"]) in (half / "README.md").read_text()
    huge = trained(**VIT)
    with torch.no_grad():
        next(huge.parameters()).fill_(1e6)
    with pytest.raises(ValueError, match="beyond the range of float16"):
        export_encoder(huge, tmp_path / "huge", dtype="float16")


def test_what_a_format_cannot_hold_is_one_line_and_leaves_nothing(tmp_path):
    for config, formats, message in [
        (CHANNEL_VIT, ["timm"], "channel_vit is not one"),
        (FORMER, ["huggingface"], "cross_channel_former is not one"),
        (VIT | {"projection": 8}, ["timm"], "projection to 8 numbers"),
        (RESNET, ["torch_export"], "--crop-size"),
        (RESNET, ["pickle"], "format 'pickle': use one of onnx"),
    ]:
        with pytest.raises(ValueError, match=message):
            export_encoder(create_encoder(**config), tmp_path / "encoder", formats)
    with pytest.raises(ValueError, match="give --format onnx or torch_export"):
        export_encoder(create_encoder(**VIT), tmp_path / "encoder", preprocess=True)
    with pytest.raises(ValueError, match="dtype 'int8'"):
        export_encoder(create_encoder(**VIT), tmp_path / "encoder", dtype="int8")
    assert not list(tmp_path.iterdir())


def test_a_compiled_encoder_is_exported_under_its_own_names(tmp_path):
    encoder = trained(**VIT)
    plain = export_encoder(encoder, tmp_path / "plain")
    inside = trained(**VIT)
    inside.backbone = torch.compile(inside.backbone)
    inside.backbone.blocks[0] = torch.compile(inside.backbone.blocks[0])
    for name, compiled in {"inside": inside, "around": torch.compile(encoder)}.items():
        folder = export_encoder(compiled, tmp_path / name, ["timm"])
        assert load_encoder(folder).state_dict().keys() == encoder.state_dict().keys()
        hashes = [json.loads((f / "config.json").read_text())["sha256"] for f in (plain, folder)]
        assert hashes[0] == hashes[1]
    assert hasattr(inside.backbone, "_orig_mod")  # the caller's encoder stays compiled
    state = {f"encoder.{key}": value for key, value in inside.state_dict().items()}
    torch.save(
        {"state_dict": state, "encoder_config": inside.config, "encoder_prefix": "encoder."}, tmp_path / "compiled.ckpt"
    )
    x = torch.randn(2, 5, 28, 28)
    with torch.no_grad():
        assert torch.equal(load_encoder(tmp_path / "compiled.ckpt")(x), encoder(x))


class Hub:
    """Records what HfApi would do."""

    calls: list

    def create_repo(self, repository, **options):
        self.calls.append(("create", repository, options))

    def create_commit(self, repository, operations, **options):
        self.calls.append(("commit", repository, {op.path_in_repo: op.path_or_fileobj for op in operations}))
        return type("Commit", (), {"commit_url": f"https://hub/{repository}/commit/1"})()


def test_push_uploads_the_folder_and_names_the_repository(tmp_path, monkeypatch):
    folder = export_encoder(trained(**VIT), tmp_path / "encoder", ["timm"])
    Hub.calls = []
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push(folder, "lab/cells") == "https://hub/lab/cells/commit/1"
    (_, made, options), (_, committed, files) = Hub.calls
    assert (made, committed, options["private"]) == ("lab/cells", "lab/cells", True)
    assert (
        sorted(files) == ["README.md", "config.json", "model.safetensors"] == sorted(p.name for p in folder.iterdir())
    )
    assert sha256_of_file(files["model.safetensors"]) == sha256_of_file(folder / "model.safetensors")
    card = files["README.md"].decode()
    assert 'load_encoder("lab/cells")' in card
    assert 'create_model("hf-hub:lab/cells"' in card
    assert "path/to/this/folder" not in card


def test_push_refuses_what_is_not_the_export(tmp_path):
    folder = export_encoder(trained(**VIT), tmp_path / "encoder")
    assert check_files(folder) == ["config.json", "README.md", "model.safetensors"]
    with pytest.raises(ValueError, match="give owner/name"):
        upload_of(folder, "cells")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt is not part of the export"):
        upload_of(folder, "lab/cells")
    (folder / "notes.txt").unlink()
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"model\.safetensors differs from its hash"):
        upload_of(folder, "lab/cells")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="is missing"):
        upload_of(folder, "lab/cells")
    with pytest.raises(FileNotFoundError, match="morphoclip export"):
        upload_of(tmp_path, "lab/cells")
