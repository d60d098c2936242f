"""What a function of SQL is that the database has beside DuckDB's own: how it is called, and the columns it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connectome_db.spec import Table


@dataclass(frozen=True)
class Function:
    """A function that stands in FROM: its parameters with their defaults (as SQL), and the columns it gives."""

    table: Table
    parameters: Mapping[str, str | None]
    """None: it must be given."""
    value: bool = False
    """True: it stands where a value does and gives a list of the rows, each a struct with these columns."""

    @property
    def name(self) -> str:
        """Its name in SQL."""
        return self.table.name

    @property
    def usage(self) -> str:
        """How it is called."""
        given = (n if d is None else f"{n} => {d}" for n, d in self.parameters.items())
        return f"{self.name}({', '.join(given)})"
