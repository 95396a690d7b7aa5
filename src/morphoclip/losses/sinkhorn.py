"""Sinkhorn balancing of assignments to prototypes, over all ranks, in the log domain."""

from __future__ import annotations

import torch
from torch import Tensor

from morphoclip.distributed import gather_rows


@torch.no_grad()
def sinkhorn(log_scores: Tensor, iterations: int) -> Tensor:
    """Assignments (B, K) with row sums 1 and equal column sums over the samples of all ranks (Cuturi 2013).

    Each iteration normalises the columns over all ranks, then the rows; without iterations it is the softmax of each row.

    Args:
        log_scores: (B, K), log of the scores to balance. Shifting a row changes the result, so no maximum is
            subtracted; sums are computed as logsumexp, since exp overflows float32 at small temperatures. B must be
            the same on all ranks.
        iterations: 3 in DINO and MSN.
    """
    log_q = log_scores
    for _ in range(iterations):
        columns = gather_rows(log_q.logsumexp(dim=0)[None]).logsumexp(dim=0)  # (K,)
        log_q = log_q - columns
        log_q = log_q - log_q.logsumexp(dim=1, keepdim=True)
    return log_q.softmax(dim=1)
