"""Low-rank updates of image encoders: they alone train, start at nothing, and are merged into what is exported."""

from __future__ import annotations

import pytest
import torch

from morphoclip.methods.starting import start_from
from morphoclip.models import create_encoder
from morphoclip.models.weight_loading import load_weights
from morphoclip.profiling import export_encoder, load_encoder
from tests.methods import tiny

pytest.importorskip("peft", reason="the peft extra is not installed")
LORA = {"rank": 2, "alpha": 4.0}
VIT = tiny.LINEAR_VIT | {"lora": LORA}
PER_CHANNEL = {"name": "per_channel", "backbone": "test_vit", "image_size": 32}


def trained(method, size: int = 16):
    batch = tiny.bags()
    batch.images = batch.images.repeat_interleave(size // 16, -1).repeat_interleave(size // 16, -2)
    before = {name: value.clone() for name, value in method.encoder.state_dict().items()}
    run = tiny.trainer(2, callbacks=[gradients := tiny.Gradients()])
    run.fit(method, tiny.loader(batch))
    assert not {name for name in gradients.silent or () if "lora_B" in name}
    return run, {name for name, value in method.encoder.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(("settings", "size"), [(tiny.LINEAR_VIT, 16), (PER_CHANNEL, 32)])
def test_only_the_updates_train_and_they_start_at_the_network_itself(settings, size):
    torch.manual_seed(0)
    plain, adapted = create_encoder(**settings).eval(), create_encoder(**settings, lora=LORA).eval()
    load_weights(adapted.backbone, plain.backbone.state_dict(), "x")
    x = torch.rand(2, 5, size, size)
    torch.testing.assert_close(adapted(x), plain(x))
    linear = sum(isinstance(part, torch.nn.Linear) for part in plain.backbone.modules())
    assert len([name for name, p in adapted.named_parameters() if p.requires_grad]) == 2 * linear
    method = tiny.simclr(encoder=settings | {"lora": LORA})
    _, changed = trained(method, size)
    assert changed
    assert all(".lora_" in name for name in changed)


@pytest.mark.parametrize(("settings", "size"), [(VIT, 16), (PER_CHANNEL | {"lora": LORA}, 32)])
def test_export_merges_them_into_a_plain_network(settings, size, tmp_path):
    method = tiny.simclr(encoder=settings)
    run, _ = trained(method, size)
    run.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    x = torch.rand(2, 5, size, size)
    expected = method.eval().encoder(x)
    for number, source in enumerate((method, tmp_path, load_encoder(tmp_path))):
        folder = export_encoder(source, tmp_path / str(number))
        loaded = load_encoder(folder)
        assert "lora" not in loaded.config
        assert not [name for name in loaded.state_dict() if "lora" in name or "base_layer" in name]
        torch.testing.assert_close(loaded(x), expected, rtol=1e-4, atol=1e-5)


def test_a_run_with_updates_is_a_source_and_dino_adapts_both_networks(tmp_path):
    dino = tiny.dino(encoder=tiny.LINEAR_VIT | {"dynamic_img_size": True, "lora": LORA})
    run, changed = trained(dino)
    assert all(".lora_" in name for name in changed)
    run.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    method = tiny.simclr(encoder=tiny.LINEAR_VIT)
    start_from(method, str(tmp_path))
    x = torch.rand(2, 5, 16, 16)
    torch.testing.assert_close(method.encoder.eval()(x), dino.eval().export_encoder()(x), rtol=1e-4, atol=1e-5)


def test_encoders_without_linear_layers_or_images_are_refused():
    with pytest.raises(ValueError, match="ResNet has no linear layer for low-rank updates"):
        create_encoder("resnet18", lora=LORA)
    with pytest.raises(ValueError, match="is for networks on images, not for cross_channel_former"):
        create_encoder(**tiny.FORMER, lora=LORA)
