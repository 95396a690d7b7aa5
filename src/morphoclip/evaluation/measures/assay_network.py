"""One network for all assays, with three hidden layers (Hofmarcher et al. 2019, Kim et al. 2025)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def predict_assays(
    train: np.ndarray,
    outcomes: np.ndarray,
    test: np.ndarray,
    *,
    hidden: int = 512,
    epochs: int = 60,
    batch_size: int = 256,
    dropout: float = 0.5,
    seed: int = 0,
) -> np.ndarray:
    """Probabilities of activity (n_test, A) of a network trained on all assays at once.

    As in the code released with Kim et al. 2025: three hidden layers of ReLU with dropout (.1 on the input), Xavier
    initialisation, the mean log loss of the measured outcomes, SGD with learning rate .01, momentum .9, weight decay
    1e-4 and gradients clipped to norm 5. There 2048 units and 100 epochs; here by default 512 units and 60 epochs.

    Args:
        train: (N, D). outcomes: (N, A), 1, 0 or NaN if not measured. test: (n_test, D).
    """
    import torch
    from torch import nn

    known = np.isfinite(outcomes)
    rows = np.flatnonzero(known.any(axis=1))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        widths = [train.shape[1], hidden, hidden, hidden]
        layers: list[nn.Module] = [nn.Dropout(min(0.1, dropout))]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        network = nn.Sequential(*layers, nn.Linear(hidden, outcomes.shape[1]))
        for layer in network:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        x, y, mask = (
            torch.from_numpy(np.ascontiguousarray(part, np.float32))
            for part in (train[rows], np.where(known, outcomes, 0)[rows], known[rows])
        )
        optimizer = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-4)
        loss_of = nn.BCEWithLogitsLoss(reduction="sum")
        for _ in range(epochs):
            for batch in torch.randperm(len(rows)).split(batch_size):
                logits = network(x[batch])
                keep = mask[batch] > 0
                loss = loss_of(logits[keep], y[batch][keep]) / keep.sum()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimizer.step()
        network.eval()
        with torch.inference_mode():
            return torch.sigmoid(network(torch.from_numpy(np.ascontiguousarray(test, np.float32)))).double().numpy()
