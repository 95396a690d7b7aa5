"""A teacher starts as its student, follows it, and runs without dropout but with the batch's statistics."""

import torch
from torch import nn

from morphoclip.training.ema import Teacher


def student():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def test_parameters_average_and_buffers_are_copied():
    model = student()
    teacher = Teacher(model)
    before = [p.clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p += 1
    model[1].running_mean += 3
    model[1].num_batches_tracked += 5
    teacher.update(model, 0.9)
    for p, start in zip(teacher.parameters(), before, strict=True):
        torch.testing.assert_close(p, start + 0.1)
    assert torch.equal(teacher.module[1].running_mean, model[1].running_mean)
    assert teacher.module[1].num_batches_tracked == 5


def test_it_neither_drops_out_nor_trains():
    model = student()
    teacher = Teacher(model).train()
    x = torch.randn(16, 3)
    first, second = teacher(x), teacher(x)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert all(p.requires_grad for p in model.parameters())


def test_batch_norm_uses_the_batch_in_training_and_its_averages_in_evaluation():
    teacher = Teacher(nn.Sequential(nn.BatchNorm1d(3, affine=False)))
    x = 5 + torch.randn(200, 3)
    assert teacher.train()(x).mean().abs() < 1e-5
    assert teacher.eval()(x).mean() > 1
