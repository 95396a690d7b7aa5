"""The README of an encoder folder, a Hugging Face model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from morphoclip.export.card_usage import HERE, usage_of
from morphoclip.models.features import FEATURE_ENCODERS

_QUERY = """
`towers/` embeds texts and structures in the joint space of these features; it needs only this folder:

```sh
{embed}
morphoclip query {here} --profiles profiles.parquet --text "the perturbation"
morphoclip query {here} --profiles profiles.parquet --plate PLATE --well B03
```

Word the text like the training prompts, which `towers/config.json` lists.
"""


def model_card(config: Mapping, reads_words: bool = False) -> str:
    """The model card in the format of Hugging Face.

    Args:
        config: the folder's config.json.
        reads_words: whether the folder has towers.
    """
    encoder, known = config["encoder"], config["trained_on"]
    of_tables = "names" in (known.get("features") or {})
    source = "FEATURES" if encoder["name"] in FEATURE_ENCODERS else "DATASET"
    source = "'plates/*.csv.gz' --metadata METADATA" if of_tables else source
    embed = f"morphoclip embed {HERE} {source} --out profiles.parquet"
    facts = {key: value for key, value in {**encoder, **known}.items() if value is not None}
    if of_tables:  # names of hundreds of features and perturbations
        facts |= {key: "see config.json" for key in ("features", "perturbations") if key in facts}
    license = config.get("license")
    parts = [
        f"# {encoder['name']}, {len(config['channels'])} channels",
        usage_of(config, embed) + (_QUERY.format(embed=embed, here=HERE) if reads_words else ""),
        _training(known, config["channels"]),
        _scores(config.get("scores", ())),
        "## Licence\n\n"
        + (
            f"{license}."
            if license
            else "Not stated by whoever exported this folder (`morphoclip export … --license`): ask them before use."
        ),
        "## All settings\n\n| | |\n|---|---|\n" + "\n".join(f"| {key} | `{value}` |" for key, value in facts.items()),
        _files(config.get("files", {})),
        f"Weights and config of the image encoder together have sha256 `{config['sha256']}`. Made by morphoclip "
        f"{config['morphoclip_version']}.",
    ]
    return (
        "---\nlibrary_name: morphoclip\ntags: [cell-painting, microscopy, image-feature-extraction]\n"
        + (f"license: {license}\n" if license else "")
        + "---\n"
        + "\n\n".join(part.strip() for part in parts if part)
        + "\n"
    )


def _training(known: Mapping[str, Any], channels: Sequence[str]) -> str:
    """What the encoder was trained on."""
    counts = known.get("counts") or {}
    numbers = ", ".join(
        f"{counts[name]:,} {name}" for name in ("perturbations", "plates", "wells", "crops") if name in counts
    )
    size, crop = known.get("pixel_size_um"), known.get("crop_size")
    lines = [
        f"Method: {known.get('method') or 'none: the backbone as it was given'}.",
        f"Data: {numbers or 'numbers of compounds and plates are not recorded'}.",
        f"Channels, in this order: {', '.join(channels)}.",
        f"Pixel size: {f'{size} µm' if size else 'not recorded'}; crops of {f'{crop} px' if crop else 'a size not recorded'}.",
    ]
    return "## Trained on\n\n" + "\n".join(f"- {line}" for line in lines)


def _scores(rows: Sequence[Mapping[str, str]]) -> str:
    """The scores of the run, with their controls."""
    if not rows:
        return "## Scores\n\nThe run was not scored."
    columns = [name for name in rows[0] if not name.startswith("gain") and any(row.get(name) for row in rows)]
    head = "| " + " | ".join(name.replace("_", " ") for name in columns) + " |\n" + "|---" * len(columns) + "|\n"
    body = "\n".join("| " + " | ".join(_short(row.get(name)) for name in columns) + " |" for row in rows)
    return (
        "## Scores\n\nMean average precision of the run's arms with 95 % intervals, beside chance and controls "
        "(`shuffled labels`, DMSO wells of one position, …). A gain counts only where the control does not rise with it.\n\n"
        + head
        + body
    )


def _short(value: str | None) -> str:
    try:
        number = float(value or "")
    except ValueError:
        return value or ""
    return f"{number:.0f}" if number == round(number) and abs(number) >= 2 else f"{number:.3f}"


def _files(hashes: Mapping[str, str]) -> str:
    if not hashes:
        return ""
    lines = "\n".join(f"| `{name}` | `{digest}` |" for name, digest in hashes.items())
    return f"## Files\n\n| file | sha256 |\n|---|---|\n{lines}"
