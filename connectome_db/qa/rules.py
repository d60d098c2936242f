"""What every table must satisfy, worked out from its declaration. Nothing here needs Great Expectations.

columns    the columns are those declared, in their order and of their types
sorted     rows ascend by (unit, *key): readers of a few units rely on it
unique     no two rows share (unit, *key); a column that others point to names one row in the whole table
not null   columns that are not declared nullable hold a value, and numbers are not NaN
range      fractions lie in 0-1, correlations in -1 to 1, sizes, areas and counts are not negative, ids are not 0
ordered    boxes are not inverted, pairs of sections ascend
member     a word or class is one of those that the schema lists
foreign    an id that points to another table is found there; 0 is background and points to nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from connectome_db.schema.all import IMPORTED, TABLES
from connectome_db.schema.quality import LEVELS, METRICS
from connectome_db.spec import Table

Kind = Literal["same", "sorted", "unique", "not_null", "between", "ordered", "member", "foreign"]

_FRACTIONS = {
    "valid_fraction", "saturation", "sharpness", "coverage", "boundary", "iou", "affinity", "affinity_low",
    "affinity_high", "confidence", "polarity", "weakest_merge", "score", "p_value", "q_value",
}  # fmt: skip
"""Columns whose meaning is a fraction, a probability or a mean of them, in whichever table they are."""

_AS_LISTED = {("listed_synapse", "confidence")}
"""Columns whose scale is that of the list they come from."""

_COUNTS = {
    "features", "inliers", "tiles", "pixels", "voxels", "length", "faces", "supervoxels", "fragments", "matches",
    "synapses", "synapses_out", "synapses_in", "partners_out", "partners_in", "rank", "patch", "component", "start",
    "node_y", "node_x",
}  # fmt: skip
_NOT_NEGATIVE = {
    "size_vx", "overlap_vx", "a_vx", "b_vx", "area_nm2", "volume_nm3", "weight", "residual_px", "rms_px", "std",
    "noise", "gain", "membrane_contrast",
}  # fmt: skip
_CORRELATIONS = {"correlation"}
_SECTIONS = {"section", "section_a", "section_b"}
_BOXES = tuple((f"{axis}0{end}", f"{axis}1{end}") for end in ("_vx", "_px", "_nm") for axis in "zyx")
_ASCENDING = (*_BOXES, ("section_a", "section_b"), ("tile_a", "tile_b"), ("affinity_low", "affinity_high"))
_MAY_EQUAL = {("affinity_low", "affinity_high")}

_MEMBERS: dict[tuple[str, str], tuple[str | int, ...]] = {
    ("tile_issue", "problem"): ("missing", "duplicate", "truncated", "wrong_size", "checksum", "unreadable"),
    ("pair_affine", "method"): ("features", "correlation", "identity"),
    ("section_pose", "placed"): ("anchor", "matches", "neighbours"),
    ("mask_area", "mask_class"): (0, 1, 2, 3, 4, 5, 6),
    ("apron", "axis"): (0, 1, 2),
    ("link", "reason"): ("counted", "autapse", "duplicate", "low confidence", "too few synapses"),
    ("flag", "kind"): ("trend", "local", "step", "section", "period"),
    ("flag", "severity"): ("info", "warning", "serious"),
    ("flag", "metric"): tuple(METRICS),
    ("flag", "layer"): tuple(LEVELS),
    **{(f"quality_{t}", "metric"): tuple(METRICS) for t in ("raw", "volume", "graph")},
    **{(f"quality_{t}", "layer"): tuple(LEVELS) for t in ("raw", "volume", "graph")},
}
"""What the schema says in words: the values that a column may have, by table and column."""

_TYPE: dict[Kind, str] = {
    "same": "expect_column_pair_values_to_be_equal",
    "sorted": "expect_column_values_to_be_in_set",
    "unique": "expect_column_values_to_be_unique",
    "not_null": "expect_column_values_to_not_be_null",
    "between": "expect_column_values_to_be_between",
    "ordered": "expect_column_pair_values_a_to_be_greater_than_b",
    "member": "expect_column_values_to_be_in_set",
    "foreign": "expect_column_values_to_be_in_set",
}
_REASON: dict[Kind, str] = {
    "same": "Readers ask for columns by name and type.",
    "sorted": "Reading one unit skips the row groups of all others, which is right only in sorted files.",
    "unique": "Rows are joined by this; a repeated one would count twice.",
    "not_null": "The column is declared to hold a value always; null drops silently out of sums and joins.",
    "between": "Other values mean nothing in this unit of measure, so a stage went wrong.",
    "ordered": "An inverted or empty pair selects nothing.",
    "member": "Queries select by these words.",
    "foreign": "An id that leads nowhere breaks every lineage that goes through it.",
}


@dataclass(frozen=True)
class Rule:
    """One thing to check of one table or frame of measured values."""

    kind: Kind
    columns: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    target: str = ""
    """Of a foreign key: "table.column"."""
    members: tuple[str | int, ...] = ()
    or_equal: bool = False
    """Of an ordered pair: the two may be equal."""

    @property
    def type(self) -> str:
        """What Great Expectations calls it."""
        several = self.kind == "unique" and len(self.columns) > 1
        return "expect_compound_columns_to_be_unique" if several else _TYPE[self.kind]

    @property
    def reason(self) -> str:
        """Why the schema wants it."""
        return _REASON[self.kind]

    @property
    def says(self) -> str:
        """The rule in words."""
        names = ", ".join(self.columns)
        match self.kind:
            case "same":
                text = "columns are as declared"
            case "sorted":
                text = f"rows ascend by {names}"
            case "unique":
                text = f"{names}: no two rows alike"
            case "not_null":
                text = f"{names}: always a value"
            case "between":
                text = f"{names}: {span(self.low, self.high)}"
            case "ordered":
                text = f"{self.columns[0]} {'at most' if self.or_equal else 'below'} {self.columns[1]}"
            case "member":
                text = f"{names}: one of {', '.join(str(m) for m in self.members)}"
            case "foreign":
                text = f"{names}: found in {self.target}"
        return text


def span(low: float | None, high: float | None) -> str:
    """A range in words."""
    if high is None:
        return "any" if low is None else f"{low:g} or more"
    return f"{high:g} or less" if low is None else f"{low:g} to {high:g}"


def rules_of(table: Table) -> tuple[Rule, ...]:
    """All rules of a table."""
    key = ("unit", *table.key)
    found = [Rule("same", ("declared", "found")), Rule("sorted", key), Rule("unique", key)]
    known = (*TABLES.values(), *(t for made in IMPORTED.values() for t in made))
    pointed_at = sorted({target for t in known for target in t.foreign.values()})
    found += [Rule("unique", (column,)) for name, column in (p.split(".") for p in pointed_at) if name == table.name]
    found += [Rule("not_null", ("unit",))]
    found += [Rule("not_null", (c.name,)) for c in table.columns if not c.nullable]
    for c in table.columns:
        if (table.name, c.name) in _AS_LISTED:
            continue
        if c.name in _FRACTIONS and c.dtype.startswith("float"):
            found.append(Rule("between", (c.name,), 0.0, 1.0))
        elif c.name in _CORRELATIONS:
            found.append(Rule("between", (c.name,), -1.0, 1.0))
        elif c.name in _COUNTS | _NOT_NEGATIVE:
            found.append(Rule("between", (c.name,), 0.0))
        elif c.name in _SECTIONS:
            found.append(Rule("between", (c.name,), -4096, 4095))
        elif c.dtype == "uint64" and c.name in table.key:
            found.append(Rule("between", (c.name,), 1))
        if (table.name, c.name) in _MEMBERS:
            found.append(Rule("member", (c.name,), members=_MEMBERS[table.name, c.name]))
    names = {c.name for c in table.columns}
    found += [Rule("ordered", p, or_equal=p in _MAY_EQUAL) for p in _ASCENDING if names.issuperset(p)]
    found += [Rule("foreign", (column,), target=target) for column, target in table.foreign.items()]
    return tuple(found)
