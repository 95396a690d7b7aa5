from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from morphoclip import schema
from morphoclip.data import PerturbationTable

FIELDS = pd.DataFrame(
    [
        ("BRD-1", "compound", "U2OS", "48", "5.0", "paclitaxel", "TUBB", "CCO", "", "p1"),
        ("BRD-1", "compound", "U2OS", "48", "5.0", "paclitaxel", "TUBB", "CCO", "", "p2"),
        ("BRD-1", "compound", "A549", "48", "5.0", "paclitaxel", "TUBB", "CCO", "", "p1"),
        ("DMSO", "compound", "U2OS", "48", "", "DMSO", "", None, "", "p1"),
        ("guide-1", "crispr", "U2OS", "96", np.nan, "", "PLK1", "", "ACGT", "p3"),
        ("guide-nt", "crispr", "U2OS", "96", np.nan, "", np.nan, "", "TTTT", "p3"),
    ],
    columns=[
        schema.PERTURBATION,
        schema.MODALITY,
        schema.CELL_LINE,
        schema.TIMEPOINT,
        schema.DOSE,
        schema.NAME,
        schema.GENE,
        schema.SMILES,
        schema.GUIDE,
        schema.PLATE,
    ],
)
TEMPLATES = {
    "compound": "{cell_line} cells treated with compound: {name}, SMILES: {smiles}",
    "crispr": "{cell_line} cells treated with crispr sequence: {guide_sequence}, targeting genes: {gene}",
}


def test_a_row_a_condition_whatever_the_order_of_the_fields():
    table = PerturbationTable.from_frame(FIELDS)
    assert len(table) == 5
    shuffled = PerturbationTable.from_frame(FIELDS.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(table.frame, shuffled.frame)
    codes = table.codes(FIELDS)
    assert codes[0] == codes[1] != codes[2]
    assert table.frame[schema.CELL_LINE][codes[2]] == "A549"
    assert table.codes(FIELDS.assign(**{schema.TIMEPOINT: "24"})).tolist() == [-1] * 6


def test_prompts_say_what_is_known_and_nothing_else():
    table = PerturbationTable.from_frame(FIELDS)
    prompts = [table.prompts(TEMPLATES)[code] for code in table.codes(FIELDS)]
    assert prompts[0] == "U2OS cells treated with compound: paclitaxel, SMILES: CCO"
    assert prompts[3] == "U2OS cells treated with compound: DMSO"
    assert prompts[4] == "U2OS cells treated with crispr sequence: ACGT, targeting genes: PLK1"
    assert prompts[5] == "U2OS cells treated with crispr sequence: TTTT"
    assert not any("nan" in prompt or "None" in prompt for prompt in prompts)


def test_every_column_can_be_asked_for_by_its_bare_name():
    table = PerturbationTable.from_frame(FIELDS.assign(Metadata_pathway="mitosis"))
    [prompt, *_] = table.prompts(
        dict.fromkeys(TEMPLATES, "{pert_iname} {targets}{moa} {dose_um} {timepoint_h} {pathway}")
    )
    assert prompt == "paclitaxel  5.0 48 mitosis"


def test_a_prompt_that_cannot_be_made_is_named():
    table = PerturbationTable.from_frame(FIELDS)
    with pytest.raises(ValueError, match=r"no prompt template for modality 'crispr'"):
        table.prompts({"compound": "{name}"})
    with pytest.raises(ValueError, match=r"uses \['protein'\]"):
        table.prompts(TEMPLATES | {"crispr": "{protein}"})
    with pytest.raises(ValueError, match=r"'DMSO' has no value that the compound template '\{smiles\}'.* empty"):
        table.prompts(TEMPLATES | {"compound": "{smiles}"})


def test_one_condition_with_two_annotations_is_an_error_and_other_columns_go_blank():
    two = FIELDS.assign(**{schema.GENE: ["TUBB", "PLK1", "TUBB", "", "PLK1", ""]})
    with pytest.raises(ValueError, match=r"'BRD-1' has several values of Metadata_gene: \['PLK1', 'TUBB'\]"):
        PerturbationTable.from_frame(two)
    table = PerturbationTable.from_frame(FIELDS.assign(Metadata_density=["90", "100", "80", "80", "80", "80"]))
    code = table.codes(FIELDS)[0]
    assert table.frame["Metadata_density"][code] == ""
    assert table.frame["Metadata_density"][table.codes(FIELDS)[2]] == "80"


def test_real_annotations_make_a_table(real_data):
    from morphoclip.data.metadata.annotations import read_annotations

    wells = read_annotations(real_data / "metadata")
    table = PerturbationTable.from_frame(wells[wells[schema.PERTURBATION] != ""])
    compounds = table.frame[table.frame[schema.MODALITY] == "compound"]
    assert compounds[schema.PERTURBATION].nunique() == 307  # 306 and DMSO
    prompts = table.prompts(TEMPLATES | {"orf": "{cell_line} cells treated with orf, targeting genes: {gene}"})
    assert len(set(prompts)) > 600
    assert not any("nan" in prompt.split() for prompt in prompts)
