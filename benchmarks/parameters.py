"""How many parameters each recipe has and trains: `python -m benchmarks.parameters [--json]`.

Models are built without memory (torch's meta device). Text encoders of BERT's shape (`BertConfig()`) stand for those of
the hub, whose vocabularies differ a little; how wide the cached features are is said in the row. Recipes that lack an extra
(peft, chemprop) say so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from morphoclip import configs_dir
from morphoclip.methods.conditions import Conditions
from morphoclip.methods.parameters import parameter_counts
from morphoclip.models import GraphEncoder, HuggingFaceTextEncoder, MorganEncoder, SmallTextEncoder
from morphoclip.models.features import FEATURE_ENCODERS

# Recipe, what is asked of it besides, width of a channel's cached features.
ROWS: dict[str, tuple[str, list[str], int | None]] = {
    "demo": ("demo", [], None),
    "kim2025_simclr": ("kim2025_simclr", [], None),
    "kim2025_dino": ("kim2025_dino", [], None),
    "kim2025_mae": ("kim2025_mae", [], None),
    "cwa_msn": ("cwa_msn", [], None),
    "cellclip, DINOv2-giant features": ("cellclip", [], 1536),
    "cloome": ("cloome", [], None),
    "cloome, message passing (text=graph)": ("cloome", ["text=graph"], None),
    "molphenix, features of 384": ("molphenix", [], 384),
    "morphoclip, features of 384": ("morphoclip", [], 384),
    "morphoclip, features of 768": ("morphoclip", [], 768),
    "cpjump1_profiles, 904 features": ("cpjump1_profiles", [], 904),
}
CHANNELS = ["DNA", "ER", "RNA", "AGP", "Mito"]
PROMPTS = {"compound": "CCO", "crispr": "loss of PLK1", "orf": "gain of PLK1"}


def recipe(name: str, overrides: list[str], width: int | None) -> DictConfig:
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        given = [f"experiment={name}", *overrides, "folder=run"]
        given += [] if name == "demo" else ["data.root=dataset"]
        config = compose("train", overrides=given)
    if width is not None:
        channels = ["profile"] if name == "cpjump1_profiles" else CHANNELS
        config.encoder = OmegaConf.merge(config.encoder, {"channels": channels, "feature_dim": width})
    return config


def build(config: DictConfig) -> torch.nn.Module:
    """The recipe's method on the meta device."""
    words = {}
    if config.perturbation:
        templates = OmegaConf.to_container(config.perturbation)
        words = {
            "prompts": [PROMPTS[m] for m in templates],
            "modalities": list(templates),
            "doses": [""] * len(templates),
        }
    encoder = OmegaConf.to_container(config.encoder, resolve=True)
    if encoder["name"] not in FEATURE_ENCODERS:
        encoder["pretrained"] = False
    with torch.device("meta"), without_hub():
        return instantiate(config.method, encoder=encoder, **words)


@contextmanager
def without_hub() -> Iterator[None]:
    """Towers on the meta device: encoders of BERT's shape in place of the hub's, and no prompt tokenized or embedded."""
    from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel

    with ExitStack() as stack:
        for tower in (MorganEncoder, GraphEncoder, SmallTextEncoder, HuggingFaceTextEncoder):
            stack.enter_context(patch.object(tower, "tokenize", lambda self, texts: None))
        stack.enter_context(patch("morphoclip.methods.conditions.cut_prompts", lambda *_: []))
        stack.enter_context(patch.object(Conditions, "spread", lambda self: None))
        stack.enter_context(patch.object(AutoModel, "from_pretrained", lambda *_, **__: BertModel(BertConfig())))
        stack.enter_context(patch.object(AutoTokenizer, "from_pretrained", lambda *_, **__: None))
        stack.enter_context(patch("morphoclip.models.text.check_tokenizer"))
        yield


def rows() -> list[dict]:
    table = []
    for name, (experiment, overrides, width) in ROWS.items():
        try:
            counts = parameter_counts(build(recipe(experiment, overrides, width)))
        except ImportError as error:
            table.append({"recipe": name, "missing": str(error)})
            continue
        table.append({"recipe": name, **{part: list(pair) for part, pair in counts.items()}})
    return table


def show(table: list[dict]) -> str:
    lines = ["| recipe | trained | all | encoder | perturbation side |", "|---|---|---|---|---|"]
    for row in table:
        if "missing" in row:
            lines.append(f"| {row['recipe']} | {row['missing']} | | | |")
            continue
        cells = [row["whole"][0], row["whole"][1], row["encoder"][1], row.get("conditions", [0, 0])[1]]
        lines.append(f"| {row['recipe']} | " + " | ".join(f"{cell:,}" if cell else "" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    table = rows()
    print(json.dumps(table, indent=2) if given.json else show(table))
    return 0


if __name__ == "__main__":
    sys.exit(main())
