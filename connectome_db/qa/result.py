"""One row of results."""

from __future__ import annotations

from dataclasses import dataclass

from connectome_db.qa.settings import Severity


@dataclass(frozen=True)
class Result:
    """What came of one expectation; the fields are the columns of `qa/expectations.parquet`."""

    table: str
    name: str
    """Of an expectation beyond the schema, its name in params.yaml; else the kind of rule."""
    expectation: str
    """The type, as Great Expectations calls it."""
    columns: str
    """Columns that it is about, separated by ", "."""
    says: str
    """What is expected, in words."""
    severity: Severity
    reason: str
    """Why it is expected."""
    success: bool
    rows: int
    """Rows looked at: of the table, or places for what is measured per tile, section, block or neuron."""
    unexpected: int
    """Rows among them that are not as expected."""
    unexpected_share: float
    observed: float | None
    """The worst value measured; null for rules of the schema."""
    example: str
    """Up to three offending values, the worst first; empty when there are none."""
    place: str
    """Where the worst one is, in words; empty when all is well or it has no place."""
    unit: int | None
    """The unit that it is in, where it is in one."""
    z0_nm: float | None
    y0_nm: float | None
    x0_nm: float | None
    z1_nm: float | None
    y1_nm: float | None
    x1_nm: float | None
