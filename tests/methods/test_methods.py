"""What every method must do: train all its parameters, resume exactly, stop when not finite, save its encoder."""

import hydra
import pytest
import pytorch_lightning as pl
import torch

from morphoclip.methods.base import build
from morphoclip.methods.crops import as_crops
from morphoclip.models import create_encoder
from morphoclip.models.features import FEATURE_ENCODERS
from tests.methods.resume import differences, small_screen
from tests.methods.tiny import AUGMENT, METHODS, Gradients, bags, batch_of, cwa_msn, loader, mae, trainer


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


@pytest.fixture
def make(name):
    return METHODS[name]


@pytest.fixture
def batch(name):
    return batch_of(name)


def test_every_trainable_parameter_gets_a_gradient(make, batch):
    gradients = Gradients()
    trainer(4, callbacks=[gradients]).fit(make(), loader(batch))
    assert not gradients.silent


def test_bf16_autocast_leaves_the_loss_in_float32_and_reaches_every_parameter(make, batch):
    method, gradients = make(), Gradients()
    trainer(2, precision="bf16-mixed", callbacks=[gradients]).fit(method, loader(batch))
    assert method.last_loss.dtype == torch.float32
    assert not gradients.silent


@pytest.mark.parametrize("name", ["simclr", "clip", "mae"])  # a teacher's targets move, and the loss with them
def test_the_loss_falls(name):
    gradients = Gradients()
    trainer(12, callbacks=[gradients]).fit(METHODS[name](), loader(batch_of(name)))
    assert sum(gradients.losses[-3:]) < sum(gradients.losses[:3])


def test_a_resumed_run_ends_where_an_uninterrupted_one_does_bit_for_bit(name, tmp_path):
    assert differences(name, small_screen(tmp_path / "screen"), tmp_path) == []


def test_checkpoint_rebuilds_encoder_and_method_from_plain_data(make, batch, tmp_path):
    method = make()
    run = trainer(1)
    run.fit(method, loader(batch))
    run.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    prefix = checkpoint["encoder_prefix"]
    encoder = create_encoder(**checkpoint["encoder_config"])
    state = checkpoint["state_dict"]
    encoder.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    x = torch.rand(2, 5, 16, 16)
    expected = method.eval().export_encoder()(x)
    assert torch.equal(encoder.eval()(x), expected)
    again = type(method).load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True).eval()
    assert torch.equal(again.export_encoder()(x), expected)


@pytest.mark.parametrize("monitor_every", [1, 2, 50])
def test_a_step_that_is_not_finite_stops_the_run_and_is_never_saved(name, make, batch, tmp_path, monitor_every):
    broken = batch_of(name)
    broken.low[0] = float("nan")
    saving = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    run = trainer(5, callbacks=[saving], enable_checkpointing=True)
    with pytest.raises(FloatingPointError, match="loss and gradient norm at step 1"):
        run.fit(make(monitor_every=monitor_every), loader(batch, broken, batch))
    assert [path.name for path in tmp_path.iterdir()] == ["step=1.ckpt"]


def test_clipping_bounds_the_global_norm(make, batch):
    norms = []

    class Norm(pl.Callback):
        def on_before_zero_grad(self, trainer, module, optimizer):
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            if grads:
                norms.append(torch.nn.utils.get_total_norm(grads).item())

    trainer(2, gradient_clip_val=0.01, callbacks=[Norm()]).fit(make(), loader(batch))
    assert norms
    assert max(norms) <= 0.01 + 1e-6


def test_views_depend_on_seed_step_and_purpose_only(make):
    method = make()
    method.trainer = trainer(1)
    crops = as_crops(bags())
    augmentation = build(AUGMENT)

    def view(method, purpose):
        return method.views(crops, 0, purpose, augmentation=augmentation)[0]

    one, two = view(method, "view 1"), view(method, "view 2")
    torch.rand(3)  # the global generator's state is no part of it
    assert torch.equal(view(method, "view 1"), one)
    assert not torch.equal(one, two)
    other = make(seed=1)
    other.trainer = method.trainer
    assert not torch.equal(view(other, "view 1"), one)


@pytest.mark.parametrize("group", ["encoder", "augment", "optimizer", "method"])
def test_every_config_instantiates(group):
    from morphoclip import configs_dir

    for path in sorted((configs_dir() / group).glob("*.yaml")):
        if group == "encoder" and path.stem in FEATURE_ENCODERS:
            continue  # for cached features: tests/methods/test_clip_features.py
        method = path.stem if group == "method" else "simclr"
        overrides = [f"+{group}={path.stem}"] if group != "method" else []
        if path.stem == "openphenom":
            continue  # brings code of its own: tests/models/test_remote_code.py
        if path.stem in ("per_channel", "dinov2"):
            overrides.append("encoder.pretrained=false")  # tests fetch nothing
        if path.stem == "timm":
            overrides.append("encoder.name=resnet18")
        defaults = {
            "encoder": "vit_demo" if path.stem != "mae" else "vit_tiny",
            "augment": "flip_color",
            "optimizer": "adamw",
            "text": "small",
            "method": method,
        }
        overrides += [f"+{name}={choice}" for name, choice in defaults.items() if name != group or group == "method"]
        with hydra.initialize_config_dir(str(configs_dir()), version_base="1.3"):
            config = hydra.compose(overrides=[*overrides, "+seed=0"])
        extra = {"prompts": ["aspirin", "DMSO"]} if method == "clip" else {}
        built = hydra.utils.instantiate(config.method, **extra)
        assert built.encoder.config["name"] == config.encoder.name


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (mae, "MAE masks patches, which .* cannot leave out: use"),
        (cwa_msn, "CWA-MSN masks patches, which .* cannot leave out: use"),
    ],
)
def test_methods_that_hide_patches_say_which_encoders_have_some(method, message):
    with pytest.raises(ValueError, match=message):
        method(encoder={"name": "covariance_vit", "image_size": 16, "stem_widths": [4], "embed_dim": 16})
