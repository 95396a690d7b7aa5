"""Pictures of a method's inputs and outputs, for the run folder and for loggers of images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from morphoclip.batch import Batch
from morphoclip.training.curves import STEP
from morphoclip.training.watched import watched

GAP = 2  # pixels between tiles


class Pictures(pl.Callback):
    """Saves a method's `pictures` of the first batch of every `every_n_epochs`th epoch, before the step.

    PNG files are written to `<run folder>/pictures`, with the step as their text `step`, and sent to Weights & Biases and TensorBoard if those log. Channels
    are side by side in the encoder's order, in grey, since five channels have no true colours. There are none of a sharded
    method, whose encoder one rank cannot run alone.

    Args:
        every_n_epochs: epochs between two pictures.
        brightness: exponent of the pixels; values below 1 show dim stains.
    """

    def __init__(self, every_n_epochs: int = 10, brightness: float = 0.7) -> None:
        self.every_n_epochs = every_n_epochs
        self.brightness = brightness

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove pictures of later epochs, left by a start that got further than its last checkpoint."""
        for path in (Path(trainer.default_root_dir) / "pictures").glob("*-epoch*.png"):
            if int(path.stem.rpartition("-epoch")[2]) > trainer.current_epoch:
                path.unlink()

    @rank_zero_only
    @torch.no_grad()
    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int):
        if batch_idx or trainer.current_epoch % self.every_n_epochs or watched(pl_module).is_sharded:
            return
        modes = [(module, module.training) for module in pl_module.modules()]
        pl_module.eval()  # in evaluation mode batch norms do not communicate with other ranks
        with trainer.precision_plugin.val_step_context():
            pictures = watched(pl_module).pictures(batch, batch_idx)
        for module, mode in modes:
            module.training = mode
        folder = Path(trainer.default_root_dir) / "pictures"
        for name, images in pictures.items():
            sheet = tiles(images.float().cpu() ** self.brightness)
            folder.mkdir(parents=True, exist_ok=True)
            about = PngInfo()
            about.add_text(STEP, str(trainer.global_step))
            path = folder / f"{name}-epoch{trainer.current_epoch:04d}.png"
            Image.fromarray(sheet.numpy()).save(path, pnginfo=about)
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image(name, [sheet.numpy()], step=trainer.global_step)
                elif isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(name, sheet, trainer.global_step, dataformats="HW")


def read_pictures(run_folder: Path) -> Iterator[tuple[str, int, Path]]:
    """(name, step, path) of the pictures in a run's folder."""
    for path in sorted((run_folder / "pictures").glob("*-epoch*.png")):
        with Image.open(path) as picture:
            step = picture.info.get(STEP)
        if step is not None:  # those of earlier versions have none
            yield path.stem.rpartition("-epoch")[0], int(step), path


def tiles(images: Tensor, most: int = 24) -> Tensor:
    """uint8 (H, W): images (rows, C, h, w) in [0, 1] as a sheet with one row per image and one column per channel.

    More than `most` rows are shown in several blocks of columns.
    """
    blocks = math.ceil(len(images) / most)
    images = F.pad(images, (0, GAP, 0, GAP), value=1.0)
    images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % blocks), value=1.0)
    rows, channels, h, w = images.shape
    sheet = images.view(blocks, rows // blocks, channels, h, w).permute(1, 3, 0, 2, 4)  # (R, h, blocks, C, w)
    return (sheet.reshape(rows // blocks * h, blocks * channels * w)[:-GAP, :-GAP] * 255).round().to(torch.uint8)
