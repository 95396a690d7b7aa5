"""Settings of computation: the same losses, weights by the same names, the same export; and each trainer config."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from morphoclip import configs_dir
from morphoclip.profiling import export_encoder, load_encoder
from morphoclip.training.blocks import Recomputed, transformer_blocks
from morphoclip.training.callbacks import Progress
from morphoclip.training.checkpointing import Checkpoints
from morphoclip.training.launch import Launch, set_launch
from morphoclip.training.optimizers import AdamW
from morphoclip.training.trainer import Trainer
from tests.methods.resume import Logged
from tests.methods.tiny import LINEAR_VIT, METHODS, TWO_SIZES, batch_of, loader

QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
}
SETTINGS: list[dict[str, Any]] = [
    {"compile": "aot_eager"},
    {"recompute_blocks": True},
    {"channels_last": True},
    {"tf32": True},
    {"compile": "eager", "recompute_blocks": True, "channels_last": True},
]
DROPS = {"depth": 2, "drop_path_rate": 0.3}


def train(name: str, encoder: dict[str, Any], **settings: Any) -> tuple[pl.LightningModule, list[float]]:
    """The method after three steps with dropped paths, and the loss of each."""
    method, logged = METHODS[name](encoder=encoder | DROPS), Logged()
    Trainer(max_steps=3, callbacks=[logged], **QUIET, **settings).fit(method, loader(*[batch_of(name)] * 3))
    return method, logged.losses


@pytest.fixture(autouse=True)
def precision_of_products():
    yield
    torch.set_float32_matmul_precision("highest")
    torch.compiler.reset()


@pytest.fixture(scope="module")
def plain():
    return {
        name: train(name, encoder)
        for name, encoder in (("mae", LINEAR_VIT), ("dino", TWO_SIZES), ("simclr", LINEAR_VIT))
    }


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, chosen) for name in ("mae", "simclr") for chosen in SETTINGS),
        ("dino", SETTINGS[1]),
        ("dino", SETTINGS[4]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else value,
)
def test_losses_and_weights_stay_the_same(name, settings, plain, tmp_path):
    expected, losses = plain[name]
    method, found = train(name, TWO_SIZES if name == "dino" else LINEAR_VIT, **settings)
    assert found == pytest.approx(losses, rel=1e-5)
    before, after = expected.state_dict(), method.state_dict()
    assert list(after) == list(before)
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-3, atol=1e-5)
    export_encoder(method, tmp_path / "encoder", trained_on={})
    crops = torch.rand(2, 5, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(
            load_encoder(tmp_path / "encoder")(crops), expected.export_encoder().eval()(crops), rtol=1e-3, atol=1e-4
        )


def test_blocks_are_compiled_and_recomputed():
    method, _ = train("mae", LINEAR_VIT, compile="eager", recompute_blocks=True)
    blocks = transformer_blocks(method)
    assert len(blocks) == 3  # two of the encoder, one of the decoder
    assert all(isinstance(block.forward, Recomputed) for block in blocks)
    assert all(hasattr(block.forward.forward, "_torchdynamo_orig_callable") for block in blocks)
    method, _ = train("mae", LINEAR_VIT, compile="eager")
    assert all(block._compiled_call_impl is not None for block in transformer_blocks(method))


def test_a_recomputed_block_runs_twice_a_step_and_once_without_gradients():
    counted: list[int] = []
    method = METHODS["simclr"](encoder=LINEAR_VIT)
    (block,) = transformer_blocks(method)
    block.attn.register_forward_hook(lambda *_: counted.append(1))
    Trainer(max_steps=1, **QUIET, recompute_blocks=True).fit(method, loader(batch_of("simclr")))
    assert len(counted) == 4  # two views
    with torch.no_grad():
        method.encoder(torch.zeros(1, 5, 16, 16))
    assert len(counted) == 5


def test_tf32_is_a_setting_of_the_process_and_off_by_default():
    train("simclr", LINEAR_VIT, tf32=True)
    assert torch.get_float32_matmul_precision() == "high"
    train("simclr", LINEAR_VIT)
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"compile": "nope"}, "trainer.compile=nope: give true, false, or a backend"),
        ({"tf32": "yes"}, "trainer.tf32='yes': give true or false"),
        ({"limit_train_batches": "many"}, "trainer.limit_train_batches='many'"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(ValueError, match=said):
        train("simclr", LINEAR_VIT, **settings)


def test_a_model_without_transformer_blocks_is_refused():
    with pytest.raises(ValueError, match="this model has none"):
        transformer_blocks(torch.nn.Linear(2, 2))


def test_without_a_bar_or_a_saver_there_is_none(tmp_path):
    bar, saver = Progress(), Checkpoints(tmp_path)
    both = Trainer(callbacks=[bar, saver], **QUIET)
    assert (both.progress_bar_callback, both.checkpoint_callbacks) == (bar, [saver])
    hidden = Trainer(callbacks=[bar, saver], enable_progress_bar=False, **QUIET)
    assert (hidden.progress_bar_callback, hidden.checkpoint_callbacks) == (None, [saver])
    none = Trainer(callbacks=[], **QUIET)  # Lightning would add a bar and save to lightning_logs
    assert (none.progress_bar_callback, none.checkpoint_callbacks) == (None, [])


@pytest.mark.parametrize("name", sorted(path.stem for path in (configs_dir() / "trainer").glob("*.yaml")))
def test_each_trainer_config_can_be_built(name, monkeypatch):
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", overrides=[f"trainer={name}"]).trainer
    if name == "gpu":
        assert config.accelerator == "gpu"
        config.accelerator = "cpu"
    if name == "ddp_multinode":
        with pytest.raises(ValueError, match="num_nodes is not set"):
            set_launch(config, Launch(0, 4, 2))
        config.num_nodes = 2
        set_launch(config, Launch(0, 4, 2))
        assert (config.devices, config.num_nodes) == (2, 2)
        config.devices, config.num_nodes = "auto", "auto"
    set_launch(config, Launch(0, 1, 1))
    made = instantiate(config, accelerator="cpu", callbacks=[])
    strategy = {"default": "SingleDeviceStrategy", "fsdp": "ShardedStrategy"}
    strategy |= dict.fromkeys(("cpu", "gpu"), "SingleDeviceStrategy")
    assert type(made.strategy).__name__ == strategy.get(name, "DDPStrategy")


def test_adamw_is_fused_unless_told_otherwise_and_equal():
    def stepped(fused: bool) -> tuple[torch.optim.Optimizer, torch.Tensor]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 4)
        optimizer = AdamW(lr=0.1, fused=fused).build(layer)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
        return optimizer, layer.weight.detach()

    (fused, one), (plain, other) = stepped(True), stepped(False)
    assert fused.defaults["fused"] is True
    assert not plain.defaults["fused"]
    torch.testing.assert_close(one, other)


def test_averages_of_a_checkpoint_get_the_layout_of_the_weights():
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(4, 4, 3)
    last = torch.nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    last.load_state_dict(plain.state_dict())
    crops = torch.rand(2, 4, 5, 5)
    optimizers = [AdamW(lr=0.1).build(layer) for layer in (plain, last)]
    plain(crops).square().sum().backward()
    optimizers[0].step()
    last.load_state_dict(plain.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    averages = optimizers[1].state[last.weight]["exp_avg"]
    assert averages.stride() == last.weight.stride() != averages.contiguous().stride()
    for layer, optimizer in zip((plain, last), optimizers, strict=True):
        optimizer.zero_grad()
        layer(crops).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(last.weight, plain.weight)
