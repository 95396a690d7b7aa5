"""Weights of any origin in a network: names, channels, positions and precision; all of them, or an error of one line."""

from __future__ import annotations

import argparse

import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed

from morphoclip.models import create_encoder
from morphoclip.models.weight_files import read_weights
from morphoclip.models.weight_loading import load_weights

VIT = {"name": "vit_tiny_patch16_224", "image_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
FIVE, SIX = ["DNA", "ER", "RNA", "AGP", "Mito"], ["Mito", "AGP", "BF", "RNA", "ER", "DNA"]


def vit(seed: int = 0, **kw):
    torch.manual_seed(seed)
    return create_encoder(**(VIT | kw)).eval()


def pixels(channels: int = 5, size: int = 32) -> torch.Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(0))


def test_files_are_read_as_float32_without_optimizers_whatever_holds_them(tmp_path):
    from safetensors.torch import save_file

    weights = {"a.weight": torch.randn(3, 2), "count": torch.tensor(3)}
    stored = {"a.weight": weights["a.weight"].bfloat16(), "count": weights["count"]}
    save_file(stored, tmp_path / "x.safetensors")
    args = argparse.Namespace(lr=1e-3)
    nested = {"teacher": stored, "epoch": 4, "args": args, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    torch.save(nested, tmp_path / "x.pth")
    for path, prefix in ((tmp_path / "x.safetensors", ""), (tmp_path / "x.pth", "teacher.")):
        found = read_weights(path)
        assert sorted(found) == [f"{prefix}a.weight", f"{prefix}count"]
        assert found[f"{prefix}a.weight"].dtype == torch.float32
        assert torch.equal(found[f"{prefix}a.weight"], weights["a.weight"].bfloat16().float())


class Code:
    def __reduce__(self):
        return print, ("this ran",)


def test_a_torn_file_and_pickled_code_are_one_line(tmp_path, capsys):
    torch.save({"model": {"w": torch.ones(2)}, "more": Code()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"holds pickled code .*print.*, which is not run"):
        read_weights(tmp_path / "code.pth")
    assert "this ran" not in capsys.readouterr().out
    torch.save({"w": torch.ones(1000)}, tmp_path / "whole.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:900])
    with pytest.raises(ValueError, match=r"torn\.pth is torn or not a file of weights"):
        read_weights(tmp_path / "torn.pth")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ValueError, match=r"torn\.safetensors is torn"):
        read_weights(tmp_path / "torn.safetensors")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="holds no weights"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "teacher.module.backbone.",
        "state_dict.model._orig_mod.module.encoder.",
        "teacher_encoder.module.backbone.",
    ],
)
def test_prefixes_are_taken_off(prefix):
    given, own = vit(1), vit(2)
    weights = {f"{prefix}{name}": value for name, value in given.backbone.state_dict().items()}
    weights |= {"head.mlp.0.weight": torch.ones(2), f"{prefix}head.weight": torch.ones(2)}
    loaded = load_weights(own.backbone, weights, "x", channels=FIVE)
    assert torch.equal(own(pixels()), given(pixels()))
    assert loaded.tensors == len(own.backbone.state_dict())
    assert f"{loaded.prefix}head.weight" in loaded.unused


def test_prefixes_within_names_are_taken_off_too():
    """A block that was compiled by itself."""
    given, own = vit(1), vit(2)
    renamed = {n.replace("blocks.1.", "blocks.1._orig_mod."): v for n, v in given.backbone.state_dict().items()}
    load_weights(own.backbone, renamed, "x", channels=FIVE)
    assert torch.equal(own(pixels()), given(pixels()))


def test_the_teacher_goes_before_the_student():
    student, teacher, own = vit(1), vit(2), vit(3)
    both = {f"student.{n}": v for n, v in student.backbone.state_dict().items()}
    both |= {f"teacher.{n}": v for n, v in teacher.backbone.state_dict().items()}
    assert load_weights(own.backbone, both, "x", channels=FIVE).prefix == "teacher."
    assert torch.equal(own(pixels()), teacher(pixels()))


def test_low_precision_gives_float32():
    given, own = vit(1), vit(2)
    load_weights(own.backbone, {n: v.half() for n, v in given.backbone.state_dict().items()}, "x", channels=FIVE)
    assert {p.dtype for p in own.parameters()} == {torch.float32}
    torch.testing.assert_close(own(pixels()), given(pixels()), rtol=0.02, atol=0.02)


def test_less_than_the_network_is_refused_and_changes_nothing():
    own, before = vit(2), vit(2)
    whole = vit(1).backbone.state_dict()
    part = {name: value for name, value in whole.items() if "blocks.1" not in name}
    for weights, said in (
        (part, r"vit: 12 of 30 weights are not there \(blocks\.1\.norm1\.weight, .*: choose the same network"),
        ({"w": torch.ones(2)}, r"vit: none of its 30 weights \(cls_token, …\) is there; there is w"),
        (
            vit(1, embed_dim=32).backbone.state_dict(),
            r"have another shape \(cls_token is \(1, 1, 32\) instead of \(1, 1, 16\)\)",
        ),
        (
            vit(1, patch_size=4).backbone.state_dict(),
            r"another shape \(patch_embed.proj.weight is \(16, 5, 4, 4\) instead of",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            load_weights(own.backbone, weights, "vit", channels=FIVE)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize("name", ["vit", "resnet18", "convnext_atto", "vit_demo", "covariance_vit"])
def test_channels_are_matched_by_name(name):
    """Permuted channels give the features of the permuted image; the new one adds what the mean kernel gives."""
    small = {
        "vit": VIT,
        "vit_demo": {"name": "vit_demo", "image_size": 32},
        "covariance_vit": {"name": "covariance_vit", "image_size": 32},
    }
    kw = small.get(name, {"name": name})
    torch.manual_seed(0)
    given, own = create_encoder(**kw).eval(), create_encoder(**kw, in_channels=6, channels=SIX).eval()
    loaded = load_weights(own.backbone, given.backbone.state_dict(), "x", given_channels=FIVE, channels=SIX)
    assert loaded.changed == [
        "channels permuted from DNA, ER, RNA, AGP, Mito; BF starts as the mean of the 5 given channels"
    ]
    images = pixels(6)
    images[:, SIX.index("BF")] = 0
    expected = given(images[:, [SIX.index(channel) for channel in FIVE]])
    torch.testing.assert_close(own(images), expected, rtol=1e-4, atol=1e-5)
    kernel = next(p for p in own.backbone.parameters() if p.ndim == 4)
    torch.testing.assert_close(kernel[:, SIX.index("BF")], kernel[:, [0, 1, 3, 4, 5]].mean(1))


def test_a_channel_less_is_dropped_and_tables_of_channels_are_matched_too():
    given, own = vit(1), vit(2, in_channels=3, channels=["AGP", "DNA", "ER"])
    loaded = load_weights(own.backbone, given.backbone.state_dict(), "x", given_channels=FIVE, channels=own.channels)
    assert loaded.changed == ["channels permuted from DNA, ER, RNA, AGP, Mito; RNA, Mito dropped"]
    kernel = own.backbone.patch_embed.proj.weight
    assert torch.equal(kernel, given.backbone.patch_embed.proj.weight[:, [3, 0, 1]])
    small = {"image_size": 32, "embed_dim": 16, "depth": 1, "heads": 2}
    given = create_encoder("channel_vit", **small)
    own = create_encoder("channel_vit", in_channels=6, channels=SIX, **small)
    load_weights(own.backbone, given.backbone.state_dict(), "x", given_channels=FIVE, channels=SIX)
    table, whole = own.backbone.channel_embedding, given.backbone.channel_embedding
    torch.testing.assert_close(table, torch.stack([whole[4], whole[3], whole.mean(0), whole[2], whole[1], whole[0]]))


def test_channels_that_cannot_be_matched_are_refused():
    given = vit(1).backbone.state_dict()
    with pytest.raises(
        ValueError, match="are of the channels DNA, ER, RNA, AGP, Mito, this encoder has BF: none in common"
    ):
        load_weights(vit(2, in_channels=1, channels=["BF"]).backbone, given, "x", given_channels=FIVE, channels=["BF"])
    with pytest.raises(
        ValueError, match=r"have 5 input channels without names, this encoder has 6 .*: name those .* init.channels"
    ):
        load_weights(vit(2, in_channels=6, channels=SIX).backbone, given, "x", channels=SIX)


@pytest.mark.parametrize("class_token", [True, False])
def test_positions_are_interpolated_as_timm_does(class_token):
    kw = {"class_token": class_token, "global_pool": "token" if class_token else "avg"}
    given, own = vit(1, **kw), vit(2, image_size=48, **kw)
    loaded = load_weights(own.backbone, given.backbone.state_dict(), "x", channels=FIVE)
    expected = resample_abs_pos_embed(given.backbone.pos_embed, [6, 6], num_prefix_tokens=int(class_token))
    torch.testing.assert_close(own.backbone.pos_embed, expected, rtol=0, atol=0)
    assert loaded.changed == ["positions 4x4 interpolated to 6x6"]


def test_the_last_norm_is_found_where_the_network_pools_before_it():
    given, own = vit(1), vit(2, global_pool="avg")
    with torch.no_grad():
        given.backbone.norm.weight.uniform_()
    loaded = load_weights(own.backbone, given.backbone.state_dict(), "x", channels=FIVE)
    assert torch.equal(own.backbone.fc_norm.weight, given.backbone.norm.weight)
    assert loaded.changed == ["norm taken as fc_norm, since this network pools before it"]


def test_layouts_that_timm_converts_are_read():
    """DINOv2 with registers as its authors publish it: names and positions differ from timm's."""
    own = timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=28, num_classes=0, depth=1, embed_dim=16, num_heads=2
    )
    state = dict(
        timm.create_model(
            "vit_small_patch14_reg4_dinov2", img_size=28, num_classes=0, depth=1, embed_dim=16, num_heads=2
        ).state_dict()
    )
    published = {name: value for name, value in state.items() if name != "reg_token"}
    published |= {"register_tokens": state["reg_token"], "mask_token": torch.zeros(1, 16)}
    published["pos_embed"] = torch.cat([torch.zeros(1, 1, 16), state["pos_embed"]], dim=1)
    loaded = load_weights(own, published, "x", name="vit_small_patch14_reg4_dinov2")
    assert loaded.tensors == len(state)
    x = torch.rand(1, 3, 28, 28)
    reference = timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=28, num_classes=0, depth=1, embed_dim=16, num_heads=2
    )
    reference.load_state_dict(state)
    assert torch.equal(own.eval()(x), reference.eval()(x))


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov2_with_registers"])
def test_hugging_face_transformers_give_the_same_features(kind, tmp_path):
    import transformers as hf

    model = {"vit": hf.ViTModel, "dinov2": hf.Dinov2Model, "dinov2_with_registers": hf.Dinov2WithRegistersModel}[kind]
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    settings |= {"intermediate_size": 64, "layer_norm_eps": 1e-6} if kind == "vit" else {}
    torch.manual_seed(0)
    theirs = model(model.config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.2)
    theirs.save_pretrained(tmp_path)
    name = {"vit": "vit_tiny_patch16_224", "dinov2": "vit_small_patch14_dinov2"}.get(
        kind, "vit_small_patch14_reg4_dinov2"
    )
    ours = timm.create_model(name, img_size=28, patch_size=14, embed_dim=16, depth=2, num_heads=2, num_classes=0).eval()
    loaded = load_weights(ours, read_weights(tmp_path / "model.safetensors"), "x", name=name)
    assert loaded.tensors == len(ours.state_dict())
    x = torch.rand(2, 3, 28, 28)
    torch.testing.assert_close(ours(x), theirs(x).last_hidden_state[:, 0], rtol=1e-4, atol=1e-4)
    in_memory = timm.create_model(
        name, img_size=28, patch_size=14, embed_dim=16, depth=2, num_heads=2, num_classes=0
    ).eval()
    load_weights(in_memory, theirs.state_dict(), "x", name=name)
    assert torch.equal(in_memory(x), ours(x))
