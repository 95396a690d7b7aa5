"""Conditions ▶ joint space: text and molecule towers, doses, and one candidate per distinct prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from morphoclip.batch import to_device
from morphoclip.methods.base import build
from morphoclip.methods.cut_prompts import cut_prompts
from morphoclip.methods.recompute import recomputed
from morphoclip.models.frozen import frozen_embeddings


class Conditions(nn.Module):
    """Prompt (and dose) ▶ tower of its modality ▶ projection into the joint space.

    Every tower runs in every step; one whose modality is absent gets rows of weight 0, so that ranks stay in step.

    Args:
        prompts: one per row of the `PerturbationTable`; None for conditions outside the training split. Equal prompts
            (a template without dose) are one candidate.
        text: `_target_` of a tower for all prompts, or `{towers: [{modalities: […], tower: …, head: …}, …]}`. A tower
            that learns from its prompts gets them as `prompts`. A `head` (e.g. `ResidualMLP`) is a `_target_` built with
            `in_dim` = the tower's size plus the dose's.
        embed_dim: size of the joint space.
        modalities: modality of each condition; needed with several towers.
        doses: dose of each condition in µM, '' if there is none; needed with a dose encoding.
        dose: `_target_` of a `DoseEncoding`, concatenated to the tower's output. Candidates then differ by dose too.
        recompute: prompts per chunk, see `recomputed`; None keeps all activations.
        cache: folder that stores the embeddings of frozen towers; None computes them once per run.

    Attributes:
        cuts: lines for the log on prompts that a tower cuts.

    Raises:
        ValueError: a modality has no tower or several, a tower has no prompts, or prompts are equal once they are cut.
    """

    row: Tensor
    amount: Tensor
    towers: Any  # nn.ModuleList of Tower
    heads: Any  # nn.ModuleList
    projections: Any  # nn.ModuleList of nn.Linear

    def __init__(
        self,
        prompts: Sequence[str | None],
        text: Mapping[str, Any],
        embed_dim: int,
        *,
        modalities: Sequence[str] | None = None,
        doses: Sequence[str] | None = None,
        dose: Mapping[str, Any] | None = None,
        recompute: int | None = None,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.spec: dict[str, Any] = {"text": text, "embed_dim": embed_dim, "dose": dose}
        specs = text.get("towers") or [{"tower": text}]
        self.reads = [list(spec.get("modalities", ())) for spec in specs]
        tower_numbers = self.tower_numbers(len(prompts), modalities)
        if dose is not None and doses is None:
            raise ValueError("a dose encoding needs the doses of the conditions")
        given_doses = doses if dose is not None and doses is not None else [""] * len(prompts)
        keys = [
            None if prompt is None else (prompt, number, amount or "")
            for prompt, number, amount in zip(prompts, tower_numbers, given_doses, strict=True)
        ]
        self.distinct = sorted({key for key in keys if key is not None})
        if len(self.distinct) < 2:
            raise ValueError(
                f"the training conditions have {len(self.distinct)} distinct prompt, so that every contrastive loss is 0: use a "
                "template that tells conditions apart, or train on more of them"
            )
        row = {key: i for i, key in enumerate(self.distinct)}
        self.rows_on_host = torch.tensor([-1 if key is None else row[key] for key in keys])
        self.register_buffer("row", self.rows_on_host.clone(), persistent=False)
        self.recompute, self.cache = recompute, cache
        self.dose = None if dose is None else build(dose)
        amounts = [float(amount) if amount else torch.nan for *_, amount in self.distinct]
        self.register_buffer("amount", torch.tensor(amounts), persistent=False)
        self.tower_number = torch.tensor([tower_number for _, tower_number, _ in self.distinct])
        self.towers, self.heads, self.projections = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for number, spec in enumerate(specs):
            texts = self.texts(number)
            if not texts:
                raise ValueError(
                    f"no training condition has a modality of {list(spec['modalities'])}: remove that tower from the config"
                )
            self.add_tower(spec, texts, embed_dim)
        self.tokenize()
        self.cuts = [
            line
            for number, tower in enumerate(self.towers)
            for line in cut_prompts(tower, self.texts(number), self.tokens[number])
        ]

    def tower_numbers(self, count: int, modalities: Sequence[str] | None) -> list[int]:
        """The number of the tower of each of `count` conditions. Raises as `tower_of` does."""
        if len(self.reads) == 1 and not self.reads[0]:
            return [0] * count
        if modalities is None:
            raise ValueError("towers by modality need the modality of each condition")
        return [self.tower_of(modality) for modality in modalities]

    def tower_of(self, modality: str) -> int:
        """The number of the tower of a modality.

        Raises:
            ValueError: it has no tower, or several.
        """
        if len(self.reads) == 1 and not self.reads[0]:
            return 0
        found = [number for number, reads in enumerate(self.reads) if modality in reads]
        if len(found) != 1:
            raise ValueError(
                f"modality {modality!r} is listed by {len(found)} of the towers {self.reads}: list it once in text.towers"
            )
        return found[0]

    def add_tower(self, spec: Mapping[str, Any], texts: Sequence[str], embed_dim: int) -> None:
        learns = "prompts" in inspect.signature(get_class(spec["tower"]["_target_"])).parameters
        # Prompts are not passed through Hydra, which would interpolate a `${` in them.
        tower = build({**spec["tower"], "_partial_": True})(**({"prompts": sorted(set(texts))} if learns else {}))
        width = tower.embed_dim + (self.dose.embed_dim if self.dose is not None else 0)
        head: Any = build(spec["head"], in_dim=width) if spec.get("head") else nn.Identity()
        self.towers.append(tower)
        self.heads.append(head)
        self.projections.append(nn.Linear(head.embed_dim if spec.get("head") else width, embed_dim))
        self.register_buffer(f"frozen_{len(self.towers) - 1}", None, persistent=False)

    def texts(self, number: int) -> list[str]:
        """The prompts of tower `number`, in the order of its candidates."""
        return [prompt for prompt, tower_number, _ in self.distinct if tower_number == number]

    def tokenize(self) -> None:
        """Tokenize all prompts with the towers' own tokenizers; repeat after loading a state dict with other tokenizers."""
        self.tokens: list[Any] = [tower.tokenize(self.texts(number)) for number, tower in enumerate(self.towers)]

    def __len__(self) -> int:
        """The number of distinct candidates."""
        return len(self.distinct)

    @torch.no_grad()
    def spread(self, most: int = 256, *, keep_statistics: bool = False) -> None:
        """Initialise the projections so that each tower's prompts (up to `most`) have mean 0 and variance 1 per dimension.

        Prompts share most words, so their initial embeddings share one large component and all cosines are near 1; short
        runs would spend half of their steps on undoing that. Unlike a batch norm this is the same on all ranks. With
        `keep_statistics` batch norms keep their running statistics, as those of trained towers should.
        """
        for number, projection in enumerate(self.projections):
            own = (self.tower_number == number).nonzero().flatten()
            chosen = own[torch.linspace(0, len(own) - 1, min(most, len(own))).round().long()]
            parts = nn.ModuleList([self.towers[number], self.heads[number]])
            # Initial batch statistics are arbitrary, so batch norms start with those of the prompts.
            parts.train(
                not keep_statistics and len(own) > 1 and any(isinstance(part, _BatchNorm) for part in parts.modules())
            )
            embedded = self.embed(number, chosen)  # (U, E)
            parts.train()
            mean, std = embedded.mean(0), embedded.std(0, correction=0).clamp_min(1e-3)
            projection.weight.div_(std[:, None])
            projection.bias.sub_(mean).div_(std)

    @torch.no_grad()
    def freeze(self) -> None:
        """Compute the embeddings of frozen towers once per run, or with `cache` once for all runs."""
        for number, tower in enumerate(self.towers):
            if tower.is_frozen:
                frozen = frozen_embeddings(tower, self.texts(number), self.cache, self.device)
                setattr(self, f"frozen_{number}", frozen)

    @property
    def device(self) -> torch.device:
        return self.projections[0].weight.device

    def embed(self, number: int, rows: Tensor) -> Tensor:
        """Joint embeddings (U, E) of candidates `rows` (U,) of tower `number`; rows are on the CPU."""
        positions = torch.searchsorted((self.tower_number == number).nonzero().flatten(), rows)
        frozen, tower = getattr(self, f"frozen_{number}"), self.towers[number]

        def run(chunk: slice) -> Tensor:
            tokens = tower.take(self.tokens[number], positions[chunk])
            return tower(*(to_device(part, self.device) for part in tokens))

        if frozen is not None:
            states = frozen[to_device(positions, frozen.device)]
        else:
            states = recomputed(tower, run, len(positions), self.recompute)
        if next(tower.parameters(), None) is None:  # a plain fingerprint is float32; convert it to the method's dtype
            states = states.to(self.projections[number].weight.dtype)
        if self.dose is not None:
            states = torch.cat([states, self.dose(self.amount[to_device(rows, self.device)].to(states.dtype))], dim=1)
        return self.projections[number](self.heads[number](states))

    def distinct_rows(self, condition: Tensor) -> Tensor:
        """The distinct candidates (U,) of the conditions (B,) of a batch, in order; both on the CPU."""
        return self.rows_on_host[condition].unique()

    def forward(self, rows: Tensor) -> Tensor:
        """Joint embeddings (U, E) of the distinct candidates at `rows` (U,), which are best on the CPU.

        Raises:
            ValueError: a row is -1, i.e. a training batch contains a condition without a prompt.
        """
        chosen = rows.cpu()
        if (chosen < 0).any():
            raise ValueError("a training batch contains conditions without a prompt: remove them from the split")
        if len(self.towers) == 1 and len(chosen) >= self.minimum_rows(0):
            return self.embed(0, chosen)
        joint: Tensor | None = None
        for number in range(len(self.towers)):
            here = (self.tower_number[chosen] == number).nonzero().flatten()
            present = torch.cat(
                [chosen[here], self.padding_rows(number, self.minimum_rows(number) - len(here), chosen)]
            )
            embedded = self.embed(number, present)
            joint = embedded.new_zeros(len(rows), embedded.shape[1]) if joint is None else joint
            joint = joint.index_add(0, to_device(here, joint.device), embedded[: len(here)].to(joint.dtype))
            joint = joint + 0 * embedded[len(here) :].sum()
        assert joint is not None  # there is a tower
        return joint

    def minimum_rows(self, number: int) -> int:
        """Minimum number of rows of a tower: one, so that all ranks run it, or two if it has batch norm."""
        parts = (*self.towers[number].modules(), *self.heads[number].modules())
        return 2 if any(isinstance(part, _BatchNorm) for part in parts) else 1

    def padding_rows(self, number: int, count: int, chosen: Tensor) -> Tensor:
        """Up to `count` further candidates of a tower, not in `chosen`, to be added with weight 0."""
        own = (self.tower_number == number).nonzero().flatten()
        others = own[~torch.isin(own, chosen)]
        return torch.cat([others, own])[: max(count, 0)]

    def embed_texts(
        self, texts: Sequence[str], modality: str | None = None, dose: float | None = None, number: int = 0
    ) -> Tensor:
        """Joint embeddings (U, E) of any texts by the tower of `modality` (None: tower `number`).

        Raises:
            ValueError: the modality has no tower.
        """
        number = number if modality is None else self.tower_of(modality)
        tower = self.towers[number]
        tokens = tower.take(tower.tokenize(texts), torch.arange(len(texts)))
        states = tower(*(part.to(self.device) for part in tokens))
        if self.dose is not None:
            amount = torch.full((len(texts),), torch.nan if dose is None else dose, device=self.device)
            states = torch.cat([states, self.dose(amount.to(states.dtype))], dim=1)
        return self.projections[number](self.heads[number](states))
