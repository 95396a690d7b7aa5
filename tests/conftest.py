"""The small datasets and fields of `tests.datasets`, as fixtures."""

from tests.datasets import (  # noqa: F401
    draw_field,
    load_data_csv,
    make_screen,
    plate_of_tiffs,
    real_data,
    rows_of_screen,
    screen,
)
