"""Hierarchical channel sampling: as many channels a step for all, each view of each crop its own, drawn as all else is."""

import pytest
import torch

from tests.methods.tiny import CHANNEL_VIT, METHODS, batch_of, loader, trainer


def draws(method, crops=64, steps=60):
    method.trainer = trainer(1)
    loop = method.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    for loop.completed in range(steps):
        yield method.sampled_channels(crops, 0, "one", "two")


def test_every_number_of_channels_comes_up_and_every_channel_as_often():
    drawn = list(draws(METHODS["simclr"](encoder=CHANNEL_VIT)))
    assert {shown.shape for shown in drawn} == {(128, count) for count in range(1, 6)}
    counts = torch.zeros(5)
    for shown in drawn:
        assert all(len(set(row)) == len(row) for row in shown.tolist())
        counts += shown.flatten().bincount(minlength=5)
    torch.testing.assert_close(counts / counts.sum(), torch.full((5,), 0.2), atol=0.02, rtol=0)


def test_views_and_crops_differ_and_a_step_always_draws_the_same():
    two = next(shown for shown in draws(METHODS["simclr"](encoder=CHANNEL_VIT)) if shown.shape[1] == 2)
    first, second = two.chunk(2)
    assert not torch.equal(first, second)
    assert len({tuple(row) for row in first.tolist()}) == 10
    again = next(shown for shown in draws(METHODS["simclr"](encoder=CHANNEL_VIT)) if shown.shape[1] == 2)
    assert torch.equal(two, again)


def test_encoders_that_see_all_channels_draw_none():
    method = METHODS["simclr"](encoder=CHANNEL_VIT | {"channel_sampling": False})
    assert method.sampled_channels(4, 0, "view") is None
    assert METHODS["simclr"]().sampled_channels(4, 0, "view") is None


@pytest.mark.parametrize("name", ["simclr", "clip", "dino", "cwa_msn"])
def test_students_see_the_drawn_channels_and_teachers_all(name):
    method, seen = METHODS[name](encoder=CHANNEL_VIT, seed=1), {}

    def note(module, args, kw):
        shown = kw.get("shown", args[2] if len(args) > 2 else None)
        seen.setdefault(module, []).append(5 if shown is None else shown.shape[1])

    towers = [method.encoder, *([method.teacher_encoder.module] if name in ("dino", "cwa_msn") else [])]
    for tower in towers:
        tower.register_forward_pre_hook(note, with_kwargs=True)
    trainer(2).fit(method, loader(batch_of(name)))
    assert set(seen[method.encoder]) == {2, 4}
    assert all(set(seen[teacher]) == {5} for teacher in towers[1:])
