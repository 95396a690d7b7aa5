"""The README of an encoder folder, a Hugging Face model card."""

from __future__ import annotations

from collections.abc import Mapping

from morphoclip.models.features import FEATURE_ENCODERS

_QUERY = """
`towers/` embeds texts and structures in the joint space of these features; it needs only this folder:

```sh
{embed}
morphoclip query path/to/this/folder --profiles profiles.parquet --text "the perturbation"
morphoclip query path/to/this/folder --profiles profiles.parquet --plate PLATE --well B03
```

Word the text like the training prompts, which `towers/config.json` lists.
"""


_OF_CROPS = """Takes {channels} in this order and gives {size} features per crop.

```python
import morphoclip
encoder = morphoclip.load_encoder("path/to/this/folder")
features = encoder(encoder.preprocess(crops, low, high))  # crops (B, C, H, W) uint16, low and high (B, C)
```

`low` and `high` are the intensities that scale to 0 and 1 (percentiles of the field unless stated otherwise below).
"""


_OF_FEATURES = """Takes no images, but the features of each crop by a frozen encoder, {dim} numbers for each of
{channels} in this order, and gives {size} features per well. Compute those features first, as in training:

```sh
{write}
{embed}
```

```python
import morphoclip
from morphoclip.profiling import embed
encoder = morphoclip.load_encoder("path/to/this/folder")
profiles = embed(encoder, "FEATURES")  # one row per well; level="perturbation" gives one row per condition
```
"""


_OF_TABLES = """Takes no images, but {dim} named features of each well, and gives {size} features per well. The names are in
`config.json` (`trained_on.features.names`); those of another table are matched by name:

```sh
{embed} --metadata METADATA
```

Features are standardised by mean and standard deviation of the training wells{by_plate}, clipped at ±{clip}: a table of
another batch must be normalised as the training table was.
"""


def model_card(config: Mapping, reads_words: bool = False) -> str:
    """The model card in the format of Hugging Face."""
    known = {key: value for key, value in config["trained_on"].items() if value is not None}
    encoder, made = config["encoder"], known.get("features") or {}
    of_tables = "names" in made
    listed = [key for key in ("features", "perturbations") if of_tables and key in known]
    shown = {key: "see config.json" if key in listed else value for key, value in {**encoder, **known}.items()}
    facts = "\n".join(f"| {key} | `{value}` |" for key, value in shown.items())
    usage, source = (_OF_FEATURES, "FEATURES") if encoder["name"] in FEATURE_ENCODERS else (_OF_CROPS, "DATASET")
    if of_tables:
        usage, source = _OF_TABLES, "'plates/*.csv.gz'"
    embed = f"morphoclip embed path/to/this/folder {source} --out profiles.parquet"
    usage = usage.format(
        channels=", ".join(config["channels"]),
        size=config["feature_size"],
        dim=encoder.get("feature_dim"),
        write=_features_command(made),
        embed=embed,
        clip=encoder.get("clip"),
        by_plate=", after those of the negative controls of each plate" if made.get("standardised_by_plate") else "",
    )
    return f"""---
library_name: morphoclip
tags: [cell-painting, microscopy, image-feature-extraction]
---
# {encoder["name"]}, {len(config["channels"])} channels

{usage}{_QUERY.format(embed=embed) if reads_words else ""}
| | |
|---|---|
{facts}

Weights and config of the image encoder together have sha256 `{config["sha256"]}`. Made by morphoclip {config["morphoclip_version"]}.
"""


def _features_command(made: Mapping) -> str:
    """The `morphoclip features` command that computed the training features, as far as they record it."""
    encoder = made.get("encoder") or {}
    backbone = encoder.get("backbone") or "ENCODER"
    if encoder.get("backbone") and not backbone.startswith("hf:"):
        backbone = f"timm:{backbone}"
    parts = ["morphoclip features", backbone, "DATASET --out FEATURES"]
    parts += [f"--revision {encoder['revision']}"] if encoder.get("revision") else []
    parts += ["--standardise-by-plate"] if made.get("standardised_by_plate") else []
    return " ".join(parts)
