"""Train one model and score it: `uv run train.py [experiment=…] [key=value …]`.

Without arguments this is the demo: it simulates a small Cell Painting screen, prepares shards, trains the image-text
model, embeds every well, scores compounds held out of training, and writes a report. Every key is in configs/.
"""

from morphoclip.cli.hydra_app import main

if __name__ == "__main__":
    main("train")
