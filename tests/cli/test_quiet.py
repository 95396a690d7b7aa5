"""Noise is filtered by name, and nothing else is."""

from __future__ import annotations

import logging
import warnings

from morphoclip.cli.quiet import is_chatter, quiet_libraries


def test_known_noise_goes_and_the_rest_stays(caplog):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("plate P1 has few controls", stacklevel=1)
    assert [str(w.message) for w in seen] == ["plate P1 has few controls"]
    log = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    with caplog.at_level(logging.INFO, logger=log.name):
        log.info("TPU available: False, using: 0 TPU cores")
        log.info("Restored all states from the checkpoint")
    assert [record.getMessage() for record in caplog.records] == ["Restored all states from the checkpoint"]
    assert is_chatter("💡 Tip: For seamless cloud logging")
