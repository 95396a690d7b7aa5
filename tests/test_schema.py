"""Names of columns, and what a row holds."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema


def test_controls_and_treated_wells_by_one_rule():
    table = pd.DataFrame(
        {
            schema.CONTROL_TYPE: ["negcon", "empty", "", "poscon", None, "", None],
            schema.PERTURBATION: ["DMSO", "", "a", "b", "c", "", None],
        }
    )
    assert schema.is_negcon(table).tolist() == [True, *[False] * 6]
    assert schema.is_treated(table).tolist() == [False, False, True, True, True, False, False]
    for kind in ("category", "string"):  # as a Parquet file or an AnnData table may hold them
        assert schema.is_negcon(table.astype(kind)).tolist() == [True, *[False] * 6]
    assert schema.is_negcon(table).dtype == bool


def test_jumps_millimoles_are_micromolar_and_true_millimolar_is_doubted():
    jump = pd.DataFrame({"mmoles_per_liter": [5.0, 0.5, np.nan]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert schema.canonicalize(jump)[schema.DOSE].tolist()[:2] == [5.0, 0.5]
        schema.canonicalize(pd.DataFrame({"mmoles_per_liter": [np.nan, 0.0]}))  # controls alone say nothing
        schema.canonicalize(pd.DataFrame({"dose_um": [0.01]}))  # what says µM is µM
    with pytest.warns(UserWarning, match="largest value is 0.01: if the values are millimolar"):
        kept = schema.canonicalize(pd.DataFrame({"Metadata_mmoles_per_liter": [0.01, 0.001]}))
    assert kept[schema.DOSE].tolist() == [0.01, 0.001]
