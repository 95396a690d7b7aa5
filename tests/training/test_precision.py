"""Every precision that is offered trains every method; averages, norms and clipping are those of full precision."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from morphoclip.losses import DINOLoss
from morphoclip.training.ema import Teacher
from morphoclip.training.guards import OVERFLOWS, ZEROS, global_norm
from morphoclip.training.launch import PRECISIONS, trainer_precision
from tests.methods.tiny import METHODS, bags, batch_of, loader, simclr, trainer


def settings(precision: str, scale: float = 2.0**8) -> dict:
    """Arguments of a trainer; on a CPU Lightning makes no scaler for 16-mixed by itself."""
    if precision != "16-mixed":
        return {"precision": precision}
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))]}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_in_every_precision(precision, name):
    exact = METHODS[name]()
    trainer(1, precision="64-true").fit(exact, loader(batch_of(name)))
    method, first = METHODS[name](), METHODS[name]()
    trainer(1, **settings(precision)).fit(first, loader(batch_of(name)))
    few_bits = "bf16" in precision
    torch.testing.assert_close(first.last_loss.double(), exact.last_loss, rtol=0.02 if few_bits else 0.01, atol=0)
    before = {key: value.clone() for key, value in method.named_parameters()}
    trainer(3, **settings(precision)).fit(method, loader(batch_of(name)))
    assert method.last_loss.isfinite()
    assert method.last_loss.dtype in (torch.float32, torch.float64)  # a loss is never computed in fewer bits
    moved = [key for key, value in method.named_parameters() if not torch.equal(value.float(), before[key].float())]
    assert len(moved) > len(before) // 2


@pytest.mark.parametrize("precision", ["16-true", "transformer-engine", "bf16"])
def test_others_are_refused_in_a_line(precision):
    with pytest.raises(ValueError, match=rf"trainer\.precision={precision}: use one of 32-true, bf16-mixed, 16-mixed"):
        trainer_precision(precision, "cpu")


def test_a_trainer_of_ones_own_is_refused_too():
    with pytest.raises(ValueError, match=r"trainer\.precision=16-true"):
        trainer(1, precision="16-true").fit(simclr(), loader(bags()))


def test_a_slow_teacher_of_a_bfloat16_student_moves():
    student = nn.Linear(4, 4)
    teacher = Teacher(student)
    nn.ModuleList([student, teacher]).to(torch.bfloat16)
    assert next(student.parameters()).dtype == torch.bfloat16
    start = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for p in student.parameters():
            p += 1
    for _ in range(2000):
        teacher.update(student, 0.9995)
    for mine, before, target in zip(teacher.parameters(), start, student.parameters(), strict=True):
        share = (mine - before) / (target.float() - before)
        torch.testing.assert_close(share, torch.full_like(share, 1 - 0.9995**2000), rtol=1e-3, atol=0)
    assert teacher(torch.ones(2, 4, dtype=torch.bfloat16)).isfinite().all()


def test_a_center_stays_in_float32_and_doubles_stay_doubles():
    assert DINOLoss(3).to(torch.bfloat16).center.dtype == torch.float32
    assert DINOLoss(3).double().center.dtype == torch.float64


def test_norms_of_bfloat16_gradients_are_summed_in_float32():
    gradients = [torch.full((1000,), 0.1, dtype=torch.bfloat16), torch.full((7,), 3.0, dtype=torch.bfloat16)]
    exact = torch.cat([g.double() for g in gradients]).norm()
    torch.testing.assert_close(global_norm(gradients).double(), exact, rtol=1e-6, atol=0)
    assert global_norm([]) == 0


def stepped(monkeypatch, fused: bool, scale: float | None) -> torch.Tensor:
    """All weights after two clipped steps at a loss scale, or without one."""
    build = torch.optim.AdamW

    def built(groups, **options):
        return build(groups, **{**options, "fused": fused})

    monkeypatch.setattr(torch.optim, "AdamW", built)
    method = simclr()
    plugin = MixedPrecision("bf16-mixed", "cpu")
    if scale is not None:  # the same numbers, and a scaler
        plugin.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainer(2, plugins=[plugin], gradient_clip_val=0.01).fit(method, loader(bags()))
    return torch.cat([p.detach().flatten() for p in method.parameters()])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("scale", [1.0, 256.0, 65536.0])
def test_clipping_is_of_unscaled_gradients_whoever_unscales(monkeypatch, fused, scale):
    torch.testing.assert_close(
        stepped(monkeypatch, fused, scale), stepped(monkeypatch, fused, None), rtol=1e-5, atol=1e-7
    )


class Overflow(pl.Callback):
    """Makes the gradients of the given steps infinite, and keeps the weights after each step."""

    def __init__(self, steps) -> None:
        self.steps, self.weights, self.scales = steps, [], []

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step in self.steps:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(float("inf"))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.weights.append(torch.cat([p.detach().flatten().clone() for p in pl_module.parameters()]))
        self.scales.append(trainer.precision_plugin.scaler.get_scale())


def test_an_overflow_skips_a_step_and_halves_the_scale():
    seen = Overflow({1, 2})
    trainer(5, callbacks=[seen], gradient_clip_val=1.0, **settings("16-mixed")).fit(simclr(), loader(bags()))
    assert torch.equal(seen.weights[0], seen.weights[1])
    assert torch.equal(seen.weights[1], seen.weights[2])
    assert not torch.equal(seen.weights[2], seen.weights[3])
    assert seen.weights[-1].isfinite().all()
    assert seen.scales == [256.0, 128.0, 64.0, 64.0, 64.0]


def test_overflows_in_a_row_stop():
    seen = Overflow(range(100))
    with pytest.raises(FloatingPointError, match=rf"{OVERFLOWS} steps in a row .*bf16-mixed"):
        trainer(100, callbacks=[seen], **settings("16-mixed")).fit(simclr(), loader(*[bags()] * 10))
    assert len(seen.weights) <= OVERFLOWS + 1


def test_without_a_scaler_one_is_enough():
    with pytest.raises(FloatingPointError, match="gradient norm at step 1"):
        trainer(5, callbacks=[Inf()]).fit(simclr(), loader(bags()))


class Inf(pl.Callback):
    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == 1:
            next(p for p in pl_module.parameters() if p.grad is not None).grad.fill_(float("inf"))


class Nothing(nn.Module):
    """A loss without a gradient."""

    def forward(self, *views, **_):
        return sum(view.sum() for view in views) * 0.0


def test_a_training_whose_gradients_are_all_zero_stops_with_a_word():
    method = simclr()
    method.loss = Nothing()
    with pytest.raises(FloatingPointError, match=f"exactly 0 at the last {ZEROS} steps"):
        trainer(50, gradient_clip_val=1.0).fit(method, loader(bags()))
