"""Every name that docs/moved.md says is there now can be imported from there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs/moved.md").read_text()
ROWS = re.findall(
    r"^\| `(\S+)` \| `(morphoclip\.\S+)` \| (.+) \|$", PAGE.split("## Under another name")[0], re.MULTILINE
)
OTHERS = re.findall(r"`(morphoclip(?:\.\w+)+)`", PAGE.split("## Under another name")[1].split("## Config keys")[0])


def test_the_page_has_rows():
    assert len(ROWS) > 100
    assert len(OTHERS) > 8


@pytest.mark.parametrize(("before", "now", "names"), ROWS)
def test_what_moved_is_where_the_page_says(before: str, now: str, names: str) -> None:
    module = import_module(now)
    for name in re.findall(r"`(\w+)`", names):
        assert hasattr(module, name), f"{now} has no {name}"


@pytest.mark.parametrize("path", OTHERS)
def test_what_was_renamed_exists(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert hasattr(import_module(module), name)
