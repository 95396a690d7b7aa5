"""Embeddings ▶ scalar: pure torch, no Lightning, no config (METHODS §0 has the rules all of them keep)."""

from morphoclip.losses.context import LossContext
from morphoclip.losses.infonce import InfoNCELoss
from morphoclip.losses.ntxent import NTXentLoss
from morphoclip.losses.supcon import SupConLoss

__all__ = ["InfoNCELoss", "LossContext", "NTXentLoss", "SupConLoss"]
