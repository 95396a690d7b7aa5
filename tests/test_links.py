"""Every relative link and image of the pages leads to a file, and its anchor to a heading."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"")


def relative_links(text: str) -> list[str]:
    found = ["".join(pair) for pair in LINK.findall(text)]
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: Path) -> set[str]:
    """The anchors GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_are_found():
    text = '[a](b.md) ![c](d.png "title") <img src="e.png"> [f](https://g.org) [h](i.md#j)'
    assert relative_links(text) == ["b.md", "d.png", "e.png", "i.md#j"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path):
    for link in relative_links(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.relative_to(ROOT)} links to {link}, which is not there"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{page.relative_to(ROOT)} links to {link}: no such heading"


# Names of documents that are not in the repository. As a name in code (METHODS = …) the word is no citation.
ELSEWHERE = re.compile(r"\b(METHODS|DESIGN|EVALUATION|STYLE|TRAPS)\b(\.md)?|§|\.\./shared/[A-Z]\w*\.md")
TEXTS = [
    path
    for folder in ("src", "configs", "docs", "benchmarks", "data_prep", "slurm", "tests")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".py", ".yaml", ".md", ".j2", ".sbatch"} and path.name != "test_links.py"
] + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "train.py", "evaluate.py")]


def prose(path: Path) -> str:
    """The comments and strings of a Python file, braces of format strings left out; any other file whole."""
    text = path.read_text()
    if path.suffix != ".py":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    kept = [token.string for token in tokens if token.type in (tokenize.COMMENT, tokenize.STRING)]
    return re.sub(r"\{[^{}]*\}", "", "\n".join(kept))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_cites_a_document_that_is_not_here(path: Path):
    found = ELSEWHERE.search(prose(path))
    assert found is None, f"{path.relative_to(ROOT)} cites {found.group()}: name the paper, or a page of docs/"


def test_citations_and_names_are_distinguished(tmp_path):
    code = tmp_path / "x.py"
    code.write_text('METHODS = ("a",)\nraise ValueError(f"none of {METHODS}")\n')
    assert ELSEWHERE.search(prose(code)) is None
    code.write_text('"""As METHODS says."""\n')
    assert ELSEWHERE.search(prose(code))
    code.write_text("x = 1  # see §3\n")
    assert ELSEWHERE.search(prose(code))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_named_in_pages_exist(page: Path):
    for path, name in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page.read_text()):
        assert (ROOT / path).is_file(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(), f"{path} has no {name}"
