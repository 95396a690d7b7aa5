"""Embeddings ▶ scalar loss: pure torch, computed outside autocast, gathered over ranks, exact under DDP."""

from morphoclip.losses.cloob import CLOOBLoss
from morphoclip.losses.context import LossContext
from morphoclip.losses.cross_modal import CrossModalLoss
from morphoclip.losses.cwcl import CWCLLoss
from morphoclip.losses.dino import DINOLoss
from morphoclip.losses.infonce import InfoNCELoss
from morphoclip.losses.koleo import KoLeoLoss
from morphoclip.losses.mae import MAELoss
from morphoclip.losses.msn import MSNLoss
from morphoclip.losses.ntxent import NTXentLoss
from morphoclip.losses.s2l import S2LLoss
from morphoclip.losses.siglip import SigLIPLoss
from morphoclip.losses.supcon import SupConLoss

__all__ = [
    "CLOOBLoss",
    "CWCLLoss",
    "CrossModalLoss",
    "DINOLoss",
    "InfoNCELoss",
    "KoLeoLoss",
    "LossContext",
    "MAELoss",
    "MSNLoss",
    "NTXentLoss",
    "S2LLoss",
    "SigLIPLoss",
    "SupConLoss",
]
