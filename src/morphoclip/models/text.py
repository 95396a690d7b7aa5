"""Prompts ▶ embeddings: a small transformer with its own tokenizer, and any Hugging Face encoder.

Towers have the interface of `tower.Tower`: `tokenize(texts)` once, `take(tokens, rows)` per step, `forward(*taken)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from morphoclip.models.lora import with_lora
from morphoclip.models.tower import Tower

POSITION_TABLES = ("position_embeddings", "wpe", "embed_positions")  # names in transformers


def mean_over_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of token states (U, L, D) over the tokens where `mask` (U, L) is True."""
    kept = mask[..., None].to(states.dtype)
    return (states * kept).sum(dim=1) / kept.sum(dim=1)


def trim(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cut right padding to the longest row: tokens and mask (U, L) to (U, L' <= L)."""
    longest = int(mask.sum(dim=1).max())
    return tokens[:, :longest], mask[:, :longest]


def take_tokens(tokens: tuple[Tensor, Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens and mask of `rows` (U',), trimmed to the longest of them."""
    return trim(*(values[rows] for values in tokens))


class SmallTextEncoder(Tower):
    """A transformer trained from scratch on byte-pair tokens learned from the training prompts.

    Any string can be encoded later, since tokens can be single bytes. The tokenizer is part of the state dict.

    Args:
        prompts: training prompts only; the tokenizer is learned from them.
        vocabulary_size: maximum number of tokens, at least 257 (bytes and padding).
        width, depth, heads: settings of the transformer.
        max_length: longer prompts are truncated to this many tokens.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        *,
        vocabulary_size: int = 1024,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        max_length: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokenizer = train_tokenizer(prompts, vocabulary_size)
        self.max_length = max_length
        self.embed_dim = width
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.pos_embed = nn.Parameter(torch.empty(max_length, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens int64 (U, L) padded to the longest, and their mask bool (U, L)."""
        rows = [encoding.ids[: self.max_length] for encoding in self.tokenizer.encode_batch(list(texts))]
        lengths = torch.tensor([len(row) for row in rows])
        tokens = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
        for line, row in zip(tokens, rows, strict=True):
            line[: len(row)] = torch.tensor(row)
        return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """The numbers of tokens before truncation."""
        return [len(encoding.ids) for encoding in self.tokenizer.encode_batch(list(texts))]

    take = staticmethod(take_tokens)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (U, D) of tokens int64 (U, L) with mask bool (U, L)."""
        states = self.token_embedding(tokens) + self.pos_embed[: tokens.shape[1]]
        return mean_over_tokens(self.transformer(states, src_key_padding_mask=~mask), mask)

    def get_extra_state(self) -> str:
        return self.tokenizer.to_str()

    def set_extra_state(self, state: str) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(state)


def train_tokenizer(prompts: Sequence[str], vocabulary_size: int):
    """A byte-level byte-pair tokenizer (`tokenizers.Tokenizer`), token 0 padding; the same for any order of prompts.

    Raises:
        ValueError: no prompts, or a vocabulary too small for the 256 bytes and padding.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if not prompts:
        raise ValueError("no prompts to learn a tokenizer from: give the prompts of the training perturbations")
    if vocabulary_size < 257:
        raise ValueError(f"vocabulary_size={vocabulary_size} is too small for 256 bytes and padding: use 257 or more")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=["[PAD]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(prompts)), trainer)
    return tokenizer


class HuggingFaceTextEncoder(Tower):
    """Any Hugging Face encoder for text, e.g. BiomedBERT or bert-base-cased, or for SMILES, e.g. ChemBERTa.

    Args:
        name_or_path: hub id or local folder, with its tokenizer. Of an encoder-decoder (T5) the encoder is used.
        training: `frozen` keeps the weights, in evaluation mode and without gradient; `full` trains all of them;
            `lora` trains low-rank updates of every linear layer in its blocks (Hu et al. 2021; needs the `peft` extra).
        pooling: `mean` over tokens, `first` token's state, or the model's own `pooler`.
        max_length: longer prompts are truncated to this many tokens.
        lora_rank, lora_alpha, lora_dropout: settings of the updates, which are scaled by alpha / rank.
        pretrained: load the model's weights; otherwise they are random until a state dict is loaded.

    Attributes:
        rebuild: arguments that rebuild this tower, without weights, from a folder of `save_architecture`.

    Raises:
        ValueError: `pooler` for a model without one, an unknown `training`, a tokenizer without words, a `max_length` beyond
            the model's positions, or a model that needs its own code, which is not run for towers.
        ImportError: `lora` without peft.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        training: Literal["frozen", "lora", "full"] = "frozen",
        pooling: Literal["mean", "first", "pooler"] = "mean",
        max_length: int = 256,
        lora_rank: int = 8,
        lora_alpha: float = 16.0,
        lora_dropout: float = 0.0,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        if training not in ("frozen", "lora", "full"):
            raise ValueError(f"training={training!r}: use frozen, lora or full")
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        # Explicitly False: otherwise transformers asks on the terminal whether to run a model's own code.
        untrusted = {"trust_remote_code": False}
        self.tokenizer = AutoTokenizer.from_pretrained(name_or_path, **untrusted)
        check_tokenizer(self.tokenizer, name_or_path)
        if pretrained:
            model = AutoModel.from_pretrained(name_or_path, **untrusted)
        else:
            config = AutoConfig.from_pretrained(name_or_path, **untrusted)
            model = AutoModel.from_config(config, **untrusted)
        self.config = model.config
        self.model = (
            model.get_encoder() if model.config.is_encoder_decoder else model
        ).float()  # whatever the file holds
        check_length(self.model, max_length, name_or_path)
        self.rebuild = {"name_or_path": "", "pretrained": False}
        self.pooling = pooling
        self.max_length = max_length
        self.embed_dim: int = self.config.hidden_size
        self.is_frozen = training == "frozen"
        has_pooler = getattr(self.model, "pooler", None) is not None
        if pooling == "pooler" and not has_pooler:
            raise ValueError(f"{name_or_path} has no pooler: set pooling to mean or first")
        if pooling != "pooler" and has_pooler:
            self.model.pooler = None  # an unused tower would hang DDP
        self.model.requires_grad_(training == "full")
        if training == "lora":
            self.model = with_lora(self.model, lora_rank, lora_alpha, lora_dropout)

    def train(self, mode: bool = True) -> HuggingFaceTextEncoder:
        super().train(mode)
        self.model.train(mode and not self.is_frozen)
        return self

    def save_architecture(self, folder: str | Path) -> None:
        """Write config.json and the tokenizer's files: a Hugging Face folder without weights."""
        self.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokens int64 (U, L) padded to the longest, and their mask bool (U, L)."""
        encoded = self.tokenizer(
            list(texts),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        return encoded["input_ids"], encoded["attention_mask"].bool()

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """The numbers of tokens before truncation."""
        return [len(row) for row in self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    take = staticmethod(take_tokens)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embeddings (U, D) of tokens int64 (U, L) with mask bool (U, L)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            output = self.model(input_ids=tokens, attention_mask=mask.long())
        if self.pooling == "pooler":
            return output.pooler_output
        states = output.last_hidden_state
        return states[:, 0] if self.pooling == "first" else mean_over_tokens(states, mask)


def check_tokenizer(tokenizer: Any, name: str | Path) -> None:
    """Give a tokenizer without padding (GPT-2) its end of text as padding, which the mask hides.

    Raises:
        ValueError: it knows no words, as that of a folder without its files.
    """
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise ValueError(
            f"{name} has no vocabulary, so that all texts would be alike: copy the tokenizer's files (tokenizer.json, or "
            "vocab.txt and others) into the folder"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token


def check_length(model: nn.Module, max_length: int, name: str | Path) -> None:
    """Raise ValueError if texts of `max_length` tokens have more positions than the model."""
    limits = []
    for path, part in model.named_modules():
        if isinstance(part, nn.Embedding) and path.rpartition(".")[2] in POSITION_TABLES:
            # RoBERTa and others count positions from the one behind padding.
            limits.append(part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1))
    if limits and max_length > min(limits):
        raise ValueError(
            f"max_length={max_length}, but {name} has {min(limits)} positions: set text.max_length={min(limits)}"
        )
