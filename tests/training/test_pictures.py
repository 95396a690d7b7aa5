"""Pictures show what a step makes, and change nothing of it."""

import io

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from morphoclip import configs_dir
from morphoclip.training.pictures import GAP, Pictures, tiles
from tests.methods.tiny import METHODS, batch_of, loader, trainer


@pytest.mark.parametrize(
    ("name", "rows", "side"), [("simclr", 8, 16), ("dino", 4, 12), ("mae", 9, 16), ("cwa_msn", 4, 12)]
)
def test_every_method_draws_and_trains_as_without(name, rows, side, tmp_path):
    plain, drawn = METHODS[name](), METHODS[name]()
    trainer(2).fit(plain, loader(batch_of(name)))
    trainer(2, callbacks=[Pictures()], default_root_dir=tmp_path).fit(drawn, loader(batch_of(name)))
    (file,) = (tmp_path / "pictures").iterdir()
    pixels = np.asarray(Image.open(file))
    assert pixels.shape == (rows * (side + GAP) - GAP, 5 * (side + GAP) - GAP)
    assert pixels.std() > 10
    for expected, parameter in zip(plain.parameters(), drawn.parameters(), strict=True):
        assert torch.equal(expected, parameter)


def test_tiles_stand_image_by_row_and_channel_by_column():
    images = torch.linspace(0, 1, 30).view(30, 1, 1, 1).expand(30, 2, 4, 4) * torch.tensor([1.0, 0.5]).view(1, 2, 1, 1)
    sheet = tiles(images, most=24)  # 30 rows are two blocks of 15
    assert sheet.shape == (15 * (4 + GAP) - GAP, 4 * (4 + GAP) - GAP)
    assert sheet[-1, -1] == round(0.5 * 255)  # the last row's second channel
    assert sheet[0, 2 * (4 + GAP)] == round(255 * 15 / 29)  # the second block starts with row 15


def test_masked_views_hide_what_the_student_does_not_see():
    method = METHODS["mae"]()
    method.trainer = trainer(1)
    rows = method.eval().pictures(batch_of("mae"), 0)["reconstruction"].unflatten(0, (3, 3))
    seen, painted, crop = rows[:, 0], rows[:, 1], rows[:, 2]
    hidden = (seen == 0).all(dim=1, keepdim=True).expand_as(crop)
    assert hidden.float().mean() == pytest.approx(method.patches and 1 - method.visible / method.patches, abs=0.02)
    torch.testing.assert_close(painted[~hidden], crop[~hidden], atol=1e-5, rtol=0)
    assert (painted[hidden] - crop[hidden]).abs().mean() > 0.01


def test_tensorboard_shows_the_pictures_of_the_folder(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = OmegaConf.load(configs_dir() / "logger/tensorboard.yaml")
    logger = hydra.utils.instantiate(OmegaConf.create({"folder": str(tmp_path), "logger": config})).logger.tensorboard
    run = trainer(1, callbacks=[Pictures()], default_root_dir=tmp_path, logger=logger)
    run.fit(METHODS["simclr"](), loader(batch_of("simclr")))
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (file,) = (tmp_path / "pictures").iterdir()
    shown = Image.open(io.BytesIO(events.Images(file.name.removesuffix("-epoch0000.png"))[0].encoded_image_string))
    np.testing.assert_array_equal(np.asarray(shown.convert("L")), np.asarray(Image.open(file)))
