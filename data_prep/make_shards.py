"""Turn five-channel TIFF fields into a dataset for training: `python -m data_prep.make_shards --images DIR --out DATASET`.

The same as `morphoclip data prepare`, for those who work in a checkout.
"""

import sys

from morphoclip.preparation.command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m data_prep.make_shards"))
