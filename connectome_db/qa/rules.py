"""What every table must satisfy, worked out from its declaration. Nothing here needs Great Expectations.

key        no two rows share (unit, *key); a column that others point to names one row in the whole table
not null   columns that are not declared nullable hold a value, and numbers are not NaN
range      fractions lie in 0-1, correlations in -1 to 1, sizes, areas and counts are not negative, boxes not inverted
foreign    an id that points to another table is found there; 0 is background and points to nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from connectome_db.schema.all import TABLES
from connectome_db.spec import Table

_FRACTIONS = {
    "valid_fraction", "saturation", "sharpness", "coverage", "boundary", "iou", "affinity", "affinity_low",
    "affinity_high", "confidence", "polarity", "weakest_merge", "score",
}  # fmt: skip
"""Columns whose meaning is a fraction, a probability or a mean of them, in whichever table they are."""

_COUNTS = {
    "features", "inliers", "tiles", "pixels", "voxels", "length", "faces", "supervoxels", "fragments", "matches",
    "synapses", "synapses_out", "synapses_in", "partners_out", "partners_in", "rank", "patch", "component",
}  # fmt: skip
_NOT_NEGATIVE = {
    "size_vx", "overlap_vx", "a_vx", "b_vx", "area_nm2", "volume_nm3", "weight", "residual_px", "rms_px", "std",
    "noise",
}  # fmt: skip
_CORRELATIONS = {"correlation"}
_BOXES = tuple((f"{axis}0{end}", f"{axis}1{end}") for end in ("_vx", "_px") for axis in "zyx")


@dataclass(frozen=True)
class Rule:
    """One thing to check of one table."""

    kind: Literal["unique", "not_null", "between", "ordered", "foreign"]
    columns: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    target: str = ""
    """Of a foreign key: "table.column"."""

    @property
    def says(self) -> str:
        """The rule in words."""
        names = ", ".join(self.columns)
        match self.kind:
            case "unique":
                return f"{names}: no two rows alike"
            case "not_null":
                return f"{names}: always a value"
            case "between":
                return (
                    f"{names}: {self.low:g} or more" if self.high is None else f"{names}: {self.low:g} to {self.high:g}"
                )
            case "ordered":
                return f"{self.columns[0]} below {self.columns[1]}"
            case "foreign":
                return f"{names}: found in {self.target}"


def rules_of(table: Table) -> tuple[Rule, ...]:
    """All rules of a table."""
    found = [Rule("unique", ("unit", *table.key))]
    pointed_at = sorted({target for t in TABLES.values() for target in t.foreign.values()})
    found += [Rule("unique", (column,)) for name, column in (p.split(".") for p in pointed_at) if name == table.name]
    found += [Rule("not_null", (c.name,)) for c in table.columns if not c.nullable]
    for c in table.columns:
        if c.name in _FRACTIONS and c.dtype.startswith("float"):
            found.append(Rule("between", (c.name,), 0.0, 1.0))
        elif c.name in _CORRELATIONS:
            found.append(Rule("between", (c.name,), -1.0, 1.0))
        elif c.name in _COUNTS | _NOT_NEGATIVE:
            found.append(Rule("between", (c.name,), 0.0))
    names = {c.name for c in table.columns}
    found += [Rule("ordered", pair) for pair in _BOXES if names.issuperset(pair)]
    found += [Rule("foreign", (column,), target=target) for column, target in table.foreign.items()]
    return tuple(found)
