"""Gene symbols of any year ▶ approved symbols of HGNC's complete set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd


@dataclass
class Symbols:
    """Resolves symbols, and keeps a record of what it changed or could not resolve.

    Attributes:
        approved: upper-cased approved symbol -> the symbol.
        former: upper-cased previous symbol -> approved symbols that had it.
        aliases: upper-cased alias -> approved symbols that have it.
        renamed: symbol -> the approved one it was replaced by.
        ambiguous: symbol, kept as it is -> the approved ones it could be.
        unknown: symbols that HGNC does not list, kept as they are.
    """

    approved: dict[str, str] = field(default_factory=dict)
    former: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    @classmethod
    def of_hgnc(cls, table: pd.DataFrame) -> Symbols:
        """From HGNC's complete set: columns symbol, prev_symbol and alias_symbol (`|`-separated)."""
        symbols = cls({symbol.upper(): symbol for symbol in table["symbol"]})
        for column, known in (("prev_symbol", symbols.former), ("alias_symbol", symbols.aliases)):
            for symbol, names in zip(table["symbol"], table.get(column, pd.Series("", table.index)), strict=True):
                for name in filter(None, names.split("|")):
                    known.setdefault(name.upper(), []).append(symbol)
        return symbols

    def current(self, symbol: str) -> str:
        """The approved symbol: itself, else the one gene that had it, else the one gene of which it is an alias.

        A symbol that belongs to several genes, or to none, is kept and recorded. Without HGNC's table, all are kept.
        """
        name = symbol.strip().upper()
        if not name or not self.approved:
            return symbol.strip()
        if name in self.approved:
            return self.approved[name]
        for known in (self.former, self.aliases):
            genes = sorted(set(known.get(name, [])))
            if len(genes) == 1:
                self.renamed[symbol] = genes[0]
                return genes[0]
            if genes:
                self.ambiguous[symbol] = genes
                return symbol
        self.unknown.add(symbol)
        return symbol

    def current_list(self, symbols: str) -> str:
        """`|`-separated symbols, each resolved, in their order, without repeats."""
        return "|".join(dict.fromkeys(filter(None, map(self.current, symbols.split("|")))))

    def notes(self) -> list[str]:
        """What was renamed or not resolved, with counts and examples."""

        def some(items: Iterable[str]) -> str:
            return ", ".join(list(items)[:3])

        said = []
        if self.renamed:
            examples = some(f"{old} to {new}" for old, new in sorted(self.renamed.items()))
            said.append(f"{len(self.renamed)} gene symbols are renamed to HGNC's approved ones, e.g. {examples}")
        if self.ambiguous:
            examples = some(f"{name} ({' or '.join(genes)})" for name, genes in sorted(self.ambiguous.items()))
            said.append(
                f"{len(self.ambiguous)} symbols belong to several genes and are kept as they are, e.g. {examples}"
            )
        if self.unknown:
            said.append(
                f"{len(self.unknown)} symbols are not in HGNC's table and are kept, e.g. {some(sorted(self.unknown))}"
            )
        return said
