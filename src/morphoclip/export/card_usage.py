"""How to embed with an encoder folder, in every format that it holds: a part of the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morphoclip.models.features import FEATURE_ENCODERS

HERE = "path/to/this/folder"  # `hub` puts the repository's id here

_OF_CROPS = """Takes {channels} in this order and gives {size} features per crop.

```python
import morphoclip
encoder = morphoclip.load_encoder("{here}")
features = encoder(encoder.preprocess(crops, low, high))  # crops (B, C, H, W) uint16, low and high (B, C)
```

`low` and `high` are the intensities that scale to 0 and 1 (percentiles of the field unless stated otherwise below).
A table of a whole screen: `{embed}`.
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
encoder = morphoclip.load_encoder("{here}")
profiles = embed(encoder, "FEATURES")  # one row per well; level="perturbation" gives one row per condition
```
"""

_OF_TABLES = """Takes no images, but {dim} named features of each well, and gives {size} features per well. The names are in
`config.json` (`trained_on.features.names`); those of another table are matched by name:

```sh
{embed}
```

Features are standardised by mean and standard deviation of the training wells{by_plate}, clipped at ±{clip}: a table of
another batch must be normalised as the training table was.
"""

_TIMM = """
## Without morphoclip

`x` are crops (B, {count}, {height}, {height}) float32: intensities scaled to [0, 1], then minus `mean` and divided by `std` of
`pretrained_cfg` in config.json, by channel.

```python
import timm
model = timm.create_model("{timm}", pretrained=True).eval()
features = model(x)
```
"""

_HUGGING_FACE = """
```python
from transformers import AutoModel
model = AutoModel.from_pretrained("{here}")
features = model(x).pooler_output
```
"""

_TORCH = """
```python
import torch
model = torch.export.load("model.pt2").module()
features = model({arguments})
```
"""

_ONNX = """
```python
import onnxruntime
session = onnxruntime.InferenceSession("model.onnx")  # beside model.onnx.data
features = session.run(None, {{{named}}})[0]
```
"""


def usage_of(config: Mapping[str, Any], embed: str) -> str:
    """The section on embedding.

    Args:
        config: the folder's config.json. embed: the command that embeds a screen.
    """
    encoder, files = config["encoder"], config.get("files", {})
    made = config["trained_on"].get("features") or {}
    template = _OF_FEATURES if encoder["name"] in FEATURE_ENCODERS else _OF_CROPS
    text = (_OF_TABLES if "names" in made else template).format(
        channels=", ".join(config["channels"]),
        size=config["feature_size"],
        dim=encoder.get("feature_dim"),
        write=_features_command(made),
        clip=encoder.get("clip"),
        by_plate=", after those of the negative controls of each plate" if made.get("standardised_by_plate") else "",
        embed=embed,
        here=HERE,
    )
    if "architecture" in config:
        height = config["pretrained_cfg"]["input_size"][-1]
        text += _TIMM.format(count=len(config["channels"]), height=height, timm=f"local-dir:{HERE}")
        if "model_type" in config:
            text += _HUGGING_FACE.format(here=HERE)
    inputs = config.get("inputs", {})
    if inputs:
        taken = "; ".join(f"`{name}` {shape}" for name, shape in inputs.items())
        text += f"\n## As a graph\n\nInputs: {taken}. Output: `features` float32."
        text += (
            ""
            if "crops" not in inputs
            else " `crops` are scaled to [0, 1] and standardised, as by `encoder.preprocess`."
        )
        text += " A bag that holds only padding gives NaN." if "mask" in inputs else ""
        text += "\n"
        if "model.pt2" in files:
            text += _TORCH.format(arguments=", ".join(inputs))
        if "model.onnx" in files:
            text += _ONNX.format(named=", ".join(f'"{name}": {name}' for name in inputs))
            difference = config.get("onnxruntime_difference")
            text += (
                "\nONNX Runtime was not installed where this was exported, so its features were not compared.\n"
                if difference is None
                else f"\nONNX Runtime's features differ from the encoder's by at most {difference:.1e} on example inputs.\n"
            )
    if "float16_cosine" in config:
        text += (
            f"\nWeights are stored in float16 and used in float32. On crops of noise the features have a cosine of at least "
            f"{config['float16_cosine']} with those of the float32 weights.\n"
        )
    return text


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
