"""On a GPU: the numbers of a CPU, every precision, a real loss scale, and a training that goes on."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch

from morphoclip.augment import Color, Compose, Flip, RandomCrop
from morphoclip.losses import InfoNCELoss
from morphoclip.training.launch import trainer_precision
from tests.methods.tiny import METHODS, bags, batch_of, loader, simclr, trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def fit(name: str, steps: int = 3, **options):
    """(method, loss of each step) after a training on three different batches."""
    losses: list[float] = []

    class Losses(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            losses.append(pl_module.last_loss.item())

    batch = batch_of(name)
    method = METHODS[name]()
    trainer(steps, callbacks=[Losses()], gradient_clip_val=1.0, **options).fit(method, loader(batch, batch, batch))
    return method, losses


@pytest.fixture(autouse=True)
def no_tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before)
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.parametrize("name", METHODS)
def test_three_steps_in_float64_are_those_of_a_cpu(name):
    expected, on_cpu = fit(name, precision="64-true")
    found, on_gpu = fit(name, precision="64-true", accelerator="gpu")
    torch.testing.assert_close(torch.tensor(on_gpu), torch.tensor(on_cpu), rtol=1e-6, atol=1e-8)
    weights = dict(found.named_parameters())
    for key, value in expected.named_parameters():
        torch.testing.assert_close(weights[key].cpu(), value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
@pytest.mark.parametrize("name", METHODS)
def test_every_precision_trains_and_is_near_float64(name, precision):
    _, exact = fit(name, precision="64-true", accelerator="gpu")
    _, losses = fit(name, precision=precision, accelerator="gpu")
    assert losses[0] == pytest.approx(exact[0], rel=0.02)
    assert all(torch.tensor(losses).isfinite())


def test_a_loss_scale_that_overflows_is_found():
    class Scales(pl.Callback):
        def __init__(self) -> None:
            self.values: list[float] = []

        def on_train_batch_end(self, trainer, *_):
            self.values.append(trainer.precision_plugin.scaler.get_scale())

    class Steep(torch.nn.Module):
        """A loss whose scaled gradients are beyond float16 at the first scale."""

        def forward(self, first, second, **_):
            return (first.float() - second.float()).square().sum() * 1e3

    scales, method = Scales(), simclr()
    method.loss = Steep()
    trainer(20, accelerator="gpu", precision="16-mixed", callbacks=[scales], gradient_clip_val=0.1).fit(
        method, loader(*[bags()] * 4)
    )
    assert scales.values[-1] < 65536
    assert method.last_loss.isfinite()
    assert all(p.isfinite().all() for p in method.parameters())


def test_bf16_is_the_default():
    assert trainer_precision(None, "auto") == "bf16-mixed"


def test_augmentation_is_that_of_a_cpu():
    images = torch.rand(16, 5, 64, 64, generator=torch.Generator().manual_seed(0))
    augmentation = Compose([RandomCrop(48), Flip(), Color()])
    parameters = augmentation.draw(16, 5, torch.Generator().manual_seed(1))
    found = augmentation.apply(images.cuda(), parameters).cpu()
    torch.testing.assert_close(found, augmentation.apply(images, parameters), rtol=1e-5, atol=1e-6)


def test_a_chunked_loss_of_many_pairs_fits_and_is_the_plain_one():
    draws = torch.Generator().manual_seed(0)
    image, text = (torch.randn(4096, 64, generator=draws).cuda().requires_grad_() for _ in range(2))
    scale = torch.tensor(10.0, device="cuda")
    plain, chunked = (InfoNCELoss(chunk_size=size)(image, text, scale) for size in (None, 512))
    torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-5)


def test_a_training_goes_on_from_a_checkpoint(tmp_path):
    batches = loader(*[bags()] * 4)
    whole, half, rest = simclr(), simclr(), simclr()
    options = {"accelerator": "gpu", "precision": "32-true"}
    trainer(4, **options).fit(whole, batches)
    run = trainer(4, **options, callbacks=[Stop(tmp_path / "2.ckpt")])
    run.fit(half, batches)
    trainer(4, **options).fit(rest, batches, ckpt_path=tmp_path / "2.ckpt", weights_only=True)
    found = dict(rest.named_parameters())
    for key, value in whole.named_parameters():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


class Stop(pl.Callback):
    """Saves a checkpoint after two steps and stops."""

    def __init__(self, path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.path, weights_only=False)
            trainer.should_stop = True
