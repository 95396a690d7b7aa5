"""Filters for messages of libraries that no user can act on, listed one by one; all others stay."""

from __future__ import annotations

import logging
import warnings

LOGGERS = (
    "pytorch_lightning.utilities.rank_zero",
    "lightning_fabric.utilities.rank_zero",
    "lightning_fabric.utilities.cloud_io",
)
# How these log lines begin.
CHATTER = (
    "💡 Tip:",
    "GPU available:",
    "TPU available:",
    "HPU available:",
    "`weights_only` was not set",
    "`Trainer.fit` stopped:",
)
# (message as a regular expression, reason to drop it)
WARNINGS = (
    (r".*`isinstance\(treespec, LeafSpec\)` is deprecated", "between Lightning and torch"),
    (r"You passed in a `val_dataloader` but have no `validation_step`", "scores come after training"),
    (r"The '\w+' does not have many workers", "our loaders read ahead by threads"),
    (r"The number of training batches \(\d+\) is smaller than the logging interval", "short runs log at their end"),
    (r"Starting from v1\.9\.0, `tensorboardX` has been removed", "the logger is configured"),
    (r"Checkpoint directory .* exists and is not empty", "a run that goes on has its own checkpoints"),
    (r"n_jobs value 1 overridden to 1 by setting random_state", "UMAP with a seed runs on one thread"),
    (r"The `srun` command is available on your system but is not used", "docs/cluster.md says when to use it"),
    (r"Found \d+ module\(s\) in eval mode at the start of training", "teachers and frozen towers"),
    (r"pkg_resources is deprecated", "of a dependency"),
)


def is_chatter(line: str) -> bool:
    """Whether a log line of Lightning is in `CHATTER`."""
    return line.lstrip().startswith(CHATTER)


def quiet_libraries() -> None:
    """Filter `CHATTER` and `WARNINGS` in this process."""
    for message, _ in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Quiet) for known in logger.filters):
            logger.addFilter(_Quiet())


class _Quiet(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not is_chatter(record.getMessage())
