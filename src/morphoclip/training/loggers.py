"""Weights & Biases: the same rows as logs/metrics.csv, in one wandb run however often the training was interrupted."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from morphoclip.training.curves import STEP, read_rows
from morphoclip.training.pictures import read_pictures

if TYPE_CHECKING:
    import wandb

PACKAGES = {"WandbCurves": "wandb", "WandbLogger": "wandb", "TensorBoardLogger": "tensorboard"}
REPLACED = "replaced"


def check_loggers(loggers: Mapping[str, Any] | None) -> None:
    """Refuse loggers that cannot log; `loggers` is the group `logger` of a run's config.

    Raises:
        ImportError: the package of a logger is not installed.
        ValueError: wandb is to upload and has no API key.
    """
    for key, spec in (loggers or {}).items():
        if not spec:
            continue
        package = PACKAGES.get(str(spec.get("_target_", "")).rpartition(".")[2])
        if package is not None and find_spec(package) is None:
            raise ImportError(f"logger={key} needs the package {package}: pip install {package}")
        if package == "wandb" and not spec.get("offline") and os.environ.get("WANDB_MODE", "online") == "online":
            _check_key(key)


@rank_zero_only
def _check_key(key: str) -> None:
    import wandb

    try:
        wandb.login()  # asks on a terminal
    except wandb.errors.UsageError as error:
        raise ValueError(
            f"logger={key} uploads to wandb, which has no API key here ({' '.join(str(error).split())}): run `wandb login`, "
            f"or set logger.{key}.offline=true and upload later"
        ) from error


class WandbCurves(Logger):
    """Sends rows and pictures to wandb; wandb's step is the number of optimizer steps, so that none is there twice.

    A run that goes on keeps its id. wandb cannot take back what it was sent, and it does not join the folders of an
    offline run on its own, so (`go_on`):

    - offline, the new local folder gets the rows up to the checkpoint again, and the folders before it move to
      `wandb/replaced`: one folder holds the whole run.
    - online, the rows that wandb lacks are sent, and those of steps that it already has are left out.

    Args:
        save_dir: the run's folder; local files are in its subfolder `wandb`, pictures are in `pictures`.
        curves: the table of `CSVCurves`.
        project, id, name: wandb's. Characters that an id may not have become "-".
        offline: write local files only, to be uploaded by `wandb sync`; the variable WANDB_MODE=offline does the same.
        options: further arguments of `wandb.init`, e.g. entity, group, tags.
    """

    def __init__(
        self,
        save_dir: str | Path,
        curves: str | Path,
        project: str,
        id: str,
        name: str | None = None,
        offline: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.folder, self.curves = Path(save_dir), Path(curves)
        self.id = re.sub(r"[/\\#?%:]", "-", id)[:128]
        self.settings = {"project": project, "name": name, **options} | ({"mode": "offline"} if offline else {})
        self._from: int | None = None
        self._config: dict[str, Any] = {}
        self._run: wandb.Run | None = None
        self._first = 0  # earlier steps are on the server

    @property
    def name(self) -> str:
        return str(self.settings["project"])

    @property
    def version(self) -> str:
        return self.id

    def go_on(self, step: int | None, config: Mapping[str, Any]) -> None:
        """Say before the first row where the training begins, and by which config.

        Args:
            step: that of the checkpoint; None to begin anew.
            config: the run's, resolved.
        """
        self._from, self._config = step, dict(config)

    @property
    def run(self) -> wandb.Run:
        """The wandb run, which begins when it is first needed. Only for rank 0.

        Raises:
            ConnectionError: wandb cannot begin it.
        """
        if self._run is None:
            import wandb

            try:
                self._run = wandb.init(
                    dir=self.folder,
                    id=self.id,
                    resume="allow",
                    config=self._config,
                    settings=wandb.Settings(silent=True),
                    **self.settings,
                )
            except wandb.errors.Error as error:
                raise ConnectionError(
                    f"wandb: {error}; with logger.wandb.offline=true it needs no connection"
                ) from error
            self._catch_up(self._run)
        return self._run

    def _catch_up(self, run: wandb.Run) -> None:
        """Send what the run logged before its checkpoint and wandb does not have."""
        here = Path(run.dir).parent
        if run.resumed:
            self._first = run.starting_step
        for step, values in sorted(self._logged_before(), key=lambda row: row[0]):
            self._log(run, values, step)
        if not run.offline:
            print(f"wandb: {run.url or 'disabled'}", flush=True)
            return
        for before in sorted(here.parent.glob("offline-run-*")):
            if before == here or not self.curves.is_file():
                continue
            if any(before.glob("*.wandb.synced")):
                print(f"wandb: {before} was uploaded; delete that run on the server before you upload this one")
                continue
            (here.parent / REPLACED).mkdir(exist_ok=True)
            before.rename(here.parent / REPLACED / before.name)
        print(f"wandb: offline; upload with\n  wandb sync {here}", flush=True)

    def _logged_before(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(step, values) of the rows up to the checkpoint, and of the pictures before it."""
        if self._from is None or not self.curves.is_file():
            return
        for row in read_rows(self.curves):
            if int(row[STEP]) <= self._from:
                yield int(row[STEP]), {name: float(value) for name, value in row.items() if value and name != STEP}
        for name, step, picture in read_pictures(self.folder):
            if step < self._from:  # that of the checkpoint's step is made again
                yield step, {name: [_image(picture)]}

    def _log(self, run: wandb.Run, values: Mapping[str, Any], step: int | None) -> None:
        if step is None or step >= self._first:
            run.log(dict(values), step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **options: Any) -> None:
        """Begin the run; its config is that of `go_on`."""
        self.run  # noqa: B018

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._log(self.run, metrics, step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        """Send pictures: arrays or paths of PNG files."""
        self._log(self.run, {key: [_image(image) for image in images]}, step)


def _image(picture: Any) -> wandb.Image:
    import wandb

    return wandb.Image(Image.open(picture) if isinstance(picture, Path) else picture)


def log_scores(table: Path) -> None:
    """Send a run's score table to its wandb run, if one is open in this process: as `scores`, and as summary values.

    The summary has `score/<task>/<metric>` of all subsets together.
    """
    run = _open_run()
    if run is None or not table.is_file():
        return
    import wandb

    with table.open(newline="") as file:
        head, *rows = csv.reader(file)
    run.log(
        {"scores": wandb.Table(columns=list[str | int](head), data=[[_cell(value) for value in row] for row in rows])}
    )
    for row in (dict(zip(head, values, strict=True)) for values in rows):
        if row["subset"] == "all":
            run.summary[f"score/{row['task']}/{row['metric']}"] = _cell(row["value"])


def _cell(text: str) -> float | str | None:
    """A cell of a csv file: a number, text, or None if it is empty."""
    try:
        return float(text)
    except ValueError:
        return text or None


@contextmanager
def wandb_run_ended() -> Iterator[None]:
    """End the wandb run that the block opens, so that the next run of this process has one of its own."""
    status = 1
    try:
        yield
        status = 0
    finally:
        run = _open_run()
        if run is not None:
            run.finish(exit_code=status)


def _open_run() -> wandb.Run | None:
    """The wandb run of this process; None without importing wandb if there is none."""
    loaded = sys.modules.get("wandb")
    return None if loaded is None else loaded.run
