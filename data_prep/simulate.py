"""Write a simulated Cell Painting screen: `python -m data_prep.simulate --out DIR --seed 0 [--layout scrambled] [...]`.

The same as `morphoclip data simulate`, for those who work in a checkout.
"""

import sys

from morphoclip.simulation.command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m data_prep.simulate"))
