"""An encoder is trained only on the channels it is named after, from whatever the crops come."""

from __future__ import annotations

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from morphoclip import configs_dir, schema
from morphoclip.data import ShardWriter
from morphoclip.data.shards.intensities import describe_field
from morphoclip.experiment.fit import build_method

REVERSED = list(schema.CHANNELS[::-1])


@pytest.fixture
def reversed_screen(tmp_path):
    """A dataset whose channels are in the order of some sources, Mito first."""
    with ShardWriter(tmp_path / "dataset", REVERSED, pixel_size_um=1.0) as writer:
        for number in range(8):
            field = np.random.default_rng(number).integers(100, 5000, (5, 64, 64), np.uint16)
            row = {schema.PLATE: f"p{number % 2}", schema.WELL: f"A{number + 1:02d}", schema.SITE: "1"}
            row |= {schema.PERTURBATION: f"c{number}", schema.MODALITY: "compound"} | describe_field(field, REVERSED)
            writer.add(field, row, 0, 0)
    return tmp_path / "dataset"


def composed(root, *overrides):
    given = ["experiment=kim2025_simclr", "encoder=vit_demo", f"data.root={root}", *overrides]
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        return compose("train", overrides=given)


PATHS = {
    "shards": ("data=dataset", "{root}"),
    "a stream": ("data=stream", "{root}"),
    "a url": ("data=stream", "file://{root}"),
}
ENCODERS = {
    "vit_demo": [],
    "a timm ViT": ["encoder=vit_tiny", "encoder.image_size=64", "encoder.patch_size=8"],
    "channel_vit": ["encoder=channel_vit", "encoder.image_size=64"],
    "per_channel": ["encoder=per_channel", "encoder.pretrained=false"],
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("path", PATHS)
def test_other_channels_are_refused_before_training(reversed_screen, path, encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("MORPHOCLIP_CACHE", str(tmp_path / "cache"))
    data, root = PATHS[path]
    config = composed(root.format(root=reversed_screen), data, "data.loader.global_batch_size=4", *ENCODERS[encoder])
    with pytest.raises(
        ValueError, match=r"the dataset holds \['Mito', .*set encoder\.channels=\[Mito,AGP,RNA,ER,DNA\]"
    ):
        build_method(config, instantiate(config.data.loader))


def test_an_encoder_of_the_datasets_channels_keeps_their_order(reversed_screen):
    config = composed(
        reversed_screen, "data=dataset", "data.loader.global_batch_size=4", f"encoder.channels=[{','.join(REVERSED)}]"
    )
    method = build_method(config, instantiate(config.data.loader))
    assert list(method.export_encoder().channels) == REVERSED
