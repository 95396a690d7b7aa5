"""Train one model and score it: `uv run train.py [experiment=…] [key=value …]`.

Without arguments this is the demo: it simulates a small Cell Painting screen, prepares shards, trains the image-text
model, embeds every well, scores compounds held out of training, and writes a report. Every key is in configs/.
"""

from __future__ import annotations

import os

# Threads that wait by spinning cost several times the work itself where cores are shared; set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hydra
from omegaconf import DictConfig

from morphoclip import configs_dir


@hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="train")
def main(config: DictConfig) -> None:
    from morphoclip.experiment.run import run

    run(config)


if __name__ == "__main__":
    main()
