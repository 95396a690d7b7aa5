"""SMILES ▶ embeddings by message passing over bonds, with chemprop. Needs the `chemprop` extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from morphoclip.models.molecule import read_smiles
from morphoclip.models.tower import Tower


class GraphEncoder(Tower):
    """chemprop's directed message passing (Yang et al. 2019), averaged over the atoms of a molecule.

    Args:
        width, depth, dropout: settings of the message passing.
        weights: local file of message-passing weights, `{"hyper_parameters": …, "state_dict": …}`, the format of
            chemprop's foundation models; its hyperparameters replace width, depth and dropout.
        hyperparameters: arguments of chemprop's message passing, instead of width, depth and dropout.

    Attributes:
        rebuild: arguments that rebuild this tower without its weights.

    Raises:
        ImportError: chemprop is not installed.
    """

    def __init__(
        self,
        *,
        width: int = 300,
        depth: int = 3,
        dropout: float = 0.0,
        weights: str | Path | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        try:
            from chemprop.featurizers import SimpleMoleculeMolGraphFeaturizer
            from chemprop.nn import BondMessagePassing, MeanAggregation
        except ImportError as error:
            raise ImportError("the graph encoder needs chemprop: pip install 'morphoclip[chemprop]'") from error
        self.featurizer = SimpleMoleculeMolGraphFeaturizer()
        self.aggregation = MeanAggregation()
        saved = None if weights is None else torch.load(weights, map_location="cpu", weights_only=True)
        if saved is not None:
            hyperparameters = saved["hyper_parameters"]
        hyperparameters = dict(hyperparameters or {"d_h": width, "depth": depth, "dropout": dropout})
        self.messages = BondMessagePassing(**hyperparameters)
        if saved is not None:
            self.messages.load_state_dict(saved["state_dict"])
        self.rebuild = {"weights": None, "hyperparameters": hyperparameters}
        self.embed_dim: int = self.messages.output_dim

    def tokenize(self, smiles: Sequence[str]) -> tuple[Any, ...]:
        """The molecular graph of each SMILES. Raises as `read_smiles` does."""
        return tuple(self.featurizer(read_smiles(text)) for text in smiles)

    @staticmethod
    def take(graphs: tuple[Any, ...], rows: Tensor) -> tuple[Tensor, ...]:
        """The graphs of `rows` joined: atoms (A, F), bonds (E, G), bonds' ends (2, E), reverse bonds (E,), molecule (A,)."""
        from chemprop.data import BatchMolGraph

        joined = BatchMolGraph([graphs[row] for row in rows.tolist()])
        return joined.V, joined.E, joined.edge_index, joined.rev_edge_index, joined.batch

    def forward(
        self, atoms: Tensor, bonds: Tensor, edge_index: Tensor, rev_edge_index: Tensor, molecule: Tensor
    ) -> Tensor:
        """Embeddings (U, D) of the joined graphs of `take`."""
        dtype = self.messages.W_i.weight.dtype
        graph = SimpleNamespace(
            V=atoms.to(dtype), E=bonds.to(dtype), edge_index=edge_index, rev_edge_index=rev_edge_index, batch=molecule
        )
        return self.aggregation(self.messages(graph), molecule)
