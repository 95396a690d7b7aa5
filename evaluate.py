"""Score profiles: `uv run evaluate.py profiles='plates/*.csv.gz' metadata=folder/ protocol=cpjump1 [key=value …]`.

Scores an encoder folder (`encoder=`), a checkpoint (`checkpoint=`; both with `dataset=`) or a finished run (`run=`) too.
Writes metrics.csv, a csv per task and report.html to `output_dir`. Every key is in configs/evaluate.yaml.
"""

from morphoclip.cli.hydra_app import main

if __name__ == "__main__":
    main("evaluate")
