"""Values of a key in two tables ▶ which of one are which of the other, and how each spelling was read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pandas as pd

from morphoclip import schema

_BROAD = re.compile(r"BRD-[A-Z]\d{8}")
_INCHIKEY = re.compile(r"[A-Z]{14}(-[A-Z]{8,10}(-[A-Z])?)?")
_NUMBER = re.compile(r"\d+(\.0+)?")


def _numbered(value: str) -> str:
    text = value.strip()
    return (text.split(".")[0].lstrip("0") or "0") if _NUMBER.fullmatch(text) else text.casefold()


def _broad(length: int) -> Callable[[str], str]:
    return lambda value: value.strip()[:length] if _BROAD.match(value.strip()) else ""


def _structure(value: str) -> str:
    return value.strip()[:14] if _INCHIKEY.fullmatch(value.strip()) else ""


# How two spellings of one value are found to be equal, strictest first; '' says that the form does not apply.
Forms = dict[str, Callable[[str], str]]
_TEXT: Forms = {
    "": lambda value: value,
    "without blanks around it": str.strip,
    "whatever the case": lambda value: value.strip().casefold(),
}
PLATES: Forms = _TEXT | {"without leading zeros": _numbered}
PERTURBATIONS: Forms = PLATES | {
    "by the first 17 characters, without the batch of the sample": _broad(17),
    "by the first 13 characters, without salt and batch of the sample": _broad(13),
    "by the first block of the InChIKey": _structure,
}


@dataclass
class Matches:
    """Ours -> theirs for the values that match; examples of each inexact form; ours -> several of theirs where unclear."""

    theirs: dict[str, str] = field(default_factory=dict)
    inexact: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    unclear: dict[str, list[str]] = field(default_factory=dict)


def match(ours: Iterable[str], theirs: Iterable[str], forms: Forms) -> Matches:
    """Match each of our values by the strictest form that finds one of theirs; blanks match nothing."""
    left = sorted({value for value in ours if value.strip()})
    known = sorted({value for value in theirs if value.strip()})
    found = Matches()
    for name, form in forms.items():
        index: dict[str, list[str]] = {}
        formed = {value: key for value in left if (key := form(value))}
        if not formed:
            continue
        for value in known:
            if key := form(value):
                index.setdefault(key, []).append(value)
        for value, key in formed.items():
            candidates = index.get(key, [])
            if len(candidates) > 1:
                found.unclear[value] = candidates
            if candidates:
                found.theirs[value] = candidates[0]
                if name:
                    found.inexact.setdefault(name, []).append((value, candidates[0]))
        left = [value for value in left if value not in found.theirs]
    return found


def wells(names: pd.Series) -> pd.Series:
    """Well names as B07, '' where blank.

    Raises:
        ValueError: a name is not that of a well.
    """
    known = {}
    for name in names.unique():
        plain = re.sub(r"[\s\-_:]", "", name)
        known[name] = schema.well_name(*schema.well_position(plain)) if plain else ""
    return names.map(known)


def doses(values: pd.Series) -> pd.Series:
    """Doses as numbers of four significant digits, so that 0.30 and 0.3 are one; '' where blank or no number."""
    numbers = pd.to_numeric(values.str.strip().str.replace(",", "."), errors="coerce")
    return numbers.map(lambda number: f"{number:.4g}" if number == number else "")
