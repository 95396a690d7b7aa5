"""Files of candidates: tables, and one text or structure per line."""

from __future__ import annotations

import pandas as pd
import pytest

from morphoclip.screening.candidates import read_candidates

TEXTS = ["U2OS cells, loss of PLK1", "U2OS cells, 48 h, gain of TP53"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.txt", "\n".join(TEXTS)),
        ("c.txt", "\n".join(["text", *TEXTS]) + "\n\n"),
        ("c.csv", "\n".join(["text", *TEXTS])),  # a text with commas and no quotes is one text
        ("c.csv", "text\n" + "\n".join(f'"{text}"' for text in TEXTS)),
        ("c.csv", "\ufefftext\r\n" + "\r\n".join(TEXTS)),
        ("c.csv", "name,text\n" + "\n".join(f'{i},"{text}"' for i, text in enumerate(TEXTS))),
    ],
)
def test_a_line_is_one_text(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_candidates(tmp_path / name)[1:] == ("text", TEXTS)


def test_structures_by_line_and_by_table(tmp_path):
    (tmp_path / "c.smi.txt").write_text("smiles\nCCO\nc1ccccc1\n")
    assert read_candidates(tmp_path / "c.smi.txt")[1:] == ("smiles", ["CCO", "c1ccccc1"])
    pd.DataFrame({"smiles": ["CCO"], "name": ["ethanol"]}).to_parquet(tmp_path / "c.parquet")
    table, kind, values = read_candidates(tmp_path / "c.parquet")
    assert (kind, values, table["name"].tolist()) == ("smiles", ["CCO"], ["ethanol"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text\none\n\ntwo", "has no text in row 2"),
        ("text\n", "holds no candidate"),
        ("structure,name\nCCO,ethanol", r"needs one of the columns .* not \['structure', 'name'\]"),
        ("text,smiles\na,CCO", r"not \['text', 'smiles'\]"),
    ],
)
def test_what_cannot_be_ranked_is_named(tmp_path, content, said):
    (tmp_path / "c.csv").write_text(content)
    with pytest.raises(ValueError, match=said):
        read_candidates(tmp_path / "c.csv")
