"""Teachers in training: a copy at first, one tick an optimizer step, exported in place of the student."""

import pytest
import pytorch_lightning as pl
import torch

from tests.methods.tiny import batch_of, cwa_msn, dino, loader, trainer

METHODS = {"dino": dino, "cwa_msn": cwa_msn}


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def test_the_teacher_starts_as_a_copy_and_is_what_is_exported(name):
    method = METHODS[name]()
    pairs = zip(method.teacher_encoder.parameters(), method.encoder.parameters(), strict=True)
    assert all(torch.equal(t, s) for t, s in pairs)
    assert method.export_encoder() is method.teacher_encoder.module


@pytest.mark.parametrize("accumulate", [1, 3])
def test_it_ticks_once_an_optimizer_step(name, accumulate):
    method, ticks = METHODS[name](), []
    update = method.teacher_encoder.update
    method.teacher_encoder.update = lambda student, m: ticks.append(m) or update(student, m)
    batches = [batch_of(name)] * 6
    trainer(6 // accumulate, accumulate_grad_batches=accumulate).fit(method, loader(*batches))
    assert ticks == pytest.approx([method.ema_momentum(s, 6 // accumulate) for s in range(6 // accumulate)])


def test_it_follows_the_student_by_its_momentum(name):
    method = METHODS[name]()
    start = method.teacher_encoder.module.backbone.pos_embed.clone()
    trainer(1).fit(method, loader(batch_of(name)))
    expected = start.lerp(method.encoder.backbone.pos_embed, 1 - method.ema_momentum(0, 1))
    torch.testing.assert_close(method.teacher_encoder.module.backbone.pos_embed, expected)


def test_dino_calls_its_backbone_once_a_resolution():
    method, shapes = dino(), []
    method.encoder.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    trainer(1).fit(method, loader(batch_of("dino")))
    assert shapes == [(48, 5, 12, 12), (48, 5, 8, 8)]  # 24 crops: two global and two local views each


class LastLayer(pl.Callback):
    def __init__(self):
        self.moved = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.before = module.head.prototypes.detach().clone()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.moved.append(not torch.equal(module.head.prototypes, self.before))


def test_dinos_last_layer_can_be_frozen_for_the_first_steps():
    method, watch = dino(), LastLayer()
    method.recipe.frozen["head.prototypes"] = {"steps": 2}
    trainer(4, callbacks=[watch]).fit(method, loader(batch_of("dino")))
    assert watch.moved == [False, False, True, True]


def test_targets_come_from_the_other_well_and_fall_back_where_it_is_padding():
    from morphoclip.methods.cwa_msn import split_pairs

    batch = batch_of("cwa_msn")
    first, second = split_pairs(batch)
    assert torch.equal(first.images, batch.images[:, 0])
    assert torch.equal(second.images[0], batch.images[0, 1])
    assert torch.equal(second.images[1], batch.images[1, 0])  # its second crop is padding
    with pytest.raises(ValueError, match="bags of 4"):
        split_pairs(batch_of("dino"))


class Norms(pl.Callback):
    def __init__(self):
        self.found = []

    def on_before_zero_grad(self, trainer, module, optimizer):
        self.found = [p.grad.norm().item() for p in module.parameters() if p.grad is not None] or self.found


def test_dino_can_clip_each_parameter_on_its_own():
    apart, together = Norms(), Norms()
    for norms, each in ((apart, True), (together, False)):
        trainer(2, callbacks=[norms], gradient_clip_val=1e-3).fit(
            dino(clip_each_parameter=each), loader(batch_of("dino"))
        )
    assert max(apart.found) == pytest.approx(1e-3, rel=1e-2)
    assert sum(n > 0.99e-3 for n in apart.found) > 5
    assert sum(n**2 for n in together.found) ** 0.5 == pytest.approx(1e-3, rel=1e-2)
