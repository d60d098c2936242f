"""What reading a list found: how many rows, which of them cannot be used and why, and what a reader should know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from connectome_db.errors import SourceError

SHOWN = 10
"""Rows that a message names before it only counts."""


@dataclass
class Fault:
    """Rows that cannot be used for one reason: how many, and the first of them as (row, value)."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, rows: Iterable[tuple[int, str]], count: int) -> None:
        """Count more of them."""
        self.count += count
        self.first += list(rows)[: SHOWN - len(self.first)]

    def text(self) -> str:
        """`3 rows: row 2: '1.15e18', row 9: '…'`."""
        shown = ", ".join(f"row {r}: {v!r}" for r, v in self.first)
        more = ", ..." if self.count > len(self.first) else ""
        return f"{self.count:,} row{'s' if self.count > 1 else ''}: {shown}{more}"


@dataclass
class Report:
    """Filled while a list is read."""

    rows: int = 0
    """Rows of the file."""
    left_out: int = 0
    """Rows that `where` leaves out."""
    kept: int = 0
    """Rows that are imported."""
    rejected: int = 0
    """Rows that cannot be used."""
    synapses: int = 0
    """Synapses that the imported rows stand for."""
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)
    """By (column, reason)."""
    notes: Counter[str] = field(default_factory=Counter)
    """What was understood in a way worth knowing, and in how many rows."""

    def fault(self, column: str, reason: str) -> Fault:
        """The fault of a column, new or as counted so far."""
        return self.faults.setdefault((column, reason), Fault())

    def lines(self) -> list[str]:
        """A line per fault."""
        return [f"column {column!r} {reason}; {f.text()}" for (column, reason), f in self.faults.items()]

    def refuse(self, path: Path, remedy: str) -> None:
        """Raise SourceError when there are rows that cannot be used."""
        if self.faults:
            said = "\n  ".join(self.lines())
            raise SourceError(f"{path}: {self.rejected:,} of {self.rows:,} rows cannot be used:\n  {said}\n{remedy}")
