"""Published weights by the names their authors gave them: features equal those of a network written from their papers."""

from __future__ import annotations

import argparse

import pytest
import timm
import torch
from torch import nn
from typer.testing import CliRunner

from morphoclip.cli.main import app
from morphoclip.export.published import import_published
from morphoclip.profiling import load_encoder

FIVE = ["DNA", "ER", "RNA", "AGP", "Mito"]


def small_vit():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_small_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=64,
        depth=2,
        num_heads=1,
        in_chans=5,
        num_classes=0,
    ).eval()


def checkpoint_of(method: str, vit) -> dict:
    """As the authors' scripts save one."""
    state = vit.state_dict()
    if method == "DINO":
        student = {f"module.backbone.{name}": value + 1 for name, value in state.items()}
        teacher = {f"backbone.{name}": value for name, value in state.items()} | {"head.mlp.0.weight": torch.ones(2)}
        return {"student": student, "teacher": teacher, "epoch": 200, "args": argparse.Namespace(arch="vit_small")}
    if method == "MAE":
        decoder = {
            "mask_token": torch.ones(1, 1, 8),
            "decoder_embed.weight": torch.ones(8, 64),
            "decoder_blocks.0.norm1.weight": torch.ones(8),
        }
        return {"model": state | decoder, "epoch": 199, "args": argparse.Namespace(model="mae_vit_small")}
    mlp = {"mlp.0.weight": torch.ones(4, 64)}
    return {
        "state_dict": {f"backbone.{name}": value for name, value in state.items()} | mlp,
        "hyper_parameters": {"lr": 1e-3},
    }


@pytest.mark.parametrize("method", ["DINO", "MAE", "SimCLR"])
def test_checkpoints_of_kim_et_al_become_encoder_folders(method, tmp_path):
    vit = small_vit()
    torch.save(checkpoint_of(method, vit), tmp_path / "checkpoint0200.pth")
    result = CliRunner().invoke(
        app, ["import", "cellpaintssl", str(tmp_path / "checkpoint0200.pth"), "--to", str(tmp_path / "e")]
    )
    assert result.exit_code == 0, result.output
    encoder = load_encoder(tmp_path / "e")
    assert encoder.channels == ("Mito", "AGP", "RNA", "ER", "DNA")
    assert encoder.trained_on["method"] == f"{method} (Kim et al. 2025)"
    assert encoder.trained_on["crop_size"] == 32
    x = torch.rand(3, 5, 32, 32)
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
    tokens = vit.blocks(tokens)
    expected = tokens[:, 1:].mean(1) if method == "MAE" else vit.norm(tokens)[:, 0]
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)
    crops = torch.randint(0, 60000, (3, 5, 40, 40)).to(torch.uint16)
    assert encoder(encoder.preprocess(crops, torch.zeros(3, 5), torch.full((3, 5), 6e4))).shape == (
        3,
        64,
    )  # another crop size


class Published(nn.Module):
    """CellCLIP's image side, from its paper and the names of its weights."""

    def __init__(self, width: int, channels: int, out: int, depth: int, hidden: int) -> None:
        super().__init__()
        block = lambda: nn.ModuleDict(  # noqa: E731
            {
                "attn": nn.MultiheadAttention(width, 8),
                "ln_1": nn.LayerNorm(width),
                "mlp": nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}),
                "ln_2": nn.LayerNorm(width),
            }
        )
        self.visual = nn.ModuleDict(
            {"channel_ln": nn.LayerNorm(width), "ln_pre": nn.LayerNorm(width), "ln_post": nn.LayerNorm(width)}
        )
        self.visual["transformer"] = nn.ModuleDict({"resblocks": nn.ModuleList(block() for _ in range(depth))})
        for name, shape in (("channel_embed", (channels, width)), ("cls_token", (1, width)), ("proj", (width, out))):
            self.visual.register_parameter(name, nn.Parameter(torch.randn(shape) / 4))
        linear = {"V": nn.Linear(width, hidden), "U": nn.Linear(width, hidden), "attention": nn.Linear(hidden, 1)}
        self.image_pool = nn.ModuleDict(linear)

    def forward(self, bags):  # (B, M, C, D)
        visual, pool = self.visual, self.image_pool
        weights = pool["attention"](torch.tanh(pool["V"](bags)) * torch.sigmoid(pool["U"](bags))).softmax(dim=1)
        x = visual["channel_ln"]((weights * bags).sum(1) + visual.channel_embed)
        x = visual["ln_pre"](torch.cat([visual.cls_token.expand(len(x), -1, -1), x], dim=1)).transpose(0, 1)
        for part in visual["transformer"]["resblocks"]:
            y = part["ln_1"](x)
            x = x + part["attn"](y, y, y, need_weights=False)[0]
            y = part["mlp"]["c_fc"](part["ln_2"](x))
            x = x + part["mlp"]["c_proj"](y * torch.sigmoid(1.702 * y))
        return visual["ln_post"](x[0]) @ visual.proj


def test_cellclips_image_side_becomes_an_encoder_of_features(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    theirs = Published(16, 5, 6, 2, 4).eval()
    state = theirs.state_dict() | {"text_proj.weight": torch.ones(2, 2), "logit_scale": torch.tensor(1.0)}
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "model.safetensors")
    folder = import_published("cellclip", tmp_path / "model.safetensors", tmp_path / "e", FIVE)
    encoder = load_encoder(folder)
    bags = torch.randn(3, 4, 5, 16)
    torch.testing.assert_close(encoder(encoder.preprocess(bags)), theirs(bags), rtol=1e-5, atol=1e-5)
    assert encoder.trained_on["method"] == "CellCLIP (Lu et al. 2025)"


def test_mistakes_are_one_line(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pth")
    torch.save(checkpoint_of("SimCLR", small_vit()), tmp_path / "simclr.pth")
    for arguments, said in (
        (["openphenom", "other.pth"], "choose cellpaintssl or cellclip; other files start a training by init=FILE"),
        (
            ["cellpaintssl", "other.pth"],
            "other.pth is not a checkpoint of Kim et al.: it has no vision transformer, but a",
        ),
        (["cellclip", "other.pth"], "other.pth is not a checkpoint of CellCLIP"),
        (
            ["cellpaintssl", "simclr.pth", "--channels", "DNA,ER"],
            "has 5 input channels: name them in order by --channels",
        ),
        (["cellpaintssl", "nowhere.pth"], "no file of weights at"),
    ):
        command = ["import", arguments[0], str(tmp_path / arguments[1]), *arguments[2:], "--to", str(tmp_path / "e")]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        assert said in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "e").exists()
