"""KoLeo against its formula, and what it prefers."""

import torch
import torch.nn.functional as F

from morphoclip.losses import KoLeoLoss


def test_equals_the_mean_log_distance_to_the_nearest_neighbour():
    x = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distance = torch.cdist(F.normalize(x, dim=1), F.normalize(x, dim=1)).fill_diagonal_(torch.inf)
    torch.testing.assert_close(KoLeoLoss()(x), -distance.min(1).values.log().mean())


def test_coinciding_embeddings_cost_much_and_keep_finite_gradients():
    x = torch.ones(4, 3).requires_grad_()
    loss = KoLeoLoss()(x)
    loss.backward()
    assert loss > 10
    assert x.grad.isfinite().all()
