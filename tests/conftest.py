"""The small datasets and fields of `tests.datasets`, as fixtures; pandas copies on write, as from version 3 on."""

import os

import pandas as pd

from tests.datasets import (  # noqa: F401
    draw_field,
    load_data_csv,
    make_screen,
    plate_of_tiffs,
    real_data,
    rows_of_screen,
    screen,
)

os.environ["PANDAS_COPY_ON_WRITE"] = "1"  # for the commands that tests start
pd.options.mode.copy_on_write = True
