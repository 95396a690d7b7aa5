"""Score profiles: `uv run evaluate.py profiles='plates/*.csv.gz' metadata=folder/ protocol=cpjump1 [key=value …]`.

Scores an encoder folder or a checkpoint too, with `dataset=`. Writes metrics.csv, a csv per task and report.html to
`output_dir`. Every key is in configs/evaluate.yaml.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

from morphoclip import configs_dir


@hydra.main(version_base="1.3", config_path=str(configs_dir()), config_name="evaluate")
def main(config: DictConfig) -> None:
    from morphoclip.experiment.evaluate import run

    run(config)


def as_keys(arguments: Sequence[str]) -> list[str]:
    """`encoder=` as Hydra's `encoder_folder=`: `encoder` names a group of configs, of which train.py chooses one."""
    return [f"encoder_folder{a.removeprefix('encoder')}" if a.startswith("encoder=") else a for a in arguments]


if __name__ == "__main__":
    sys.argv[1:] = as_keys(sys.argv[1:])
    main()
